/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end's end of the channel on which a back-end makes requests of its own.
 *
 * pd_control is held by the caller of everything here, and no lane lock.
 */
#ifndef PD_TRANSPORT_VHOST_FRONTEND_CHANNEL_H
#define PD_TRANSPORT_VHOST_FRONTEND_CHANNEL_H

#include "transport/vhost/frontend.h"

/* No channel yet. Once, before everything else. */
void pd_vhost_frontend_channel_init(struct pd_vhost_frontend *fe);

/* Make the channel; fe->channel_fd is the end to send to the peer. Returns 0 or -errno. */
int pd_vhost_frontend_channel_open(struct pd_vhost_frontend *fe);

/* The peer has its end: ours of it is closed. */
void pd_vhost_frontend_channel_sent(struct pd_vhost_frontend *fe);

/* Close the channel, if there is one, with the end that was not sent. */
void pd_vhost_frontend_channel_close(struct pd_vhost_frontend *fe);

#endif /* PD_TRANSPORT_VHOST_FRONTEND_CHANNEL_H */
