/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command line. Each option is a row of the table: name, argument, group, help and the function
 * that takes its text; --help and getopt's table are made from the rows.
 */
#ifdef HAVE_CONFIG_H
#	include "config.h"
#endif
#include "options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../tools/help.h"
#include "base/compiler.h"
#include "metadata/control.h"
#include "transport/transport.h"

const char *const vlm_expect_names[] = {"zeroed", "echo", "any", "sink", NULL};
const char *const vlm_check_names[] = {"full", "header", "none", NULL};

/* Say what is wrong with the command line and end. */
static void PD_PRINTF(1, 2) __attribute__((noreturn)) refuse(const char *fmt, ...)
{
	va_list ap;

	fputs("palladium_vlm: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\npalladium_vlm --help tells the options\n", stderr);
	exit(VLM_EXIT_USAGE);
}

/* --- values -------------------------------------------------------------------------------- */

/* A number at *text, which is moved behind it; false when there is none. */
static bool scan_number(const char **text, uint64_t *value)
{
	char *end;

	if (**text < '0' || **text > '9')
		return false;
	errno = 0;
	*value = strtoull(*text, &end, 0);
	if (errno)
		return false;
	*text = end;
	return true;
}

/* The number that `text` is, from `low` to `high`. */
static uint64_t number(const char *option, const char *text, uint64_t low, uint64_t high)
{
	const char *p = text;
	uint64_t value;

	if (!scan_number(&p, &value) || *p || value < low || value > high)
		refuse("--%s %s: expected a number from %llu to %llu", option, text,
		       (unsigned long long)low, (unsigned long long)high);
	return value;
}

/* The seconds that `text` is, from `low` to `high`. */
static double seconds(const char *option, const char *text, double low, double high)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= low && value <= high))
		refuse("--%s %s: expected seconds from %g to %g", option, text, low, high);
	return value;
}

/* The index of `text` among `words`. */
static int word(const char *option, const char *text, const char *const *words)
{
	char list[128] = "";

	for (int i = 0; words[i]; i++) {
		if (!strcmp(text, words[i]))
			return i;
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "",
			 words[i]);
	}
	refuse("--%s %s: expected one of %s", option, text, list);
}

/* `n` bytes in hex at `text`, which ends behind them; returns false for anything else. */
static bool hex(const char *text, uint8_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned byte;

		if (strspn(text + 2 * i, "0123456789abcdefABCDEF") < 2)
			return false;
		sscanf(text + 2 * i, "%2x", &byte);
		out[i] = (uint8_t)byte;
	}
	return !text[2 * n];
}

/* --- what each option does ----------------------------------------------------------------- */

typedef void take_fn(struct vlm_options *o, const char *name, const char *text);

static void take_socket(struct vlm_options *o, const char *name, const char *text)
{
	/* A %d that becomes a port's number may make it two characters longer at most. */
	if (!*text || strlen(text) >= PD_CONF_PATH_MAX)
		refuse("--%s: expected a path of 1 to %d characters", name, PD_CONF_PATH_MAX - 1);
	o->path = text;
}

static bool mode_given;

static void take_listen(struct vlm_options *o, const char *name, const char *text)
{
	if (mode_given && !o->listens)
		refuse("--listen and --connect exclude each other");
	mode_given = o->listens = true;
}

static void take_mergeable(struct vlm_options *o, const char *name, const char *text)
{
	static const char *const words[] = {"on", "off", NULL};

	o->single = word(name, text, words);
}

static void take_in_order(struct vlm_options *o, const char *name, const char *text)
{
	static const char *const words[] = {"on", "off", NULL};

	o->any_order = word(name, text, words);
}

static void take_connect(struct vlm_options *o, const char *name, const char *text)
{
	if (mode_given && o->listens)
		refuse("--listen and --connect exclude each other");
	mode_given = true;
	o->listens = false;
}

static void take_ports(struct vlm_options *o, const char *name, const char *text)
{
	o->ports = (unsigned)number(name, text, 1, PD_PORTS_MAX);
}

static void take_queues(struct vlm_options *o, const char *name, const char *text)
{
	o->queues = (unsigned)number(name, text, 1, PD_QUEUES_MAX);
}

static void take_ring(struct vlm_options *o, const char *name, const char *text)
{
	o->ring = (unsigned)number(name, text, PD_CONF_RING_MIN, PD_CONF_RING_MAX);
}

static void take_format(struct vlm_options *o, const char *name, const char *text)
{
	static const char *const words[] = {"auto", "split", "packed", NULL};

	o->format = (enum pd_conf_format)word(name, text, words);
}

