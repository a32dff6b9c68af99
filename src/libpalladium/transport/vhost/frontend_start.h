/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The messages by which a front-end starts a connection.
 *
 * pd_control is held by the caller of everything here, and no lane lock.
 */
#ifndef PD_TRANSPORT_VHOST_FRONTEND_START_H
#define PD_TRANSPORT_VHOST_FRONTEND_START_H

#include "transport/vhost/frontend.h"

/* A new connection: nothing was said on it. */
void pd_vhost_frontend_start_begin(struct pd_vhost_frontend *fe);

/*
 * Send rows until an answer is due, the socket is full, or all are sent. Returns NULL or why the
 * connection must end.
 */
const char *pd_vhost_frontend_start_go(struct pd_vhost_frontend *fe);

/*
 * An answer to what was sent, with its descriptors, which stay the message's unless taken. Returns
 * as above.
 */
const char *pd_vhost_frontend_start_answer(struct pd_vhost_frontend *fe, struct pd_vhost_msg *msg);

#endif /* PD_TRANSPORT_VHOST_FRONTEND_START_H */
