/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sidecars: any 48 bytes described and taken apart, built ones taken apart again, and the texts
 * that choose units, flags and dialects.
 */
#include <jansson.h>

#include "fuzz.h"
#include "metadata/control.h"
#include "metadata/render.h"

static const char *const kinds[] = {"description", "control message", "texts"};

/* 48 bytes; flags that mean something mostly. */
static void any_sidecar(struct pd_sidecar *s)
{
	for (unsigned i = 0; i < sizeof(s->bytes); i++)
		s->bytes[i] = (uint8_t)rnd(256);
	if (!one_in(4))
		s->avip.pd_control.metadata_type &= PD_SIDECAR_KNOWN_FLAGS;
	if (one_in(2))
		s->avip.generic_flags |= IXVERIFY_ONLY_CTRL_PKT;
}

/* A choice of units, each of its words. */
static void any_units(struct pd_units *units)
{
	for (unsigned of = 0; of < PD_UNIT_COUNT; of++) {
		const char *const *words = pd_unit_words((enum pd_unit_of)of);
		unsigned n = 0;

		while (words[n])
			n++;
		MUST(n && pd_unit_name((enum pd_unit_of)of));
		units->choice[of] = (uint8_t)rnd(n);
	}
}

/* A description is as long as it says, wherever it is cut, and JSON is JSON. */
static bool describe(void)
{
	enum pd_render_format format = one_in(2) ? PD_RENDER_TEXT : PD_RENDER_JSON;
	char whole[PD_RENDER_BYTES], *cut;
	struct pd_units units = {{0}};
	struct pd_sidecar s;
	size_t room;
	int n;

	any_sidecar(&s);
	any_units(&units);
	n = pd_sidecar_render(&s, format, &units, whole, sizeof(whole));
	MUST(n > 0 && (size_t)n == strlen(whole) && (size_t)n < sizeof(whole));
	room = rnd((uint32_t)n + 2);
	cut = malloc(room + !room); /* to its last byte, so that one more is seen */
	MUST(cut && pd_sidecar_render(&s, format, &units, cut, room) == n);
	if (room) {
		MUST(strlen(cut) == ((size_t)n < room ? (size_t)n : room - 1));
		MUST(!memcmp(cut, whole, strlen(cut)));
	}
	free(cut);
	if (format == PD_RENDER_JSON) {
		/* Numbers of 64 bits have no sign; jansson's have one. */
		json_t *object =
			json_loads(whole, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, NULL);

		MUST(object && json_is_object(object));
		json_decref(object);
	}
	return true;
}

/* What was built is what is taken apart. */
static void build(struct pd_sidecar *s, struct pd_control *want)
{
	static const char *const names[] = {"", "p", "port-1", "sixteen bytes it",
					    "seventeen bytes ."};
	const char *name = names[rnd(PD_ARRAY_SIZE(names))];

	memset(want, 0, sizeof(*want));
	switch (rnd(5)) {
	case 0:
		want->flags = PALLADIUM_PORT_ID;
		want->port_id.chassis_ip = rnd(UINT32_MAX);
		want->port_id.card = (uint16_t)rnd(65536);
		want->port_id.port = (uint16_t)rnd(65536);
		want->queues = (uint8_t)rnd(256);
		pd_control_build_port_id(s, want->port_id.chassis_ip, want->port_id.card,
					 want->port_id.port, want->queues);
		break;
	case 1:
		want->flags = PALLADIUM_LINE_SPEED;
		want->line_speed = rnd(UINT32_MAX);
		pd_control_build_line_speed(s, want->line_speed);
		break;
	case 2:
		want->flags = PALLADIUM_TX_DURATION;
		want->tx_first_ts = rnd64();
		want->tx_last_ts = rnd64();
		pd_control_build_tx_duration(s, want->tx_first_ts, want->tx_last_ts);
		break;
	case 3:
		want->flags = PALLADIUM_ET;
		want->emulator_time = rnd64();
		pd_control_build_time(s, want->emulator_time);
		break;
	default:
		if (strlen(name) > PD_PORT_NAME_BYTES) {
			MUST(pd_control_build_port_name(s, name, 1) == -ENAMETOOLONG);
			name = "";
		}
		want->flags = PALLADIUM_PORT_NAME;
		want->queues = (uint8_t)rnd(256);
		memcpy(want->port_name, name, strlen(name));
		MUST(!pd_control_build_port_name(s, name, want->queues));
	}
}