static void take_dialect(struct vlm_options *o, const char *name, const char *text)
{
	static const char *const words[] = {"avip", "virtio", NULL};

	o->dialect = (enum pd_dialect)word(name, text, words);
}

static void take_timeout(struct vlm_options *o, const char *name, const char *text)
{
	o->timeout_s = seconds(name, text, 0.001, 1e9);
}

static void take_frames(struct vlm_options *o, const char *name, const char *text)
{
	o->frames = number(name, text, 0, UINT64_MAX - 1);
}

static void take_duration(struct vlm_options *o, const char *name, const char *text)
{
	o->duration_s = seconds(name, text, 0.001, 1e9);
}

static void take_size(struct vlm_options *o, const char *name, const char *text)
{
	const char *p = text;
	uint64_t low = 0, high = 0;
	bool good;

	if (!strcmp(text, "imix")) {
		o->plan.size_kind = VLM_SIZE_IMIX;
		return;
	}
	good = scan_number(&p, &low);
	high = low;
	if (good && *p == '-') {
		p++;
		good = scan_number(&p, &high);
	}
	if (!good || *p || low > high || low < VLM_FRAME_MIN || high > VLM_FRAME_MAX)
		refuse("--%s %s: expected bytes N or N-M from %d to %d, or imix", name, text,
		       VLM_FRAME_MIN, VLM_FRAME_MAX);
	o->plan.size_kind = VLM_SIZE_RANGE;
	o->plan.size_low = (uint32_t)low;
	o->plan.size_high = (uint32_t)high;
}

static void take_rate(struct vlm_options *o, const char *name, const char *text)
{
	o->rate = number(name, text, 1, 1000000000);
}

static void take_window(struct vlm_options *o, const char *name, const char *text)
{
	o->window = (unsigned)number(name, text, 1, VLM_WINDOW_MAX);
}

static void take_batch(struct vlm_options *o, const char *name, const char *text)
{
	o->batch = (unsigned)number(name, text, 1, VLM_BATCH_MAX);
}

static void take_seed(struct vlm_options *o, const char *name, const char *text)
{
	o->plan.seed = number(name, text, 0, INT64_MAX);
}

static void take_reflect(struct vlm_options *o, const char *name, const char *text)
{
	o->reflect = true;
}

static void take_ifg(struct vlm_options *o, const char *name, const char *text)
{
	o->plan.sidecar.ifg = number(name, text, 0, UINT64_MAX);
	o->plan.sidecar.ifg_fixed = true;
}

static void take_pfc(struct vlm_options *o, const char *name, const char *text)
{
	o->plan.sidecar.pfc = (uint8_t)number(name, text, 0, MAX_PFC_QUEUES - 1);
	o->plan.sidecar.pfc_fixed = true;
}

static void take_preamble(struct vlm_options *o, const char *name, const char *text)
{
	struct vlm_sidecar_plan *s = &o->plan.sidecar;
	size_t n = strlen(text) / 2;

	s->no_preamble = !strcmp(text, "none");
	if (s->no_preamble)
		return;
	if (n < 1 || n > sizeof(s->preamble) || !hex(text, s->preamble, n))
		refuse("--%s %s: expected none, or 1 to 8 bytes in hex", name, text);
	s->preamble_fixed = true;
	s->preamble_bytes = (uint8_t)n;
}

static void take_fcs(struct vlm_options *o, const char *name, const char *text)
{
	struct vlm_sidecar_plan *s = &o->plan.sidecar;

	s->no_fcs = !strcmp(text, "none");
	if (s->no_fcs)
		return;
	s->fcs = (uint32_t)number(name, text, 0, UINT32_MAX);
	s->fcs_fixed = true;
}

/* Flags by name or number, separated by commas. */
static uint64_t flags(const char *option, const char *text)
{
	char copy[512], *rest = copy, *name;
	uint64_t all = 0, one;

	if (strlen(text) >= sizeof(copy))
		refuse("--%s: too long", option);
	strcpy(copy, text);
	while ((name = strsep(&rest, ","))) {
		const char *p = name;

		one = pd_sidecar_flag_parse(name);
		if (!one && (!scan_number(&p, &one) || *p))
			refuse("--%s %s: \"%s\" is no flag; expected names as CRC_ERROR, or a "
			       "number",
			       option, text, name);
		all |= one;
	}
	return all;
}

static void take_flags(struct vlm_options *o, const char *name, const char *text)
{
	o->plan.sidecar.flags |= flags(name, text);
}

