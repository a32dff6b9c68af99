/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The report. Both forms are made from one table of counts, so they tell the same; what makes a run
 * fail stands in the table too.
 */
#ifdef HAVE_CONFIG_H
#	include "config.h"
#endif
#include "report.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

/* What a count other than zero means. */
enum meaning { MEANS_NOTHING, MEANS_FAILURE, MEANS_RESTART };

struct totals {
	struct vlm_flow_counts flow;
	struct vlm_counts other;
};

#define AT(member) offsetof(struct totals, member)

static const struct {
	const char *key; /* in JSON; in text '_' becomes ' ' */
	size_t at;
	enum meaning meaning;
	bool always; /* printed in text though it is zero */
} counts[] = {
	{"sent", AT(flow.sent), MEANS_NOTHING, true},
	{"returned", AT(flow.returned), MEANS_NOTHING, true},
	{"lost", AT(flow.lost), MEANS_FAILURE, true},
	{"duplicated", AT(flow.duplicated), MEANS_FAILURE, true},
	{"reordered", AT(flow.reordered), MEANS_FAILURE, true},
	{"invented", AT(flow.invented), MEANS_FAILURE, false},
	{"altered_bytes", AT(other.altered_bytes), MEANS_FAILURE, true},
	{"altered_length", AT(other.altered_length), MEANS_FAILURE, false},
	{"altered_sidecar", AT(other.altered_sidecar), MEANS_FAILURE, true},
	{"wrong_queue", AT(other.wrong_queue), MEANS_FAILURE, false},
	{"unexpected", AT(other.unexpected), MEANS_FAILURE, false},
	{"not_taken", AT(other.not_taken), MEANS_FAILURE, false},
	{"restarts", AT(other.restarts), MEANS_NOTHING, false},
	{"restart_outstanding", AT(flow.restart_outstanding), MEANS_NOTHING, false},
	{"restart_answered", AT(flow.restart_answered), MEANS_NOTHING, false},
	{"restart_lost", AT(flow.restart_lost), MEANS_RESTART, false},
	{"restart_repeated", AT(flow.restart_repeated), MEANS_RESTART, false},
	{"foreign", AT(other.foreign), MEANS_NOTHING, false},
	{"reflected", AT(other.reflected), MEANS_NOTHING, false},
	{"control_sent", AT(other.control_sent), MEANS_NOTHING, false},
	{"control_received", AT(other.control_received), MEANS_NOTHING, false},
	{"sent_bytes", AT(other.sent_bytes), MEANS_NOTHING, false},
	{"returned_bytes", AT(other.returned_bytes), MEANS_NOTHING, false},
	{"ring_full", AT(other.ring_full), MEANS_NOTHING, false},
};

static const struct {
	const char *key;
	double fraction;
} quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}};

/* The value of row `i`. */
static uint64_t value(const struct totals *t, size_t i)
{
	return *(const uint64_t *)((const char *)t + counts[i].at);
}

/* The counts of one port. */
static struct totals port_totals(const struct vlm_port *vp)
{
	return (struct totals){.flow = vlm_port_flows(vp), .other = vp->counts};
}

/* The sum over all ports. */
static struct totals all_totals(const struct vlm *v)
{
	struct totals sum = {0};

	for (unsigned p = 0; p < v->n_ports; p++) {
		struct totals one = port_totals(&v->ports[p]);

		for (size_t i = 0; i < PD_ARRAY_SIZE(counts); i++)
			*(uint64_t *)((char *)&sum + counts[i].at) += value(&one, i);
	}
	return sum;
}

/* A port's peer said nothing of its speed or its name, though it had to. */
static bool control_missing(const struct vlm *v, const struct vlm_port *vp)
{
	const uint64_t must = PALLADIUM_LINE_SPEED | PALLADIUM_PORT_NAME;

	return v->options->require_control && (vp->heard.flags & must) != must;
}

/* True when the run was not as expected. */
static bool failed(const struct vlm *v, const struct totals *t)
{
	bool bad = *v->failure || !v->start_ns;

	for (size_t i = 0; i < PD_ARRAY_SIZE(counts); i++)
		bad |= value(t, i) &&
		       (counts[i].meaning == MEANS_FAILURE ||
			(counts[i].meaning == MEANS_RESTART && !v->options->tolerate_restart));
	for (unsigned p = 0; p < v->n_ports; p++)
		bad |= control_missing(v, &v->ports[p]);
	return bad;
}

/* From the first frame sent to the last one back (or taken). */
static double seconds(const struct vlm *v)
{
	return v->end_ns > v->start_ns ? (double)(v->end_ns - v->start_ns) / 1e9 : 0;
}

/* Frames that count for the rate. */
static uint64_t moved(const struct vlm *v, const struct totals *t)
{
	return v->options->expect == VLM_EXPECT_SINK ? t->flow.sent - t->other.not_taken
						     : t->flow.returned;
}

static uint64_t moved_bytes(const struct vlm *v, const struct totals *t)
{
	return v->options->expect == VLM_EXPECT_SINK ? t->other.sent_bytes
						     : t->other.returned_bytes;
}

