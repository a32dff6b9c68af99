/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lanes of the vhost transport: two virtqueues, their notifications, and the lane operations over
 * them.
 *
 * The control side (connection and roles) makes a lane once per queue pair, gives it to
 * pd_port_lane_init with pd_vhost_lane_ops, and then moves each side up and down as the peer says.
 * Which ring is which: PD_RX is the ring that frames come from (the guest's transmit queue for a
 * back-end, its receive queue for a front-end), PD_TX the other.
 *
 * Locking: every pd_vhost_lane_* function below is control path and is called with pd_control and,
 * unless it says otherwise, the lock of the side (lane.side[dir].lock) held. A memory table is
 * borrowed as long as a side is up on it. To swap it, call pd_vhost_lane_remap for each side that
 * is up, one lock at a time, and unmap the old memory when none is left on it.
 *
 * A peer that breaks a ring makes the lane post `broken`; its function runs in the progress thread
 * with pd_control held and finds the reason with pd_vhost_lane_broken.
 */
#ifndef PD_TRANSPORT_VHOST_LANE_H
#define PD_TRANSPORT_VHOST_LANE_H

#include "transport/offload.h"
#include "virtio/vq.h"
#include "vlib/lane.h"
#include "vlib/progress.h"

enum pd_vhost_role { PD_VHOST_DEVICE, PD_VHOST_DRIVER, PD_VHOST_ROLES };
enum pd_vhost_dialect { PD_VHOST_AVIP, PD_VHOST_VIRTIO, PD_VHOST_DIALECTS };

/* Buffer headers of a lane: a burst of frames in one piece and some in several. */
#define PD_VHOST_LANE_HEADERS 512

struct pd_vhost_lane {
	struct pd_lane lane;
	struct pd_vq vq[PD_DIRS];
	struct pd_offload
		*offload;       /* of the receive side; NULL where nothing may come unfinished */
	int signal_fd[PD_DIRS]; /* eventfd that tells the peer; -1: it polls. Borrowed. */
	enum pd_vhost_role role;
	enum pd_vhost_dialect dialect;
	uint32_t rings[PD_DIRS]; /* odd while a thread rings the peer */
	uint32_t ones[PD_DIRS];  /* of its notifications: see pd_vhost_eventfd_drain_kick */
	struct pd_progress_work *broken;
	const char *accused[PD_DIRS];                     /* see pd_vhost_lane_accuse */
	bool reported[PD_DIRS];                           /* the break of this ring was posted */
	bool doubted[PD_DIRS];                            /* see pd_vhost_lane_judge */
	struct pd_buffer_pool *pool;                      /* headers of external buffers */
	struct pd_buffer *headers[PD_VHOST_LANE_HEADERS]; /* all of them, ours for good */
	struct pd_vq_counts told[PD_DIRS];                /* counts as last published */
};

/* The operations for a role and a dialect on split or packed rings. A lane is made with those for
 * split ones; pd_vhost_lane_up puts in those for the rings that were agreed. */
const struct pd_lane_ops *pd_vhost_lane_ops(enum pd_vhost_role role, enum pd_vhost_dialect dialect,
					    bool packed);

/*
 * Set up our part of a lane, in zeroed memory: allocates its buffer headers. No lock. `broken` is
 * borrowed for the lane's life. The generic part (lane->lane) is pd_port_lane_init's. Returns 0,
 * -ENOMEM or -ENOSPC.
 */
int pd_vhost_lane_init(struct pd_vhost_lane *lane, enum pd_vhost_role role,
		       enum pd_vhost_dialect dialect, struct pd_progress_work *broken);

/* Undo it. Both sides are down. No lock. */
void pd_vhost_lane_fini(struct pd_vhost_lane *lane);

/*
 * Bring one side up on a ring. `mem`: the device role's table; NULL for the driver role.
 * `notify_fd`: the eventfd that the peer rings (kick for a device, call for a driver),
 * non-blocking, or -1; `signal_fd`: the eventfd that rings the peer, non-blocking, or -1. Both stay
 * the caller's, to be closed after pd_vhost_lane_down or _set_*. `resume`, driver role: the side
 * was up before on this very ring and the peer has come back (pd_vhost_lane_resume_base told it
 * where to begin). Rings the peer once, as it may have missed something. Returns 0, or -EINVAL,
 * -ENOMEM (the side stays down).
 */