static void take_no_sidecar(struct vlm_options *o, const char *name, const char *text)
{
	o->plan.sidecar.empty = true;
}

static void take_chassis(struct vlm_options *o, const char *name, const char *text)
{
	struct in_addr in;

	if (inet_pton(AF_INET, text, &in) != 1)
		refuse("--%s %s: expected an IPv4 address", name, text);
	o->chassis_ip = ntohl(in.s_addr);
}

static void take_card(struct vlm_options *o, const char *name, const char *text)
{
	o->card = (uint16_t)number(name, text, 0, UINT16_MAX);
}

static void take_first_port(struct vlm_options *o, const char *name, const char *text)
{
	o->first_port = (unsigned)number(name, text, 0, UINT16_MAX - PD_PORTS_MAX);
}

static void take_control(struct vlm_options *o, const char *name, const char *text)
{
	struct pd_sidecar *s = &o->controls[o->n_controls];

	if (o->n_controls == VLM_CONTROLS_MAX)
		refuse("--%s: at most %d messages", name, VLM_CONTROLS_MAX);
	if (strlen(text) != 2 * PD_SIDECAR_BYTES || !hex(text, s->bytes, PD_SIDECAR_BYTES))
		pd_control_build_event(s, flags(name, text));
	s->avip.generic_flags |= IXVERIFY_ONLY_CTRL_PKT;
	o->n_controls++;
}

static void take_control_every(struct vlm_options *o, const char *name, const char *text)
{
	o->control_every = number(name, text, 1, UINT64_MAX);
}

static void take_no_control(struct vlm_options *o, const char *name, const char *text)
{
	o->no_control = true;
}

static void take_expect(struct vlm_options *o, const char *name, const char *text)
{
	o->expect = (enum vlm_expect)word(name, text, vlm_expect_names);
}

static void take_check(struct vlm_options *o, const char *name, const char *text)
{
	o->check = (enum vlm_check)word(name, text, vlm_check_names);
}

static void take_loss_after(struct vlm_options *o, const char *name, const char *text)
{
	o->loss_s = seconds(name, text, 0.001, 1e9);
}

static void take_tolerate(struct vlm_options *o, const char *name, const char *text)
{
	o->tolerate_restart = true;
}

static void take_require_queue(struct vlm_options *o, const char *name, const char *text)
{
	o->require_queue = true;
}

static void take_require_control(struct vlm_options *o, const char *name, const char *text)
{
	o->require_control = true;
}

static void take_json(struct vlm_options *o, const char *name, const char *text)
{
	o->json = true;
}

static void take_quiet(struct vlm_options *o, const char *name, const char *text)
{
	o->quiet = true;
}

static void take_verbose(struct vlm_options *o, const char *name, const char *text)
{
	o->verbose = true;
}

static void take_spin(struct vlm_options *o, const char *name, const char *text)
{
	o->spin_us = (int)number(name, text, 0, 1000000);
}

static take_fn take_help, take_version;

