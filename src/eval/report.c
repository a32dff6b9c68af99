/* SPDX-License-Identifier: BSD-2-Clause */
/* The report of a run. */
#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Latencies that are told. */
static const struct quantile {
	const char *name;
	double fraction;
} quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}};

/* Faults by kind. */
#define FAULTS(x) x(contents) x(length) x(order) x(metadata) x(header) x(descriptor) x(dropped)

/* What nf and tx found wrong, together. */
static struct ev_tally faults(const struct ev_result *r)
{
	const struct ev_tally *a = &r->told.told[EV_NF].tally, *b = &r->told.told[EV_TX].tally;
	struct ev_tally sum = {0};

#define ADD(kind) sum.kind = a->kind + b->kind;
	FAULTS(ADD)
#undef ADD
	sum.first = ev_tally_sum(b) ? b->first : a->first;
	return sum;
}

const char *ev_verdict(const struct ev_options *o, const struct ev_result *r)
{
	struct ev_tally t = faults(r);

	if (*r->failure || ev_tally_sum(&t))
		return "failed";
	return o->check ? "result" : "unchecked";
}

/* The threads of a run: "rx+tx on core 0, nf on core 1". */
static void describe(const struct ev_plan *plan, char *out, size_t size)
{
	char name[32];

	*out = 0;
	for (unsigned i = 0; i < plan->n_threads; i++) {
		ev_roles_name(plan->threads[i].roles, name, sizeof(name));
		snprintf(out + strlen(out), size - strlen(out), "%s%s on core %d", i ? ", " : "",
			 name, plan->threads[i].core);
	}
}

/* What was run. */
static void print_setting(const struct ev_options *o, const struct ev_result *r)
{
	char where[160];

	describe(&r->plan, where, sizeof(where));
	printf("mode %s, %" PRIu64 " bytes, batch %" PRIu64 ", ring %" PRIu64 ", nf %s\n",
	       ev_mode_words[o->mode], o->size, o->batch, o->ring, ev_nf_words[o->nf]);
	printf("%s: %s\n", ev_as_words[o->as], where);
	if (o->mode == EV_MODE_STRIPPED)
		printf("metadata %" PRIu64 " bytes, %s; descriptors %" PRIu64
		       " bytes; headroom %" PRIu64 ", dataroom %" PRIu64
		       "; header %s; copy rx %s, tx %s%s\n",
		       o->metadata_size, ev_place_words[o->metadata_place], o->descriptor,
		       o->headroom, o->dataroom, ev_switch_words[o->header],
		       ev_switch_words[o->copy_rx], ev_switch_words[o->copy_tx],
		       !o->hugepages  ? ""
		       : r->hugepages ? "; huge pages"
				      : "; there were no huge pages");
	else
		printf("nf is the %s of its two ports, rx and tx are the other end; dialect %s\n",
		       ev_nf_side_words[o->nf_side], ev_dialect_words[o->dialect]);
}

