/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end's end of the channel on which it makes requests of its own (SET_BACKEND_REQ_FD).
 *
 * Nothing but notifications is asked for an answer: a request that the front-end can fulfil shows
 * by what comes on the connection. pd_control is held by the caller of everything here, and no lane
 * lock.
 */
#ifndef PD_TRANSPORT_VHOST_BACKEND_CHANNEL_H
#define PD_TRANSPORT_VHOST_BACKEND_CHANNEL_H

#include "transport/vhost/backend.h"

/* No channel yet. Once, before everything else. */
void pd_vhost_backend_channel_init(struct pd_vhost_backend *be);

/*
 * Take the socket that came with `msg` in place of the one that is there. Returns NULL or a
 * refusal.
 */
const char *pd_vhost_backend_channel_open(struct pd_vhost_backend *be, struct pd_vhost_msg *msg);

/* Close the channel, if there is one. */
void pd_vhost_backend_channel_close(struct pd_vhost_backend *be);

/* Send an IOTLB message. Returns NULL or why the connection must end. */
const char *pd_vhost_backend_channel_iotlb(struct pd_vhost_backend *be, uint8_t type, uint64_t iova,
					   uint8_t perm);

/*
 * Whether a reason given by pd_vhost_backend_channel_iotlb is that the peer has closed the channel:
 * who leaves, or is killed, may close it before the connection, so this is no fault of its.
 */
bool pd_vhost_backend_channel_closed_by_peer(const char *reason);

/*
 * Say that ring `i` is broken, as the connection is about to end: by the eventfd that the peer gave
 * for it (SET_VRING_ERR), which goes before the message that there is where notifications are
 * messages.
 */
void pd_vhost_backend_channel_error(struct pd_vhost_backend *be, unsigned i);

#endif /* PD_TRANSPORT_VHOST_BACKEND_CHANNEL_H */