static const struct row {
	const char *group; /* heading above the row, or NULL */
	const char *name, *argument;
	take_fn *take;
	const char *help;
	char letter; /* short form, or 0 */
} rows[] = {
	/* clang-format off */
	{"The link", "socket", "PATH", take_socket,
	 "the vhost-user socket; %d in it becomes the port's number from 0", 's'},
	{NULL, "listen", NULL, take_listen, "wait for the peer to connect (the default)", 'l'},
	{NULL, "connect", NULL, take_connect, "connect to the peer, trying until it is there", 'c'},
	{NULL, "ports", "N", take_ports, "ports, one connection each, 1 to 64 (1)", 'p'},
	{NULL, "queues", "N", take_queues, "queue pairs of a port, 1 to 10 (1)", 'q'},
	{NULL, "ring", "N", take_ring,
	 "descriptors of a ring, 2 to 32768; a split one's are rounded down to a power of two (1024)", 0},
	{NULL, "format", "F", take_format,
	 "of the rings: split, packed, or auto (split, in dialect virtio packed if the peer can)", 0},
	{NULL, "mergeable", "on|off", take_mergeable,
	 "whether a frame may stand in several receive buffers (on)", 0},
	{NULL, "in-order", "on|off", take_in_order,
	 "whether buffers may be agreed to come back in order (on)", 0},
	{NULL, "dialect", "D", take_dialect,
	 "header in front of frames: avip (48 bytes, the default) or virtio", 'd'},
	{NULL, "timeout", "SECONDS", take_timeout, "how long to wait for the peer (30)", 't'},

	{"What is sent", "frames", "N", take_frames,
	 "frames of each port (1000000; without end when --duration is given)", 'n'},
	{NULL, "duration", "SECONDS", take_duration, "stop sending after so long", 0},
	{NULL, "size", "N|N-M|imix", take_size,
	 "bytes of a frame without FCS, 32 to 12240 (60); imix: 60, 566, 1514 as 7:4:1", 0},
	{NULL, "rate", "N", take_rate, "frames per second of each port (as fast as it goes)", 'r'},
	{NULL, "window", "N", take_window,
	 "frames under way at most, of each queue, 1 to 65536 (512); 1 measures round trips", 'w'},
	{NULL, "batch", "N", take_batch, "frames handed over at a time, 1 to 256 (64)", 'b'},
	{NULL, "seed", "N", take_seed, "what contents follow from (from the clock; the report tells it)", 0},
	{NULL, "reflect", NULL, take_reflect, "send frames that are not ours back to the peer, until --duration or a signal; sends "
	 "none of its own unless --frames is given", 0},

	{"The sidecar; what is not given differs from frame to frame", "ifg", "N", take_ifg,
	 "inter-frame gap", 0},
	{NULL, "pfc", "N", take_pfc,
	 "PFC priority, 0 to 7 (with several queues that of the queue, modulo 8)", 0},
	{NULL, "preamble", "HEX|none", take_preamble, "preamble of 1 to 8 bytes", 0},
	{NULL, "fcs", "N|none", take_fcs, "FCS, a number of 32 bits", 0},
	{NULL, "flags", "NAME,...", take_flags,
	 "more flags of metadata_type, by name or number: CRC_ERROR, FCS_MCRC, 0x800000", 0},
	{NULL, "no-sidecar", NULL, take_no_sidecar, "all zeroes", 0},

	{"Control messages", "chassis", "ADDRESS", take_chassis, "chassis of PORT_ID (192.0.2.1)", 0},
	{NULL, "card", "N", take_card, "card of PORT_ID, 0 to 65535 (1)", 0},
	{NULL, "first-port", "N", take_first_port, "port of PORT_ID of the first port (1)", 0},
	{NULL, "control", "FLAG,...|HEX", take_control,
	 "one more message behind PORT_ID: flags as above, or 48 bytes in hex; repeatable", 0},
	{NULL, "control-every", "N", take_control_every, "send them all again after every N frames of a port", 0},
	{NULL, "no-control", NULL, take_no_control, "send none, not even PORT_ID", 0},

	{"What is expected", "expect", "WHAT", take_expect,
	 "zeroed: frames come back with a sidecar of zeroes (the default); echo: with the sidecar "
	 "as sent; any: with any; sink: nothing comes back", 'e'},
	{NULL, "check", "HOW", take_check,
	 "full: every byte (the default); header: the first 32 and the length; none: the number only", 0},
	{NULL, "loss-after", "SECONDS", take_loss_after, "a frame is lost when it is not back after so long (5)", 0},
	{NULL, "tolerate-restart", NULL, take_tolerate,
	 "frames that a peer took with it, or sent twice, when it restarted are no failure", 0},
	{NULL, "require-queue", NULL, take_require_queue,
	 "frames must come back by the queue of their PFC priority (modulo the queues)", 0},
	{NULL, "require-control", NULL, take_require_control, "LINE_SPEED and PORT_NAME must come on each port", 0},

	{"What is printed", "json", NULL, take_json, "the report as one JSON object", 'j'},
	{NULL, "quiet", NULL, take_quiet, "no progress and no control messages", 0},
	{NULL, "verbose", NULL, take_verbose, "the library's messages about the link too", 'v'},
	{NULL, "spin", "MICROSECONDS", take_spin,
	 "poll so long before sleeping, 0 to 1000000 (50; 0 on one processor)", 0},
	{NULL, "help", NULL, take_help, "print this text", 'h'},
	{NULL, "version", NULL, take_version, "print the version", 'V'},
	/* clang-format on */
};

