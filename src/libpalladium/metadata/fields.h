/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Setting the fields of a sidecar by name, as people write them.
 *
 * A field that a flag of metadata_type stands for sets that flag with it. Numbers are decimal, or
 * hexadecimal behind 0x; they are the values of the wire, in whatever unit the peer has agreed to.
 */
#ifndef PD_METADATA_FIELDS_H
#define PD_METADATA_FIELDS_H

#include "metadata/sidecar.h"

/*
 * Set field `name` to `value`: a field of palladium_extra.h's packet or control structure
 * (ifg, emulator_time, latency, pfc_priority, tcp_udp_checksum_offset, preamble, fcs, line_speed,
 * port_name, chassis_ip, card_number, port_number, tx_first_ts, tx_last_ts, generic_flags,
 * metadata_type), or "flag" with the name of one of metadata_type. Returns 0, -ENOENT when there is
 * no such field, or -EINVAL when it cannot have this value. Control path.
 */
int pd_sidecar_set(struct pd_sidecar *s, const char *name, const char *value);

#endif /* PD_METADATA_FIELDS_H */
