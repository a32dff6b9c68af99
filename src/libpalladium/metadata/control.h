/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Control messages: sidecars that stand alone.
 *
 * Building starts from zeroes and sets the control-only bit, so a built message holds what was
 * asked and nothing else. Which messages are sent when is the caller's affair. Values go onto the
 * wire as given: the units are a matter of the two ends (render.h names them).
 */
#ifndef PD_METADATA_CONTROL_H
#define PD_METADATA_CONTROL_H

#include <stdint.h>
#include "metadata/sidecar.h"

#define PD_PORT_NAME_BYTES 16

/* A message with these flags and no fields: PORT_PAUSED, PORT_DISABLED, PORT_REMOVED,
 * CLEARED_STATS, ... */
void pd_control_build_event(struct pd_sidecar *s, uint64_t flags);

/* PORT_ID: which port of which card the tester plays, and its number of queues. Ixia -> Palladium.
 */
void pd_control_build_port_id(struct pd_sidecar *s, uint32_t chassis_ip, uint16_t card,
			      uint16_t port, uint8_t queues);

/* LINE_SPEED, in Mbit/s unless the ends agree otherwise. Palladium -> Ixia. */
void pd_control_build_line_speed(struct pd_sidecar *s, uint32_t speed);

/*
 * PORT_NAME and the number of queues. Palladium -> Ixia. A name of 16 bytes goes without its NUL.
 * Returns 0, or -ENAMETOOLONG and leaves `s` alone.
 */
int pd_control_build_port_name(struct pd_sidecar *s, const char *name, uint8_t queues);

/* TX_DURATION: time of the first and the last frame sent. Palladium -> Ixia. */
void pd_control_build_tx_duration(struct pd_sidecar *s, uint64_t first, uint64_t last);

/* ET alone: the emulator's clock. Palladium -> Ixia. */
void pd_control_build_time(struct pd_sidecar *s, uint64_t emulator_time);

/* NEW_CONFIG: flow control, the mask of mapped queues and their maps. Ixia -> Palladium. */
void pd_control_build_new_config(struct pd_sidecar *s, uint8_t flow_control_mode, uint8_t queues,
				 const uint8_t map[MAX_PFC_QUEUES]);

/*
 * A control message taken apart: the fields whose flag is set, the others zero; queues as it came.
 */
struct pd_control {
	uint64_t flags; /* metadata_type, unknown bits included */
	struct {
		uint32_t chassis_ip;
		uint16_t card, port;
	} port_id;
	uint32_t line_speed;
	char port_name[PD_PORT_NAME_BYTES + 1]; /* NUL-terminated, not made printable */
	uint64_t tx_first_ts, tx_last_ts;
	uint64_t emulator_time;
	uint8_t queues; /* no flag of its own; usual beside PORT_ID and PORT_NAME */
	uint8_t flow_control_mode, pfc_queues, pfc_map[MAX_PFC_QUEUES];
};

/* Take a message apart. Returns 0, or -ENOMSG when the sidecar belongs to a frame and `out` is
 * untouched. */
int pd_control_parse(const struct pd_sidecar *s, struct pd_control *out);

#endif /* PD_METADATA_CONTROL_H */
