/* SPDX-License-Identifier: BSD-2-Clause */
/* What the worker does with one lane, and how it sleeps. */
#ifndef VLM_IO_H
#define VLM_IO_H

#include "run.h"

/* Send what may be sent on queue `q` of a port. Returns whether anything went out. */
bool vlm_lane_send(struct vlm *v, struct vlm_port *vp, unsigned q, uint64_t now);

/* Take in and check what is there. Returns whether anything was. */
bool vlm_lane_receive(struct vlm *v, struct vlm_port *vp, unsigned q);

/* Frames in the transmit ring that the peer has not taken. */
uint32_t vlm_not_taken(const struct vlm *v, struct vlm_lane *vl);

/*
 * Sleep until a lane has something to receive, a lane that was blocked has room, a link changes, a
 * signal comes or it is `until_ns`.
 */
void vlm_sleep(struct vlm *v, uint64_t until_ns);

#endif /* VLM_IO_H */
