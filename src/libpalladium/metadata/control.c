/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Control messages: building and taking apart.
 */
#include <errno.h>
#include <string.h>

#include "metadata/control.h"

void pd_control_build_event(struct pd_sidecar *s, uint64_t flags)
{
	memset(s, 0, sizeof(*s));
	s->avip.generic_flags = IXVERIFY_ONLY_CTRL_PKT;
	s->avip.pd_control.metadata_type = flags;
}

void pd_control_build_port_id(struct pd_sidecar *s, uint32_t chassis_ip, uint16_t card,
			      uint16_t port, uint8_t queues)
{
	pd_control_build_event(s, PALLADIUM_PORT_ID);
	s->avip.pd_control.port_id.chassis_ip = chassis_ip;
	s->avip.pd_control.port_id.card_number = card;
	s->avip.pd_control.port_id.port_number = port;
	s->avip.pd_control.ixia_queues = queues;
}

void pd_control_build_line_speed(struct pd_sidecar *s, uint32_t speed)
{
	pd_control_build_event(s, PALLADIUM_LINE_SPEED);
	s->avip.pd_control.line_speed = speed;
}

int pd_control_build_port_name(struct pd_sidecar *s, const char *name, uint8_t queues)
{
	size_t n = strlen(name);

	if (n > PD_PORT_NAME_BYTES)
		return -ENAMETOOLONG;
	pd_control_build_event(s, PALLADIUM_PORT_NAME);
	memcpy(s->bytes + PD_SIDECAR_AT(pd_control.port_name), name, n);
	s->avip.pd_control.xtor_queues = queues;
	return 0;
}

void pd_control_build_tx_duration(struct pd_sidecar *s, uint64_t first, uint64_t last)
{
	pd_control_build_event(s, PALLADIUM_TX_DURATION);
	s->avip.pd_control.tx_ts.tx_first_ts = first;
	s->avip.pd_control.tx_ts.tx_last_ts = last;
}

void pd_control_build_time(struct pd_sidecar *s, uint64_t emulator_time)
{
	pd_control_build_event(s, PALLADIUM_ET);
	s->avip.pd.emulator_time = emulator_time;
}

void pd_control_build_new_config(struct pd_sidecar *s, uint8_t flow_control_mode, uint8_t queues,
				 const uint8_t map[MAX_PFC_QUEUES])
{
	pd_control_build_event(s, PALLADIUM_NEW_CONFIG);
	s->avip.pd_config.flow_control_mode = flow_control_mode;
	s->avip.pd_config.pfc.queues = queues;
	memcpy(s->bytes + PD_SIDECAR_AT(pd_config.pfc.map), map, MAX_PFC_QUEUES);
}

int pd_control_parse(const struct pd_sidecar *s, struct pd_control *out)
{
	const struct avip_mdata_t *md = &s->avip;
	uint64_t flags = md->pd_control.metadata_type;

	if (!pd_sidecar_is_control(s))
		return -ENOMSG;
	memset(out, 0, sizeof(*out));
	out->flags = flags;
	if (flags & PALLADIUM_PORT_ID) {
		out->port_id.chassis_ip = md->pd_control.port_id.chassis_ip;
		out->port_id.card = md->pd_control.port_id.card_number;
		out->port_id.port = md->pd_control.port_id.port_number;
	}
	if (flags & PALLADIUM_LINE_SPEED)
		out->line_speed = md->pd_control.line_speed;
	if (flags & PALLADIUM_PORT_NAME)
		memcpy(out->port_name, md->pd_control.port_name, PD_PORT_NAME_BYTES);
	if (flags & PALLADIUM_TX_DURATION) {
		out->tx_first_ts = md->pd_control.tx_ts.tx_first_ts;
		out->tx_last_ts = md->pd_control.tx_ts.tx_last_ts;
	}
	if (flags & PALLADIUM_ET)
		out->emulator_time = md->pd.emulator_time;
	out->queues = md->pd_control.xtor_queues;
	if (flags & PALLADIUM_NEW_CONFIG) {
		out->flow_control_mode = md->pd_config.flow_control_mode;
		out->pfc_queues = md->pd_config.pfc.queues;
		memcpy(out->pfc_map, md->pd_config.pfc.map, MAX_PFC_QUEUES);
	}
	return 0;
}