/* `n` in `s` seconds. */
static double per_second(uint64_t n, double s)
{
	return s > 0 ? (double)n / s : 0;
}

/* What an altered sidecar most often means, or NULL. */
static const char *hint(const struct vlm *v, const struct totals *t)
{
	if (!t->other.altered_sidecar || t->other.altered_sidecar != t->flow.returned)
		return NULL;
	return v->options->expect == VLM_EXPECT_ECHO ? "no sidecar came back as sent; a peer that "
						       "zeroes them wants --expect zeroed"
						     : "no sidecar came back zeroed; a peer that "
						       "returns them wants --expect echo";
}

/* --- JSON ---------------------------------------------------------------------------------- */

/* A number of 64 bits; as a string where JSON's reader would take it for a negative one. */
static json_t *json_u64(uint64_t n)
{
	char text[24];

	if (n <= INT64_MAX)
		return json_integer((json_int_t)n);
	snprintf(text, sizeof(text), "%" PRIu64, n);
	return json_string(text);
}

/* Put the counts into `object`. */
static void json_counts(json_t *object, const struct totals *t)
{
	for (size_t i = 0; i < PD_ARRAY_SIZE(counts); i++)
		json_object_set_new(object, counts[i].key, json_u64(value(t, i)));
}

/* The queues of a port: what was sent by each, what of that came back, and what came by it. */
static json_t *json_queues(const struct vlm_port *vp)
{
	json_t *queues = json_array();

	for (unsigned q = 0; q < vp->n_lanes; q++) {
		json_t *o = json_object();

		json_object_set_new(o, "sent", json_u64(vp->lanes[q].flow.counts.sent));
		json_object_set_new(o, "returned", json_u64(vp->lanes[q].flow.counts.returned));
		json_object_set_new(o, "came", json_u64(vp->lanes[q].came));
		json_array_append_new(queues, o);
	}
	return queues;
}

/* One port: its counts and what its peer said. */
static json_t *json_port(const struct vlm *v, const struct vlm_port *vp)
{
	json_t *o = json_object(), *heard = json_object();
	struct totals t = port_totals(vp);
	char name[2 * PD_PORT_NAME_BYTES + 1] = "", *p = name;

	json_object_set_new(o, "port", json_integer(vp->number));
	json_counts(o, &t);
	json_object_set_new(o, "queues", json_queues(vp));
	if (vp->heard.flags & PALLADIUM_LINE_SPEED)
		json_object_set_new(heard, "line_speed", json_integer(vp->heard.line_speed));
	if (vp->heard.flags & PALLADIUM_PORT_NAME) {
		/* Each byte is one character of the same number, as palladium_decode has it. */
		for (const char *c = vp->heard.port_name; *c; c++) {
			if (*c & 0x80)
				*p++ = (char)(0xc0 | (uint8_t)*c >> 6);
			*p++ = (char)(*c & 0x80 ? 0x80 | (*c & 0x3f) : *c);
		}
		*p = 0;
		json_object_set_new(heard, "port_name", json_string(name));
	}
	if (vp->heard.flags & PALLADIUM_TX_DURATION) {
		json_object_set_new(heard, "tx_first_ts", json_u64(vp->heard.tx_first_ts));
		json_object_set_new(heard, "tx_last_ts", json_u64(vp->heard.tx_last_ts));
	}
	if (vp->heard.flags & PALLADIUM_ET)
		json_object_set_new(heard, "emulator_time", json_u64(vp->heard.emulator_time));
	json_object_set_new(heard, "queues", json_integer(vp->heard.queues));
	json_object_set_new(o, "heard", heard);
	json_object_set_new(o, "control_missing", json_boolean(control_missing(v, vp)));
	return o;
}

/* The latencies, in nanoseconds. */
static json_t *json_latency(const struct tool_hist *h)
{
	json_t *o = json_object();

	json_object_set_new(o, "count", json_u64(h->count));
	json_object_set_new(o, "min", json_u64(h->min));
	for (size_t i = 0; i < PD_ARRAY_SIZE(quantiles); i++)
		json_object_set_new(o, quantiles[i].key,
				    json_u64(tool_hist_quantile(h, quantiles[i].fraction)));
	json_object_set_new(o, "max", json_u64(h->max));
	json_object_set_new(o, "mean", json_real(h->count ? h->sum / (double)h->count : 0));
	return o;
}