int pd_vhost_lane_up(struct pd_vhost_lane *lane, enum pd_dir dir, const struct pd_vq_layout *layout,
		     const struct pd_mem_table *mem, int notify_fd, int signal_fd, bool resume);

/*
 * Take one side down; harmless when it is. Returns the value for GET_VRING_BASE (0 for a side that
 * never was up).
 */
uint32_t pd_vhost_lane_down(struct pd_vhost_lane *lane, enum pd_dir dir);

/*
 * In a forked child: the rings and what is noted of them in flight are the parent's. As
 * pd_lane_abandon; nothing is written, and no peer is told.
 */
void pd_vhost_lane_abandon(struct pd_vhost_lane *lane);

/*
 * Driver role, side down, the peer is gone: take what it had used, looking at the ring for the last
 * time. Returns 0, or -ENETDOWN when the side must start anew (_up with resume false).
 */
int pd_vhost_lane_settle(struct pd_vhost_lane *lane, enum pd_dir dir);

/*
 * Driver role, settled: copy what its buffers hold that is still needed to `to`, where its first
 * one's copy would begin.
 */
void pd_vhost_lane_save(struct pd_vhost_lane *lane, enum pd_dir dir, uint8_t *to);

/*
 * Driver role, settled: make ready to carry on with a new peer at the same addresses, whatever
 * memory is there now, if it has what was saved. Returns as pd_vhost_lane_settle, with the value
 * for SET_VRING_BASE.
 */
int pd_vhost_lane_resume_base(struct pd_vhost_lane *lane, enum pd_dir dir, uint32_t *base);

/* The memory table changed under a side that is up: the same ring at new places. 0 or -EINVAL. */
int pd_vhost_lane_remap(struct pd_vhost_lane *lane, enum pd_dir dir,
			const struct pd_vq_layout *layout, const struct pd_mem_table *mem);

/*
 * Device role, side up on a ring whose addresses are translated: buffers are to be found in
 * `buffers` and indirect tables in `tables` from now on. What waited for a translation is tried
 * again.
 */
void pd_vhost_lane_retranslate(struct pd_vhost_lane *lane, enum pd_dir dir,
			       const struct pd_mem_table *buffers,
			       const struct pd_mem_table *tables);

/* Another eventfd to ring the peer; rings it once. Harmless when the side is down. */
void pd_vhost_lane_set_signal(struct pd_vhost_lane *lane, enum pd_dir dir, int signal_fd);

/* Another eventfd that the peer rings; wakes every sleeper. Harmless when the side is down. */
void pd_vhost_lane_set_notify(struct pd_vhost_lane *lane, enum pd_dir dir, int notify_fd);

/*
 * Let a thread go that the peer holds up by a full notification; true when there was one. No lock.
 * To be called now and then while the side is up, by the progress thread.
 */
bool pd_vhost_lane_free(struct pd_vhost_lane *lane, enum pd_dir dir);

/* Take the lock of a side; unlike pd_lock, also when its holder is held up as above. */
void pd_vhost_lane_lock(struct pd_vhost_lane *lane, enum pd_dir dir);

/* Give it back. */
static inline void pd_vhost_lane_unlock(struct pd_vhost_lane *lane, enum pd_dir dir)
{
	pd_unlock(&lane->lane.side[dir].lock);
}

/*
 * The peer did wrong by this side, for a reason (a constant) other than the ring itself, whose
 * contents stay good: report it as a broken one. Takes the lock.
 */
void pd_vhost_lane_accuse(struct pd_vhost_lane *lane, enum pd_dir dir, const char *why);

/* Why the ring of a side is broken, or its peer accused, or NULL. */
static inline const char *pd_vhost_lane_broken(const struct pd_vhost_lane *lane, enum pd_dir dir)
{
	return lane->vq[dir].broken ? lane->vq[dir].broken : lane->accused[dir];
}

/*
 * The same of a side that is up, with what was doubted of it looked into: whether its notification
 * is one that never gets empty.
 */
const char *pd_vhost_lane_judge(struct pd_vhost_lane *lane, enum pd_dir dir);

#endif /* PD_TRANSPORT_VHOST_LANE_H */
