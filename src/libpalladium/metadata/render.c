/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A sidecar in words.
 *
 * A bit mask follows which of the 48 bytes have been told: `told` starts with the bytes that every
 * description has and grows by each field whose flag is set. What is left over and not zero is
 * printed at the end in hex, run by run, under the name of the field that stands there.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "metadata/render.h"

/* --- the writer ----------------------------------------------------------------------------------
 */

/* Counts all, keeps what fits. `size` 0 keeps nothing. */
struct pd_writer {
	char *out;
	size_t size, len;
};

/* Append formatted text. */
static void PD_PRINTF(2, 3) pd_put(struct pd_writer *w, const char *fmt, ...)
{
	size_t room = w->len < w->size ? w->size - w->len : 0;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(room ? w->out + w->len : NULL, room, fmt, ap);
	va_end(ap);
	if (n > 0)
		w->len += (size_t)n;
}

/* Append `n` bytes in hex with `between` between them. */
static void pd_put_hex(struct pd_writer *w, const void *bytes, size_t n, const char *between)
{
	for (size_t i = 0; i < n; i++)
		pd_put(w, "%s%02x", i ? between : "", ((const uint8_t *)bytes)[i]);
}

/*
 * Append the port name: at most 16 bytes up to its NUL, those that cannot be printed as \xNN, or as
 * \u00NN within a JSON string.
 */
static void pd_put_name(struct pd_writer *w, const char *name, size_t n, bool json)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)name[i];

		if (c == '\\' || (json && c == '"'))
			pd_put(w, "\\%c", c);
		else if (c >= 0x20 && c < 0x7f)
			pd_put(w, "%c", c);
		else
			pd_put(w, json ? "\\u%04x" : "\\x%02x", c);
	}
}

/* --- units ---------------------------------------------------------------------------------------
 */

#define PD_UNIT_WORDS_MAX 6

/* The words of each setting, the default first, NULL behind the last. */
static const struct {
	const char *name;
	const char *words[PD_UNIT_WORDS_MAX];
} pd_unit_table[] = {
	[PD_UNIT_TIME] = {"time", {"ps", "fs", "ns", "us", "cycles"}},
	[PD_UNIT_IFG] = {"ifg", {"octets", "bits", "ps", "ns", "cycles"}},
	[PD_UNIT_LINE_SPEED] = {"line_speed", {"Mbit/s", "kbit/s", "Gbit/s", "bit/s"}},
	[PD_UNIT_FCS] = {"fcs", {"little", "big"}},
	[PD_UNIT_CHECKSUM] = {"checksum", {"header", "field"}},
};
_Static_assert(PD_ARRAY_SIZE(pd_unit_table) == PD_UNIT_COUNT, "one row per setting");

const char *pd_unit_name(enum pd_unit_of of)
{
	return pd_unit_table[of].name;
}

const char *const *pd_unit_words(enum pd_unit_of of)
{
	return pd_unit_table[of].words;
}

/* True when the `n` bytes at `text` are the word `word`. */
static bool pd_is_word(const char *text, size_t n, const char *word)
{
	return strlen(word) == n && memcmp(text, word, n) == 0;
}

/* The number of the word of `of` that is the `n` bytes at `text`, or -EINVAL. */
static int pd_unit_find(enum pd_unit_of of, const char *text, size_t n)
{
	for (int i = 0; pd_unit_table[of].words[i]; i++) {
		if (pd_is_word(text, n, pd_unit_table[of].words[i]))
			return i;
	}
	return -EINVAL;
}

/* Write to `why` (if any) that the `n` bytes at `text` are no setting, and what is. Returns
 * -EINVAL. */
static int pd_unit_unknown(const char *text, size_t n, char *why, size_t why_size)
{
	struct pd_writer w = {why, why ? why_size : 0, 0};

	pd_put(&w, "'%.*s' is no unit setting; expected", (int)n, text);
	for (int of = 0; of < PD_UNIT_COUNT; of++) {
		pd_put(&w, "%s %s=", of ? "," : "", pd_unit_table[of].name);
		for (int i = 0; pd_unit_table[of].words[i]; i++)
			pd_put(&w, "%s%s", i ? "|" : "", pd_unit_table[of].words[i]);
	}
	return -EINVAL;
}