#define LONG_ONLY 256 /* getopt's value of row i is LONG_ONLY + i */
static void take_help(struct vlm_options *o, const char *name, const char *text)
{
	printf("Usage: palladium_vlm --socket PATH [OPTION]...\n"
	       "Play the traffic tester on a vhost-user link: own the memory, send frames with "
	       "sidecars,\ncheck every frame that comes back.\n");
	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++) {
		const struct row *r = &rows[i];
		char letter[8] = "   ";
		int column;

		if (r->group)
			printf("\n%s:\n", r->group);
		if (r->letter)
			snprintf(letter, sizeof(letter), "-%c,", r->letter);
		column = printf("  %s --%s%s%s", letter, r->name, r->argument ? " " : "",
				r->argument ? r->argument : "");
		tool_help_print(r->help, column);
	}
	printf("\nExit status: 0 all was as expected, 1 something was lost or altered or the peer "
	       "did "
	       "not\nappear, 2 wrong usage.\n");
	exit(0);
}

static void take_version(struct vlm_options *o, const char *name, const char *text)
{
#ifdef PACKAGE_VERSION
	printf("palladium_vlm %s\n", PACKAGE_VERSION);
#endif
	exit(0);
}

/* --- the whole ----------------------------------------------------------------------------- */

/* What is taken when nothing is said. */
static void defaults(struct vlm_options *o)
{
	static const uint8_t destination[6] = {0x02, 0x70, 0x64, 0, 0, 1},
			     source[6] = {0x02, 0x70, 0x64, 0, 0, 2};
	struct timespec now;
	cpu_set_t cpus;

	*o = (struct vlm_options){
		.listens = true,
		.ports = 1,
		.queues = 1,
		.ring = 1024,
		.timeout_s = 30,
		.frames = UINT64_MAX,
		.window = 512,
		.batch = 64,
		.chassis_ip = 0xc0000201,
		.card = 1,
		.first_port = 1,
		.loss_s = 5,
		.spin_us = 50,
		.plan = {.size_low = 60, .size_high = 60},
	};
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) < 2)
		o->spin_us = 0;
	memcpy(o->plan.destination, destination, sizeof(destination));
	memcpy(o->plan.source, source, sizeof(source));
	clock_gettime(CLOCK_REALTIME, &now);
	o->plan.seed = vlm_mix((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec) >> 32;
}

/* What does not go together. */
static void check_together(struct vlm_options *o)
{
	if (!o->path)
		refuse("--socket PATH is missing");
	if (o->format == PD_CONF_FORMAT_SPLIT && o->ring & (o->ring - 1))
		refuse("--ring %u: expected a power of two with --format split", o->ring);
	if (o->frames == UINT64_MAX && o->reflect)
		o->frames = 0;
	if (o->frames == UINT64_MAX && !o->duration_s)
		o->frames = 1000000;
	if (o->dialect == PD_DIALECT_VIRTIO) {
		if (o->expect == VLM_EXPECT_ECHO)
			refuse("--expect echo: the virtio dialect carries no sidecar");
		if (o->require_queue)
			refuse("--require-queue: the virtio dialect carries no PFC priority");
		if (o->require_control || o->n_controls || o->control_every)
			refuse("the virtio dialect carries no control messages");
		o->no_control = true;
	}
	if (o->require_queue && o->plan.sidecar.empty)
		refuse("--require-queue and --no-sidecar exclude each other");
	o->plan.sidecar.pfc_by_queue = o->queues > 1;
	if (o->no_control && (o->n_controls || o->control_every))
		refuse("--no-control and --control exclude each other");
}

void vlm_options_read(struct vlm_options *o, int argc, char **argv)
{
	struct option options[PD_ARRAY_SIZE(rows) + 1] = {0};
	char letters[2 * PD_ARRAY_SIZE(rows) + 2] = ":", *p = letters + 1;
	int c;

	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++) {
		options[i] = (struct option){rows[i].name, rows[i].argument ? 1 : 0, NULL,
					     LONG_ONLY + (int)i};
		if (rows[i].letter)
			*p++ = rows[i].letter;
		if (rows[i].letter && rows[i].argument)
			*p++ = ':';
	}
	*p = 0;
	defaults(o);
	opterr = 0;
	while ((c = getopt_long(argc, argv, letters, options, NULL)) != -1) {
		const struct row *r = c >= LONG_ONLY ? &rows[c - LONG_ONLY] : rows;

		if (c == ':')
			refuse("%s needs a value", argv[optind - 1]);
		if (c == '?' && optopt)
			refuse("there is no option -%c", optopt);
		if (c == '?')
			refuse("there is no option %s, or it is ambiguous, or it takes no value",
			       argv[optind - 1]);
		while (c < LONG_ONLY && r->letter != c)
			r++;
		r->take(o, r->name, optarg);
	}
	if (optind < argc)
		refuse("\"%s\" is not expected", argv[optind]);
	check_together(o);
}