/* What was wrong. */
static void print_faults(const struct ev_result *r)
{
	struct ev_tally t = faults(r);

	if (*r->failure)
		printf("failed: %s\n", r->failure);
	if (!ev_tally_sum(&t))
		return;
	printf("wrong:");
#define PRINT(kind) \
	if (t.kind) \
		printf(" %" PRIu64 " " #kind, t.kind);
	FAULTS(PRINT)
#undef PRINT
	printf("; first at packet %" PRIu64 "\n", t.first);
}

/* The report in words. */
static void print_words(const struct ev_options *o, const struct ev_result *r)
{
	const struct tool_hist *h = &r->told.latency;
	const struct ev_nf_state *nf = &r->told.told[EV_NF].nf;

	print_setting(o, r);
	print_faults(r);
	printf("%s: %.3f Mpps, %.3f Gbit/s: %" PRIu64 " packets in %.3f s\n", ev_verdict(o, r),
	       r->mpps, r->mpps * (double)o->size * 8 / 1e3, r->told.told[EV_TX].packets,
	       (double)r->ns / 1e9);
	if (o->nf != EV_NF_FORWARD)
		printf("nf %s: %" PRIu64 " packets, %" PRIu64 " bytes\n", ev_nf_words[o->nf],
		       nf->packets, nf->bytes);
	if (r->bound_mpps > 0)
		printf("bound: %.3f Mpps from a single producer on two cores; the bound is %.2f "
		       "times "
		       "the figure\n",
		       r->bound_mpps, r->mpps > 0 ? r->bound_mpps / r->mpps : 0.0);
	if (!o->latency || !h->count)
		return;
	printf("latency rx to tx, us: min %.3f", (double)h->min / 1e3);
	for (size_t i = 0; i < PD_ARRAY_SIZE(quantiles); i++)
		printf(", %s %.3f", quantiles[i].name,
		       (double)tool_hist_quantile(h, quantiles[i].fraction) / 1e3);
	printf(", max %.3f\n", (double)h->max / 1e3);
}

/* Latency as JSON. */
static json_t *latency_json(const struct tool_hist *h)
{
	json_t *all = json_object();

	json_object_set_new(all, "count", json_integer((json_int_t)h->count));
	json_object_set_new(all, "min", json_integer((json_int_t)h->min));
	for (size_t i = 0; i < PD_ARRAY_SIZE(quantiles); i++)
		json_object_set_new(
			all, quantiles[i].name,
			json_integer((json_int_t)tool_hist_quantile(h, quantiles[i].fraction)));
	json_object_set_new(all, "max", json_integer((json_int_t)h->max));
	return all;
}

/* What was wrong as JSON. */
static json_t *faults_json(const struct ev_result *r)
{
	struct ev_tally t = faults(r);
	json_t *all = json_object();

#define SET(kind) json_object_set_new(all, #kind, json_integer((json_int_t)t.kind));
	FAULTS(SET)
#undef SET
	if (ev_tally_sum(&t))
		json_object_set_new(all, "first", json_integer((json_int_t)t.first));
	return all;
}

/* The roles and where they ran as JSON. */
static json_t *roles_json(const struct ev_result *r)
{
	json_t *all = json_object();

	for (unsigned i = 0; i < EV_ROLES; i++)
		for (unsigned k = 0; k < r->plan.n_threads; k++) {
			const struct ev_thread *t = &r->plan.threads[k];

			if (t->roles >> i & 1)
				json_object_set_new(
					all, ev_role_names[i],
					json_pack("{s:I, s:i, s:i, s:i, s:b}", "packets",
						  (json_int_t)r->told.told[i].packets, "core",
						  t->core, "thread", (int)k, "process",
						  (int)t->process, "shares_core", t->shares));
		}
	return all;
}

json_t *ev_report_json(const struct ev_options *o, const struct ev_result *r)
{
	json_t *all = json_object();
	const struct ev_nf_state *nf = &r->told.told[EV_NF].nf;

	json_object_set_new(all, "verdict", json_string(ev_verdict(o, r)));
	json_object_set_new(all, "checked", json_boolean(o->check));
	json_object_set_new(all, "packets", json_integer((json_int_t)r->told.told[EV_TX].packets));
	json_object_set_new(all, "seconds", json_real((double)r->ns / 1e9));
	json_object_set_new(all, "mpps", json_real(r->mpps));
	json_object_set_new(all, "gbit_s", json_real(r->mpps * (double)o->size * 8 / 1e3));
	if (r->bound_mpps > 0)
		json_object_set_new(all, "bound_mpps", json_real(r->bound_mpps));
	if (*r->failure)
		json_object_set_new(all, "failure", json_string(r->failure));
	json_object_set_new(all, "interrupted", json_boolean(r->interrupted));
	if (o->mode == EV_MODE_STRIPPED)
		json_object_set_new(all, "had_hugepages", json_boolean(r->hugepages));
	json_object_set_new(all, "wrong", faults_json(r));
	json_object_set_new(all, "roles", roles_json(r));
	json_object_set_new(all, "nf",
			    json_pack("{s:I, s:I}", "packets", (json_int_t)nf->packets, "bytes",
				      (json_int_t)nf->bytes));
	if (o->latency)
		json_object_set_new(all, "latency_ns", latency_json(&r->told.latency));
	json_object_set_new(all, "options", ev_options_json(o));
	return all;
}

void ev_report(const struct ev_options *o, const struct ev_result *r)
{
	json_t *all;

	if (!o->json) {
		print_words(o, r);
		return;
	}
	all = ev_report_json(o, r);
	json_dumpf(all, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(all);
}