int pd_units_parse(struct pd_units *units, const char *settings, char *why, size_t why_size)
{
	while (*settings) {
		size_t n = strcspn(settings, ","), name = strcspn(settings, "=,");
		int of = 0, choice = -EINVAL;

		while (of < PD_UNIT_COUNT && !pd_is_word(settings, name, pd_unit_table[of].name))
			of++;
		if (of < PD_UNIT_COUNT && name < n)
			choice = pd_unit_find((enum pd_unit_of)of, settings + name + 1,
					      n - name - 1);
		if (choice < 0)
			return pd_unit_unknown(settings, n, why, why_size);
		units->choice[of] = (uint8_t)choice;
		settings += n + (settings[n] == ',');
	}
	return 0;
}

/* --- what there is to tell ------------------------------------------------------------------- */

/* One description in the making. */
struct pd_render {
	struct pd_writer w;
	const struct pd_sidecar *s;
	const struct avip_mdata_t *md;
	const struct pd_units *units;
	uint64_t flags; /* metadata_type */
	uint64_t told;  /* bit n: byte n has been described */
};

/* Which of the three structures the flags speak of; more than one may be told when they mix. */
enum pd_layout { PD_LAYOUT_PACKET, PD_LAYOUT_CONTROL, PD_LAYOUT_CONFIG };
static const char *const pd_layout_names[] = {"packet", "control", "config"};

static enum pd_layout pd_layout_of(uint64_t flags)
{
	if (flags & PALLADIUM_NEW_CONFIG)
		return PD_LAYOUT_CONFIG;
	if (flags & (PALLADIUM_PORT_ID | PALLADIUM_LINE_SPEED | PALLADIUM_PORT_NAME |
		     PALLADIUM_TX_DURATION))
		return PD_LAYOUT_CONTROL;
	return PD_LAYOUT_PACKET;
}

/* The fields of each layout, for naming bytes that no flag accounts for; each ends where the next
 * starts. */
struct pd_region {
	uint8_t start;
	const char *name;
};
static const struct pd_region pd_regions_packet[] = {
	{0, "mrg_num_buffers"},
	{2, "generic_flags"},
	{3, "metadata_type"},
	{11, "ifg/emulator_time"},
	{19, "latency"},
	{27, "pfc_priority"},
	{28, "tcp_udp_checksum_offset"},
	{29, "preamble"},
	{37, "preamble_size"},
	{38, "fcs"},
	{42, "reserved"},
	{PD_SIDECAR_BYTES, NULL},
};
static const struct pd_region pd_regions_control[] = {
	{0, "mrg_num_buffers"},
	{2, "generic_flags"},
	{3, "metadata_type"},
	{11, "control fields"},
	{27, "xtor_queues/ixia_queues"},
	{28, "reserved"},
	{PD_SIDECAR_BYTES, NULL},
};
static const struct pd_region pd_regions_config[] = {
	{0, "mrg_num_buffers"},    {2, "generic_flags"},     {3, "metadata_type"},
	{11, "flow_control_mode"}, {12, "pfc.queues"},       {13, "pfc.map"},
	{21, "reserved"},          {PD_SIDECAR_BYTES, NULL},
};
static const struct pd_region *const pd_regions[] = {
	[PD_LAYOUT_PACKET] = pd_regions_packet,
	[PD_LAYOUT_CONTROL] = pd_regions_control,
	[PD_LAYOUT_CONFIG] = pd_regions_config,
};

/* Note that `n` bytes from `offset` have been described. */
static void pd_tell(struct pd_render *r, size_t offset, size_t n)
{
	r->told |= ((1ull << n) - 1) << offset;
}

#define PD_TELL(r, member) pd_tell(r, PD_SIDECAR_AT(member), sizeof((r)->md->member))

static bool pd_has(const struct pd_render *r, uint64_t flag)
{
	return (r->flags & flag) != 0;
}

/* The word chosen for `of`. */
static const char *pd_unit(const struct pd_render *r, enum pd_unit_of of)
{
	return pd_unit_table[of].words[r->units->choice[of]];
}

/* The FCS as a number, under the byte order that was chosen. */
static uint32_t pd_fcs_value(const struct pd_render *r)
{
	uint32_t fcs = r->md->pd.fcs;

	return r->units->choice[PD_UNIT_FCS] ? __builtin_bswap32(fcs) : fcs;
}