static bool control(void)
{
	struct pd_control got, want;
	bool good;
	struct pd_sidecar s;

	any_sidecar(&s);
	memset(&got, 0x5a, sizeof(got));
	want = got;
	good = !pd_control_parse(&s, &got);
	if (!good) {
		MUST(!pd_sidecar_is_control(&s) && !memcmp(&got, &want, sizeof(got)));
	} else {
		MUST(got.flags == s.avip.pd_control.metadata_type);
		MUST(memchr(got.port_name, 0, sizeof(got.port_name)));
	}
	build(&s, &want);
	MUST(!pd_control_parse(&s, &got));
	MUST(got.flags == want.flags && got.line_speed == want.line_speed &&
	     got.queues == want.queues && got.tx_first_ts == want.tx_first_ts &&
	     got.tx_last_ts == want.tx_last_ts && got.emulator_time == want.emulator_time &&
	     got.port_id.chassis_ip == want.port_id.chassis_ip &&
	     got.port_id.card == want.port_id.card && got.port_id.port == want.port_id.port &&
	     !strcmp(got.port_name, want.port_name));
	return good;
}

/* A copy that ends where its memory does. */
static char *exactly(const char *text, size_t len)
{
	char *copy = malloc(len + 1);

	MUST(copy);
	memcpy(copy, text, len + 1);
	return copy;
}

static bool texts(void)
{
	static const char *const words[] = {
		"time=", "ifg=",   "line_speed=", "fcs=",   "checksum=", "ns",    "ps",
		"bits",  "octets", ",",           "=",      "IFG",       "FCS",   "Mbit/s",
		"avip",  "virtio", "cycles",      "little", "big",       "header"};
	char text[512];
	size_t len = any_text(text, sizeof(text), words, PD_ARRAY_SIZE(words)), room = rnd(200);
	char *copy = exactly(text, len), *why = malloc(room + !room);
	struct pd_units units = {{0}};
	uint64_t flag;
	bool good;
	int ret;

	MUST(why);
	ret = pd_units_parse(&units, copy, room ? why : NULL, room);
	MUST(!ret || ret == -EINVAL);
	if (ret && room)
		MUST(memchr(why, 0, room));
	good = !ret;
	for (unsigned of = 0; of < PD_UNIT_COUNT; of++) {
		const char *const *of_words = pd_unit_words((enum pd_unit_of)of);

		for (unsigned i = 0; i <= units.choice[of]; i++)
			MUST(of_words[i]);
	}
	flag = pd_sidecar_flag_parse(copy);
	MUST(!(flag & (flag - 1)) &&
	     (!flag || !strcmp(pd_sidecar_flag_name((unsigned)__builtin_ctzll(flag)), copy)));
	ret = pd_dialect_parse(copy);
	MUST(ret == -EINVAL || (ret >= 0 && ret < PD_DIALECT_COUNT &&
				!strcmp(pd_dialect_ops((enum pd_dialect)ret)->name, copy)));
	free(why);
	free(copy);
	return good;
}

static bool run(unsigned kind)
{
	static bool (*const fns[])(void) = {describe, control, texts};

	return fns[kind]();
}

const struct fuzz_target fuzz_target = {
	.name = "sidecar",
	FUZZ_KINDS(kinds),
	.good = "accepted",
	.seeds = 20000,
	.run = run,
};
