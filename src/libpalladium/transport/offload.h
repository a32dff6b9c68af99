/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Unfinished frames between the rings and the sockets: checksums left open, TCP segments larger
 * than the network takes.
 *
 * With dialect=virtio the two ends of a ring may agree (offloads= of the port) that frames go over
 * it unfinished, with a struct virtio_net_hdr that says what is missing (net/vnet.h). In a buffer
 * that header is `vnet`, of use with PD_BUFFER_VNET.
 *
 * Receive. What a ring shows passes through pd_offload_show. If every socket of the port takes
 * headers (port->rx_vnet), frames stay as they are. Else they are finished here, before anybody
 * sees them: a frame with an open checksum is copied and completed; a large one, when it stands
 * first, is copied and its segments are shown instead, none longer than the port's MTU allows. It
 * leaves the ring with its last segment; until then `done` counts, and the copy is good for every
 * further look. So whatever is behind a lane's rx knows nothing of this, and the peer's memory is
 * read once.
 *
 * Transmit. pd_offload_send takes frames with headers for a lane of any kind. What the lane `takes`
 * goes as it is. The rest is copied and finished, segments in one piece with tx_all: all of a large
 * frame goes, or none.
 *
 * A frame whose header cannot be right is dropped and counted as malformed (receive) or refused
 * before it gets here (send).
 *
 * The lane's side has one struct pd_offload, used under the lock of the side.
 */
#ifndef PD_TRANSPORT_OFFLOAD_H
#define PD_TRANSPORT_OFFLOAD_H

#include "net/vnet.h"
#include "transport/transport.h"

struct pd_offload;

/* Make one. Control path. Returns it, or NULL with *err set to -errno. */
struct pd_offload *pd_offload_new(int *err);

/* Free it; NULL is allowed. */
void pd_offload_free(struct pd_offload *o);

/* The ring is another one: nothing of a frame at its head is remembered. NULL is allowed. */
void pd_offload_reset(struct pd_offload *o);

/*
 * What is left of a chain's frame to be done, as pd_vnet_read; the header in `b` is made good.
 * Clears PD_BUFFER_VNET where nothing is.
 */
int pd_offload_read(struct pd_buffer *b, struct pd_vnet_cut *cut);

/*
 * The ring of `lane` has shown bufs[0..got), got > 0. Puts there what is to be shown instead, up to
 * `n` (at least got). Returns how many, or 0 when the first frame is malformed: it is to be
 * consumed and counted, and the ring looked at again.
 */
unsigned pd_offload_show(struct pd_offload *o, const struct pd_lane *lane, struct pd_buffer **bufs,
			 unsigned got, unsigned n);

/*
 * The first `n` frames that the last show showed are consumed: how many of the ring's are. Counts
 * them at the lane.
 */
unsigned pd_offload_done(struct pd_offload *o, struct pd_lane *lane, unsigned n);

/* How many frames of the ring are wanted for a look that may show `n`. */
unsigned pd_offload_want(const struct pd_offload *o, unsigned n);

/*
 * As lane->ops->tx, for frames that may have headers, which pd_offload_read has seen. Transmit lock
 * held. -EMSGSIZE also for a large frame of more than PD_LANE_ALL_MAX segments, or more than the
 * ring can hold.
 */
int pd_offload_send(struct pd_offload *o, struct pd_lane *lane, struct pd_buffer *const *bufs,
		    unsigned n);

#endif /* PD_TRANSPORT_OFFLOAD_H */