/* Bytes of the port name before its NUL. */
static size_t pd_name_length(const struct pd_render *r)
{
	return strnlen(r->md->pd_control.port_name, sizeof(r->md->pd_control.port_name));
}

/* Mark what the flags account for. */
static void pd_tell_all(struct pd_render *r)
{
	size_t n;

	pd_tell(r, 0, PD_SIDECAR_AT(pd.ifg));
	PD_TELL(r, pd.pfc_priority);
	if (pd_has(r, PALLADIUM_PORT_ID))
		PD_TELL(r, pd_control.port_id);
	if (pd_has(r, PALLADIUM_LINE_SPEED))
		PD_TELL(r, pd_control.line_speed);
	if (pd_has(r, PALLADIUM_PORT_NAME))
		pd_tell(r, PD_SIDECAR_AT(pd_control.port_name), pd_name_length(r));
	if (pd_has(r, PALLADIUM_TX_DURATION))
		PD_TELL(r, pd_control.tx_ts);
	if (pd_has(r, PALLADIUM_IFG | PALLADIUM_ET))
		PD_TELL(r, pd.ifg);
	if (pd_has(r, PALLADIUM_LATENCY))
		PD_TELL(r, pd.latency);
	if (pd_has(r, PALLADIUM_TCP_OFFSET | PALLADIUM_UDP_OFFSET))
		PD_TELL(r, pd.tcp_udp_checksum_offset);
	if (pd_has(r, PALLADIUM_PREAMBLE)) {
		n = r->md->pd.preamble_size;
		PD_TELL(r, pd.preamble_size);
		pd_tell(r, PD_SIDECAR_AT(pd.preamble), n < 8 ? n : 8);
	}
	if (pd_has(r, PALLADIUM_FCS))
		PD_TELL(r, pd.fcs);
	if (pd_has(r, PALLADIUM_NEW_CONFIG)) {
		PD_TELL(r, pd_config.flow_control_mode);
		PD_TELL(r, pd_config.pfc.queues);
		for (n = 0; n < MAX_PFC_QUEUES; n++) {
			if (r->md->pd_config.pfc.queues & 1u << n)
				pd_tell(r, PD_SIDECAR_AT(pd_config.pfc.map) + n, 1);
		}
	}
}

/* True when byte `i` is not zero and has not been told. */
static bool pd_is_left(const struct pd_render *r, size_t i)
{
	return r->s->bytes[i] != 0 && !(r->told >> i & 1);
}

/*
 * The next run of left-over bytes at or after `*at`, within one field: its first byte and length,
 * the field's name in `name`. Bytes that are zero or told end a run. Returns 0 when there is none.
 */
static size_t pd_next_left(const struct pd_render *r, size_t *at, const char **name)
{
	const struct pd_region *g = pd_regions[pd_layout_of(r->flags)];
	size_t i = *at, n = 0;

	while (i < PD_SIDECAR_BYTES && !pd_is_left(r, i))
		i++;
	if (i == PD_SIDECAR_BYTES)
		return 0;
	while (g[1].start <= i)
		g++;
	while (i + n < g[1].start && pd_is_left(r, i + n))
		n++;
	*at = i;
	*name = g->name;
	return n;
}

/* --- text ------------------------------------------------------------------------------------ */

/* The names of the flags that are set, and the bits that have none. */
static void pd_text_flags(struct pd_render *r)
{
	const char *between = "";
	uint64_t unknown = r->flags & ~PD_SIDECAR_KNOWN_FLAGS;

	if (!r->flags)
		return;
	pd_put(&r->w, "  flags: ");
	for (unsigned i = 0; i < 64; i++) {
		if (pd_has(r, 1ull << i & PD_SIDECAR_KNOWN_FLAGS)) {
			pd_put(&r->w, "%s%s", between, pd_sidecar_flag_name(i));
			between = ", ";
		}
	}
	if (unknown)
		pd_put(&r->w, "%sunknown 0x%" PRIx64, between, unknown);
	pd_put(&r->w, "\n");
}

