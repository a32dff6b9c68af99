/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Throwing away what arrives on a disabled ring. See sink.h.
 *
 * Heads are checked, as everywhere; where bytes stand is not looked at. A ring that the
 * peer broke is left alone: it moves nothing, and fails again, with a name, when it is enabled.
 */
#include "transport/vhost/sink.h"

#include <stdlib.h>
#include <sys/epoll.h>

#include "transport/vhost/eventfd.h"
#include "virtio/device.h"
#include "virtio/inflight.h"

/*
 * Chains that are thrown away at once, and how often before the next kick: fewer times where the
 * chains are long ones of a packed ring, as other ports wait meanwhile.
 */
#define CHAINS 32u
#define TURNS 256
#define ENTRIES 65536

/*
 * Consume what is there, within limits, and ask for the next kick. Gives itself one when the limit
 * was reached. A ring that is broken is left alone.
 */
static void sink_drain(struct pd_vhost_sink *sink)
{
	struct pd_vq *vq = &sink->vq;
	const uint32_t start = vq->cursor;

	for (unsigned turn = 0; turn < TURNS && vq->cursor - start < ENTRIES; turn++) {
		bool notify;
		int n = pd_device_discard(vq, CHAINS, &notify);

		if (n < 0) {
			if (sink->kick.active)
				pd_progress_mod(&sink->kick, 0);
			return;
		}
		sink->discarded += (unsigned)n;
		if (notify && sink->call_fd >= 0)
			pd_vhost_eventfd_signal(sink->call_fd);
		if (!n && !pd_device_arm(vq, vq->packed, vq->cursor) && !vq->broken)
			return;
	}
	pd_vhost_eventfd_signal(sink->kick.fd);
}

/* The peer kicks. */
static void sink_kick(struct pd_progress_fd *kick, uint32_t revents)
{
	struct pd_vhost_sink *sink = pd_container_of(kick, struct pd_vhost_sink, kick);

	if (!pd_vhost_eventfd_drain_kick(kick->fd, &sink->ones) &&
	    pd_vhost_eventfd_counts_down(kick->fd)) {
		sink->accused = PD_VHOST_COUNTS_DOWN;
		pd_progress_mod(kick, 0);
		if (sink->broken)
			pd_progress_post(sink->broken);
		return;
	}
	sink_drain(sink);
}

struct pd_vhost_sink *pd_vhost_sink_start(const struct pd_vq_layout *layout,
					  const struct pd_mem_table *mem, int kick_fd, int call_fd,
					  struct pd_progress_work *broken)
{
	struct pd_vhost_sink *sink = calloc(1, sizeof(*sink));

	if (!sink)
		return NULL;
	sink->call_fd = call_fd;
	sink->broken = broken;
	sink->kick.fd = kick_fd;
	sink->kick.fn = sink_kick;
	sink->kick.events = EPOLLIN;
	if (pd_vq_init_device(&sink->vq, layout, mem)) {
		pd_inflight_free(layout->inflight);
		goto err_free;
	}
	if (kick_fd >= 0 && pd_progress_add(&sink->kick))
		goto err_vq;
	sink_drain(sink); /* what was there before any kick */
	return sink;

err_vq:
	pd_vq_fini(&sink->vq);
err_free:
	free(sink);
	return NULL;
}

uint32_t pd_vhost_sink_stop(struct pd_vhost_sink *sink)
{
	uint32_t base = pd_vq_base(&sink->vq);

	if (sink->kick.fd >= 0)
		pd_progress_del(&sink->kick);
	pd_vq_fini(&sink->vq);
	free(sink);
	return base;
}