static void report_json(const struct vlm *v, const struct totals *t, bool bad)
{
	json_t *o = json_object(), *ports = json_array(), *remarks = json_array();
	const struct vlm_options *opt = v->options;
	double s = seconds(v);

	json_object_set_new(o, "result", json_string(bad ? "failed" : "ok"));
	if (*v->failure)
		json_object_set_new(o, "failure", json_string(v->failure));
	json_object_set_new(o, "interrupted", json_boolean(v->interrupted));
	json_object_set_new(o, "expect", json_string(vlm_expect_names[opt->expect]));
	json_object_set_new(o, "check", json_string(vlm_check_names[opt->check]));
	json_object_set_new(o, "dialect", json_string(pd_dialect_ops(opt->dialect)->name));
	json_object_set_new(o, "seed", json_u64(opt->plan.seed));
	json_object_set_new(o, "queues", json_integer(opt->queues));
	json_object_set_new(o, "window", json_integer(opt->window));
	json_object_set_new(o, "batch", json_integer(opt->batch));
	json_object_set_new(o, "seconds", json_real(s));
	json_object_set_new(o, "frames_per_second", json_real(per_second(moved(v, t), s)));
	json_object_set_new(o, "bits_per_second", json_real(8 * per_second(moved_bytes(v, t), s)));
	json_counts(o, t);
	json_object_set_new(o, "latency_ns", json_latency(&v->latency));
	for (unsigned p = 0; p < v->n_ports; p++)
		json_array_append_new(ports, json_port(v, &v->ports[p]));
	json_object_set_new(o, "ports", ports);
	for (unsigned i = 0; i < v->n_remarks; i++)
		json_array_append_new(remarks, json_string(v->remarks[i]));
	if (hint(v, t))
		json_array_append_new(remarks, json_string(hint(v, t)));
	json_object_set_new(o, "remarks", remarks);
	json_dumpf(o, stdout, JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(o);
}

/* --- text ---------------------------------------------------------------------------------- */

/* Print a time with a unit that suits it. */
static void print_time(const char *label, uint64_t ns)
{
	static const char *const units[] = {"ns", "us", "ms", "s"};
	double x = (double)ns;
	int unit = 0;

	while (x >= 1000 && unit < 3) {
		x /= 1000;
		unit++;
	}
	printf("  %s %.*f %s", label, unit ? x < 10 ? 2 : x < 100 ? 1 : 0 : 0, x, units[unit]);
}

/* Print the counts, by name, those that are zero left out but where it matters. */
static void print_counts(const struct totals *t)
{
	for (size_t i = 0; i < PD_ARRAY_SIZE(counts); i++) {
		char name[32];

		if (!value(t, i) && !counts[i].always)
			continue;
		snprintf(name, sizeof(name), "%s", counts[i].key);
		for (char *p = name; (p = strchr(p, '_'));)
			*p = ' ';
		printf("  %-20s %16" PRIu64 "\n", name, value(t, i));
	}
}

/* What the peers said of themselves. */
static void print_heard(const struct vlm *v)
{
	for (unsigned p = 0; p < v->n_ports; p++) {
		const struct vlm_port *vp = &v->ports[p];

		if (vp->heard.flags & PALLADIUM_PORT_NAME) {
			printf("  port %u is named ", p);
			for (const char *c = vp->heard.port_name; *c; c++)
				putchar(*c >= ' ' && *c < 0x7f ? *c : '?');
			putchar('\n');
		}
		if (vp->heard.flags & PALLADIUM_LINE_SPEED)
			printf("  port %u has line speed %u\n", p, vp->heard.line_speed);
		if (control_missing(v, vp))
			printf("  port %u: LINE_SPEED and PORT_NAME did not both come\n", p);
	}
}

static void report_text(const struct vlm *v, const struct totals *t, bool bad)
{
	static const char *const checked[] = {"every byte", "headers and lengths", "numbers only"};
	static const char *const sidecars[] = {"all zeroes", "as sent", "not checked",
					       "nothing comes back"};
	const struct vlm_options *o = v->options;
	double s = seconds(v);

	printf("%u port%s, %u queue%s, window %u, batch %u, seed %" PRIu64 "\n", v->n_ports,
	       v->n_ports > 1 ? "s" : "", o->queues, o->queues > 1 ? "s" : "", o->window, o->batch,
	       o->plan.seed);
	printf("checked: %s; sidecars: %s\n",
	       o->expect == VLM_EXPECT_SINK ? "that the peer took everything" : checked[o->check],
	       o->dialect == PD_DIALECT_VIRTIO || o->check == VLM_CHECK_NONE ? "not checked"
									     : sidecars[o->expect]);
	print_counts(t);
	print_heard(v);
	printf("%.3f s, %.0f frames/s, %.1f Mbit/s\n", s, per_second(moved(v, t), s),
	       8 * per_second(moved_bytes(v, t), s) / 1e6);
	if (v->latency.count) {
		printf("latency");
		for (size_t i = 0; i < PD_ARRAY_SIZE(quantiles); i++)
			print_time(quantiles[i].key,
				   tool_hist_quantile(&v->latency, quantiles[i].fraction));
		print_time("max", v->latency.max);
		putchar('\n');
	}
	for (unsigned i = 0; i < v->n_remarks; i++)
		printf("! %s\n", v->remarks[i]);
	if (hint(v, t))
		printf("! %s\n", hint(v, t));
	if (*v->failure)
		printf("! %s\n", v->failure);
	printf("%s%s\n", bad ? "FAILED" : "ok", v->interrupted ? " (interrupted)" : "");
}

int vlm_report(const struct vlm *v)
{
	struct totals t = all_totals(v);
	bool bad = failed(v, &t);

	if (v->options->json)
		report_json(v, &t, bad);
	else
		report_text(v, &t, bad);
	return bad ? VLM_EXIT_FAILED : 0;
}