/* The fields of the control structure, down to the queues that every header shows. */
static void pd_text_control(struct pd_render *r)
{
	const struct palladium_ctrl_metadata *c = &r->md->pd_control;

	if (pd_has(r, PALLADIUM_PORT_ID)) {
		pd_put(&r->w, "chassis_ip: 0x%08x\n", c->port_id.chassis_ip);
		pd_put(&r->w, "card_number: %u\n", c->port_id.card_number);
		pd_put(&r->w, "port_number: %u\n", c->port_id.port_number);
	}
	if (pd_has(r, PALLADIUM_LINE_SPEED))
		pd_put(&r->w, "line_speed: %u %s\n", c->line_speed, pd_unit(r, PD_UNIT_LINE_SPEED));
	if (pd_has(r, PALLADIUM_PORT_NAME)) {
		pd_put(&r->w, "port_name: ");
		pd_put_name(&r->w, c->port_name, pd_name_length(r), false);
		pd_put(&r->w, "\n");
	}
	if (pd_has(r, PALLADIUM_TX_DURATION)) {
		pd_put(&r->w, "tx_first_ts: %" PRIu64 " %s\n", c->tx_ts.tx_first_ts,
		       pd_unit(r, PD_UNIT_TIME));
		pd_put(&r->w, "tx_last_ts: %" PRIu64 " %s\n", c->tx_ts.tx_last_ts,
		       pd_unit(r, PD_UNIT_TIME));
	}
	pd_put(&r->w, "xtor_queues/ixia_queues: 0x%x\n", c->xtor_queues);
}

/* The fields of the packet structure. */
static void pd_text_packet(struct pd_render *r)
{
	const struct palladium_packet_metadata *p = &r->md->pd;
	size_t n = p->preamble_size;

	if (pd_has(r, PALLADIUM_IFG))
		pd_put(&r->w, "ifg: %" PRIu64 " %s\n", p->ifg, pd_unit(r, PD_UNIT_IFG));
	if (pd_has(r, PALLADIUM_ET))
		pd_put(&r->w, "emulator_time: %" PRIu64 " %s\n", p->emulator_time,
		       pd_unit(r, PD_UNIT_TIME));
	if (pd_has(r, PALLADIUM_LATENCY))
		pd_put(&r->w, "latency: %" PRIu64 " %s\n", p->latency, pd_unit(r, PD_UNIT_TIME));
	pd_put(&r->w, "pfc_priority: %u\n", p->pfc_priority);
	if (pd_has(r, PALLADIUM_TCP_OFFSET | PALLADIUM_UDP_OFFSET))
		pd_put(&r->w, "tcp_udp_checksum_offset: %u (from the %s)\n",
		       p->tcp_udp_checksum_offset, pd_unit(r, PD_UNIT_CHECKSUM));
	if (pd_has(r, PALLADIUM_PREAMBLE)) {
		pd_put(&r->w, "preamble_size: %zu bytes%s\npreamble: ", n,
		       n > sizeof(p->preamble) ? " (more than the 8 that the header holds)" : "");
		pd_put_hex(&r->w, p->preamble, n < sizeof(p->preamble) ? n : sizeof(p->preamble),
			   " ");
		pd_put(&r->w, "\n");
	}
	if (pd_has(r, PALLADIUM_FCS))
		pd_put(&r->w, "fcs: 0x%08x\n", pd_fcs_value(r));
}

/* The new configuration. */
static void pd_text_config(struct pd_render *r)
{
	const struct palladium_new_config_metadata *c = &r->md->pd_config;

	if (!pd_has(r, PALLADIUM_NEW_CONFIG))
		return;
	pd_put(&r->w, "flow_control_mode: %u\n", c->flow_control_mode);
	pd_put(&r->w, "pfc.queues (bitmask): 0x%02x\nPFC Queue Mappings:\n", c->pfc.queues);
	for (int i = 0; i < MAX_PFC_QUEUES; i++) {
		if (c->pfc.queues & 1 << i)
			pd_put(&r->w, "  Queue %d -> map: 0x%02x\n", i, c->pfc.map[i]);
	}
}

