/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A transmit ring of the peer's that is started but disabled: what it sends is consumed and thrown
 * away (specification, "Ring states").
 *
 * The lane's side is down meanwhile, so the ring belongs to the progress thread, which is woken by
 * the kicks. Everything runs under pd_control.
 */
#ifndef PD_TRANSPORT_VHOST_SINK_H
#define PD_TRANSPORT_VHOST_SINK_H

#include "virtio/vq.h"
#include "vlib/progress.h"

struct pd_vhost_sink {
	struct pd_vq vq;
	struct pd_progress_fd kick;
	int call_fd; /* borrowed; -1: none */
	uint64_t discarded;
	uint32_t ones;       /* see pd_vhost_eventfd_drain_kick */
	const char *accused; /* why its peer has to go, a constant; NULL */
	struct pd_progress_work *broken;
};

/*
 * Begin on a ring. `kick_fd` and `call_fd` are borrowed until the end, and so is `broken`, which is
 * posted when the peer is accused; NULL: nobody is told. Returns it or NULL; layout->inflight is
 * taken in either case.
 */
struct pd_vhost_sink *pd_vhost_sink_start(const struct pd_vq_layout *layout,
					  const struct pd_mem_table *mem, int kick_fd, int call_fd,
					  struct pd_progress_work *broken);

/* End, and free. Returns the value for GET_VRING_BASE. */
uint32_t pd_vhost_sink_stop(struct pd_vhost_sink *sink);

#endif /* PD_TRANSPORT_VHOST_SINK_H */
