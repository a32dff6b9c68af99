/* SPDX-License-Identifier: BSD-2-Clause */
/* Setting the fields of a sidecar by name (contract in fields.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "metadata/fields.h"

/* The fields that are numbers. */
#define PD_FIELD(name, member, flag)                                                          \
	{                                                                                     \
		name, PD_SIDECAR_AT(member), sizeof(((struct avip_mdata_t *)0)->member), flag \
	}
static const struct {
	const char *name;
	uint8_t at, bytes;
	uint64_t flag;
} pd_fields[] = {
	PD_FIELD("generic_flags", generic_flags, 0),
	PD_FIELD("metadata_type", pd.metadata_type, 0),
	PD_FIELD("ifg", pd.ifg, PALLADIUM_IFG),
	PD_FIELD("emulator_time", pd.emulator_time, PALLADIUM_ET),
	PD_FIELD("latency", pd.latency, PALLADIUM_LATENCY),
	PD_FIELD("pfc_priority", pd.pfc_priority, 0),
	PD_FIELD("tcp_udp_checksum_offset", pd.tcp_udp_checksum_offset, 0),
	PD_FIELD("fcs", pd.fcs, PALLADIUM_FCS),
	PD_FIELD("line_speed", pd_control.line_speed, PALLADIUM_LINE_SPEED),
	PD_FIELD("chassis_ip", pd_control.port_id.chassis_ip, PALLADIUM_PORT_ID),
	PD_FIELD("card_number", pd_control.port_id.card_number, PALLADIUM_PORT_ID),
	PD_FIELD("port_number", pd_control.port_id.port_number, PALLADIUM_PORT_ID),
	PD_FIELD("tx_first_ts", pd_control.tx_ts.tx_first_ts, PALLADIUM_TX_DURATION),
	PD_FIELD("tx_last_ts", pd_control.tx_ts.tx_last_ts, PALLADIUM_TX_DURATION),
};

/* Set flags of metadata_type, besides those that are. */
static void pd_sidecar_add_flags(struct pd_sidecar *s, uint64_t flags)
{
	uint64_t type;

	memcpy(&type, s->bytes + PD_SIDECAR_AT(pd.metadata_type), sizeof(type));
	type |= flags;
	memcpy(s->bytes + PD_SIDECAR_AT(pd.metadata_type), &type, sizeof(type));
}

/* Set the `bytes` octets at `at`, little-endian, to the number that `value` is. */
static int pd_sidecar_set_number(struct pd_sidecar *s, size_t at, size_t bytes, const char *value)
{
	bool hex = value[0] == '0' && (value[1] == 'x' || value[1] == 'X');
	unsigned long long n;
	char *end;

	if (value[hex ? 2 : 0] < '0' || strspn(value, "0123456789abcdefABCDEFxX") != strlen(value))
		return -EINVAL;
	errno = 0;
	n = strtoull(value, &end, hex ? 16 : 10);
	if (errno || *end || (bytes < sizeof(n) && n >> 8 * bytes))
		return -EINVAL;
	memcpy(s->bytes + at, &n, bytes);
	return 0;
}

/* The preamble: pairs of hexadecimal digits, up to 8. */
static int pd_sidecar_set_preamble(struct pd_sidecar *s, const char *value)
{
	uint8_t octets[8] = {0};
	size_t digits = strlen(value);

	if (!digits || digits % 2 || digits / 2 > sizeof(octets) ||
	    strspn(value, "0123456789abcdefABCDEF") != digits)
		return -EINVAL;
	for (size_t i = 0; i < digits / 2; i++)
		octets[i] = (uint8_t)strtoul((char[]){value[2 * i], value[2 * i + 1], 0}, NULL, 16);
	memcpy(s->bytes + PD_SIDECAR_AT(pd.preamble), octets, sizeof(octets));
	s->bytes[PD_SIDECAR_AT(pd.preamble_size)] = (uint8_t)(digits / 2);
	pd_sidecar_add_flags(s, PALLADIUM_PREAMBLE);
	return 0;
}

/* The name of a port; one of 16 bytes has no NUL behind it. */
static int pd_sidecar_set_port_name(struct pd_sidecar *s, const char *value)
{
	size_t room = sizeof(s->avip.pd_control.port_name), n = strlen(value);

	if (!n || n > room)
		return -EINVAL;
	memset(s->bytes + PD_SIDECAR_AT(pd_control.port_name), 0, room);
	memcpy(s->bytes + PD_SIDECAR_AT(pd_control.port_name), value, n);
	pd_sidecar_add_flags(s, PALLADIUM_PORT_NAME);
	return 0;
}

int pd_sidecar_set(struct pd_sidecar *s, const char *name, const char *value)
{
	uint64_t flag;
	int ret;

	if (!strcmp(name, "preamble"))
		return pd_sidecar_set_preamble(s, value);
	if (!strcmp(name, "port_name"))
		return pd_sidecar_set_port_name(s, value);
	if (!strcmp(name, "flag")) {
		flag = pd_sidecar_flag_parse(value);
		pd_sidecar_add_flags(s, flag);
		return flag ? 0 : -EINVAL;
	}
	for (size_t i = 0; i < PD_ARRAY_SIZE(pd_fields); i++) {
		if (strcmp(name, pd_fields[i].name))
			continue;
		ret = pd_sidecar_set_number(s, pd_fields[i].at, pd_fields[i].bytes, value);
		if (!ret)
			pd_sidecar_add_flags(s, pd_fields[i].flag);
		return ret;
	}
	return -ENOENT;
}