/* The flags that stand for an event, in the order of the decoder this one follows. */
static void pd_text_status(struct pd_render *r)
{
	static const uint64_t status[] = {
		PALLADIUM_PORT_DISABLED, PALLADIUM_PORT_PAUSED,        PALLADIUM_PORT_REMOVED,
		PALLADIUM_ET_RESET,      PALLADIUM_CLEARED_STATS,      PALLADIUM_CRC_ERROR,
		PALLADIUM_CRC_OFF,       PALLADIUM_PFC_STOPPED_QUEUES, PALLADIUM_PFC_CHANGE,
		PALLADIUM_FCS_MCRC,      PALLADIUM_TIMESTAMP_OFF,
	};
	uint64_t unknown = r->flags & ~PD_SIDECAR_KNOWN_FLAGS;

	pd_put(&r->w, "Status Flags:\n");
	for (size_t i = 0; i < PD_ARRAY_SIZE(status); i++) {
		if (pd_has(r, status[i]))
			pd_put(&r->w, "  %s\n",
			       pd_sidecar_flag_name((unsigned)__builtin_ctzll(status[i])));
	}
	if (unknown)
		pd_put(&r->w, "  UNKNOWN 0x%" PRIx64 "\n", unknown);
}

/* All lines, and an empty one. */
static void pd_render_text(struct pd_render *r)
{
	unsigned generic = r->md->generic_flags,
		 other = generic & ~(unsigned)IXVERIFY_ONLY_CTRL_PKT;
	const char *name;
	size_t at = 0, n;

	pd_put(&r->w, "=== ALWAYS PRESENT FIELDS ===================================\n");
	pd_put(&r->w, "mrg_num_buffers: %u\n", r->md->mrg_num_buffers);
	pd_put(&r->w, "generic_flags: 0x%x\n", generic);
	pd_put(&r->w, "  %s flag set\n",
	       generic & IXVERIFY_ONLY_CTRL_PKT ? "IXVERIFY_ONLY_CTRL_PKT" : "DATA FRAME");
	if (other)
		pd_put(&r->w, "  unknown generic flags: 0x%x\n", other);
	pd_put(&r->w, "metadata_type: 0x%" PRIx64 "\n", r->flags);
	pd_text_flags(r);
	pd_text_control(r);
	pd_text_packet(r);
	pd_text_config(r);
	pd_text_status(r);
	while ((n = pd_next_left(r, &at, &name))) {
		pd_put(&r->w, "%s  offset %zu (%s): ",
		       r->told >> 63 ? "" : "Other bytes that are not zero:\n", at, name);
		pd_put_hex(&r->w, r->s->bytes + at, n, " ");
		pd_put(&r->w, "\n");
		r->told |= 1ull << 63; /* beyond byte 47: the heading has been written */
		at += n;
	}
	pd_put(&r->w, "\n");
}

/* --- JSON ------------------------------------------------------------------------------------ */

static void pd_json_flags(struct pd_render *r)
{
	const char *between = "";

	pd_put(&r->w, ",\"metadata_type\":\"0x%" PRIx64 "\",\"flags\":[", r->flags);
	for (unsigned i = 0; i < 64; i++) {
		if (pd_has(r, 1ull << i & PD_SIDECAR_KNOWN_FLAGS)) {
			pd_put(&r->w, "%s\"%s\"", between, pd_sidecar_flag_name(i));
			between = ",";
		}
	}
	pd_put(&r->w, "],\"unknown_flags\":\"0x%" PRIx64 "\"", r->flags & ~PD_SIDECAR_KNOWN_FLAGS);
}

static void pd_json_control(struct pd_render *r)
{
	const struct palladium_ctrl_metadata *c = &r->md->pd_control;

	if (pd_has(r, PALLADIUM_PORT_ID))
		pd_put(&r->w, ",\"chassis_ip\":\"0x%08x\",\"card_number\":%u,\"port_number\":%u",
		       c->port_id.chassis_ip, c->port_id.card_number, c->port_id.port_number);
	if (pd_has(r, PALLADIUM_LINE_SPEED))
		pd_put(&r->w, ",\"line_speed\":%u", c->line_speed);
	if (pd_has(r, PALLADIUM_PORT_NAME)) {
		pd_put(&r->w, ",\"port_name\":\"");
		pd_put_name(&r->w, c->port_name, pd_name_length(r), true);
		pd_put(&r->w, "\"");
	}
	if (pd_has(r, PALLADIUM_TX_DURATION))
		pd_put(&r->w, ",\"tx_first_ts\":%" PRIu64 ",\"tx_last_ts\":%" PRIu64,
		       c->tx_ts.tx_first_ts, c->tx_ts.tx_last_ts);
	pd_put(&r->w, ",\"queues\":%u", c->xtor_queues);
}

