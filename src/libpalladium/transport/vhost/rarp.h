/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SEND_RARP: a guest has come from another host, and its driver does not say so itself.
 */
#ifndef PD_TRANSPORT_VHOST_RARP_H
#define PD_TRANSPORT_VHOST_RARP_H

#include "transport/vhost/role.h"

/*
 * Let the port receive the frame by which the station `mac` (six bytes) would announce itself.
 * pd_control held, no lane lock. Returns NULL, or why not.
 */
const char *pd_vhost_rarp(struct pd_vhost_role_base *role, const uint8_t *mac);

#endif /* PD_TRANSPORT_VHOST_RARP_H */