static void pd_json_packet(struct pd_render *r)
{
	const struct palladium_packet_metadata *p = &r->md->pd;
	size_t n = p->preamble_size;

	if (pd_has(r, PALLADIUM_IFG))
		pd_put(&r->w, ",\"ifg\":%" PRIu64, p->ifg);
	if (pd_has(r, PALLADIUM_ET))
		pd_put(&r->w, ",\"emulator_time\":%" PRIu64, p->emulator_time);
	if (pd_has(r, PALLADIUM_LATENCY))
		pd_put(&r->w, ",\"latency\":%" PRIu64, p->latency);
	pd_put(&r->w, ",\"pfc_priority\":%u", p->pfc_priority);
	if (pd_has(r, PALLADIUM_TCP_OFFSET | PALLADIUM_UDP_OFFSET))
		pd_put(&r->w, ",\"tcp_udp_checksum_offset\":%u", p->tcp_udp_checksum_offset);
	if (pd_has(r, PALLADIUM_PREAMBLE)) {
		pd_put(&r->w, ",\"preamble_size\":%zu,\"preamble\":\"", n);
		pd_put_hex(&r->w, p->preamble, n < sizeof(p->preamble) ? n : sizeof(p->preamble),
			   "");
		pd_put(&r->w, "\"");
	}
	if (pd_has(r, PALLADIUM_FCS))
		pd_put(&r->w, ",\"fcs\":\"0x%08x\"", pd_fcs_value(r));
}

static void pd_json_config(struct pd_render *r)
{
	const struct palladium_new_config_metadata *c = &r->md->pd_config;

	if (!pd_has(r, PALLADIUM_NEW_CONFIG))
		return;
	pd_put(&r->w, ",\"flow_control_mode\":%u,\"pfc\":{\"queues\":%u,\"map\":[",
	       c->flow_control_mode, c->pfc.queues);
	for (int i = 0; i < MAX_PFC_QUEUES; i++)
		pd_put(&r->w, "%s%u", i ? "," : "", c->pfc.map[i]);
	pd_put(&r->w, "]}");
}

/* What remains of the object: left-over bytes, units, the header itself. */
static void pd_json_rest(struct pd_render *r)
{
	const char *name, *between = "";
	size_t at = 0, n;

	pd_put(&r->w, ",\"other_bytes\":[");
	while ((n = pd_next_left(r, &at, &name))) {
		pd_put(&r->w, "%s{\"offset\":%zu,\"field\":\"%s\",\"hex\":\"", between, at, name);
		pd_put_hex(&r->w, r->s->bytes + at, n, "");
		pd_put(&r->w, "\"}");
		between = ",";
		at += n;
	}
	pd_put(&r->w, "],\"units\":{");
	for (int i = 0; i < PD_UNIT_COUNT; i++)
		pd_put(&r->w, "%s\"%s\":\"%s\"", i ? "," : "", pd_unit_table[i].name,
		       pd_unit(r, (enum pd_unit_of)i));
	pd_put(&r->w, "},\"raw\":\"");
	pd_put_hex(&r->w, r->s->bytes, PD_SIDECAR_BYTES, "");
	pd_put(&r->w, "\"}");
}

/* One object on one line. */
static void pd_render_json(struct pd_render *r)
{
	pd_put(&r->w, "{\"mrg_num_buffers\":%u,\"generic_flags\":%u,\"only_ctrl_pkt\":%s",
	       r->md->mrg_num_buffers, r->md->generic_flags,
	       pd_sidecar_is_control(r->s) ? "true" : "false");
	pd_json_flags(r);
	pd_put(&r->w, ",\"layout\":\"%s\"", pd_layout_names[pd_layout_of(r->flags)]);
	pd_json_control(r);
	pd_json_packet(r);
	pd_json_config(r);
	pd_json_rest(r);
}

int pd_sidecar_render(const struct pd_sidecar *s, enum pd_render_format format,
		      const struct pd_units *units, char *out, size_t size)
{
	static const struct pd_units defaults;
	struct pd_render r = {
		.w = {out, size, 0},
		.s = s,
		.md = &s->avip,
		.units = units ? units : &defaults,
		.flags = s->avip.pd.metadata_type,
	};

	pd_tell_all(&r);
	switch (format) {
	case PD_RENDER_TEXT:
		pd_render_text(&r);
		break;
	case PD_RENDER_JSON:
		pd_render_json(&r);
		break;
	default:
		return -EINVAL;
	}
	return (int)r.w.len;
}
