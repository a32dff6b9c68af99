/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lanes: one port x one queue pair, the unit of execution.
 *
 * A lane has two sides, receive and transmit. Each has a lock that a thread takes once per call,
 * for a whole batch; holding it, the thread owns the ring, its cursor and its counters. A program
 * that sends in one thread and receives in another never contends.
 *
 * Positions. Each side counts, without end and modulo 2^32, what the peer has made available:
 * frames on the receive side, room (descriptor chains to fill) on the transmit side. `cursor`
 * counts what we have consumed. The side is ready when position differs from cursor.
 *
 * Sleeping (the protocol of tests/model/waiting.pml). A thread that wants to sleep holds the side's
 * lock, asks `arm` to be notified when the position leaves the one it has seen, checks again, links
 * its waiter into `waiters`, lets the lock go, and polls {event_fd, its own wake_fd}. A peer's
 * notification makes event_fd readable for every sleeper. Who wakes takes the lock, unlinks itself
 * and, if event_fd was readable, drains it and must then ring the others: every waiter still linked
 * whose `seen` differs from the position now gets a write to its wake_fd, with `seen` set, so that
 * each is told of each position once; and the side is armed again for those that stay. A thread
 * that merely consumes neither drains nor disarms while anybody is linked, so it owes the sleepers
 * nothing.
 *
 * There is one armed position per side and arming replaces it, so whoever arms while others sleep
 * tells them first of what they have not seen: the peer may have published and not yet looked.
 *
 * `seen` is the position that the sleeper based its decision on, never one read later: who found
 * the side not ready sleeps from `cursor`; who was refused by tx sleeps from the position it read
 * before tx; who wants news only sleeps from the position it last reported.
 *
 * Who sleeps alone and knows all there is may arm for more than one position at once, when traffic
 * flows (vlib/moderation.h). It then sleeps no longer than until w->until_ns: what came by then is
 * there although nobody told. A second sleeper ends that by arming for the next position.
 *
 * A side that is up without event_fd has a peer that does not notify: who sleeps on it looks by
 * itself every millisecond.
 *
 * A change of the link (up, down, a new event_fd) rings every waiter, whatever it has seen.
 */
#ifndef PD_VLIB_LANE_H
#define PD_VLIB_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/lock.h"
#include "vlib/buffer.h"
#include "vlib/moderation.h"

struct pd_lane;
struct pd_lane_plugins;
struct pd_ctr_block;

enum pd_dir { PD_RX, PD_TX, PD_DIRS };

/* The most frames one call of rx or tx takes: the engine's vector. */
#define PD_VECTOR_MAX 256
/* The most that go together. */
#define PD_LANE_ALL_MAX PD_VECTOR_MAX

/* What the receiver of a frame finishes itself (transport/offload.h). */
enum pd_lane_offload {
	PD_OFFLOAD_CSUM = 1 << 0, /* checksums */
	PD_OFFLOAD_TSO4 = 1 << 1, /* large TCP segments over IPv4 */
	PD_OFFLOAD_TSO6 = 1 << 2,
	PD_OFFLOAD_ECN = 1 << 3, /* of those, with CWR */
	PD_OFFLOAD_TSO = PD_OFFLOAD_TSO4 | PD_OFFLOAD_TSO6
};

/*
 * What a transport does with a lane. Every call is made with the lock of the side held and the side
 * up, except where it is said otherwise. No slot is NULL.
 */
struct pd_lane_ops {
	/*
	 * Show up to `n` (1 to PD_VECTOR_MAX) frames from the cursor on as external buffers, in
	 * order, without consuming them: sidecar copied, segments referring to the transport's
	 * memory. They are valid until rx_done or until the lock is released. Frames that are
	 * broken (a bad chain) are consumed and counted inside. Returns how many, 0 when there are
	 * none; -ENETDOWN when the peer broke the ring: the transport has then asked its control
	 * side to take the port down.
	 */
	int (*rx)(struct pd_lane *lane, struct pd_buffer **bufs, unsigned n);
	/* Consume the first `n` frames that the last rx showed: hand the descriptors back in one
	 * batch, notify once. */
	void (*rx_done)(struct pd_lane *lane, unsigned n);
	/*
	 * Copy up to `n` frames out, in order. Returns how many were taken: fewer than `n` when the
	 * ring is full (then `position` has not moved past what was seen); if the first cannot be
	 * taken, 0 when room may come (sleep from the position read *before* this call, or room
	 * that came since goes unnoticed), -EMSGSIZE when this frame can never fit, -ENETDOWN as in
	 * rx. Nothing is published before tx_flush.
	 */
	int (*tx)(struct pd_lane *lane, struct pd_buffer *const *bufs, unsigned n);
	/*
	 * As tx, for frames of which all go or none: returns `n`, 0, or the errors of tx, where
	 * -EMSGSIZE also means that they can never go together. 1 to PD_LANE_ALL_MAX of them.
	 */
	int (*tx_all)(struct pd_lane *lane, struct pd_buffer *const *bufs, unsigned n);
	/* Publish what tx took, with one index store, and notify the peer once if it asked for it.
	 */
	void (*tx_flush)(struct pd_lane *lane);
	/* What the peer has made available so far; validated (a jump larger than the ring is a
	 * broken ring). */
	uint32_t (*position)(struct pd_lane *lane, enum pd_dir dir);
	/*
	 * Ask for a notification when the position leaves `seen`; true when it already has. `hold`:
	 * the notification need not come before the position is that far beyond (1: as soon as it
	 * moves); at most the side's hold_max, and more than 1 only at seen == cursor.
	 */
	bool (*arm)(struct pd_lane *lane, enum pd_dir dir, uint32_t seen, uint32_t hold);
	/* No notification is needed from here on (a hint). */
	void (*disarm)(struct pd_lane *lane, enum pd_dir dir);
	/* Make event_fd unreadable. */
	void (*drain)(struct pd_lane *lane, enum pd_dir dir);
};

/* One sleeper on one side. Lives in the sleeper's memory while linked. */
struct pd_lane_waiter {
	struct pd_list node;
	uint32_t seen; /* the position this sleeper knows of */
	int wake_fd;   /* an eventfd of the sleeper */
	/* Set by pd_lane_sleep: */
	uint32_t hold;     /* positions that were asked for at once */
	uint64_t until_ns; /* sleep no longer than this (pd_clock_ns); UINT64_MAX: no matter */
};

struct pd_lane_side {
	struct pd_lock lock;
	bool up;       /* rings are there and enabled */
	uint32_t link; /* counts changes of the link, so that a sleeper can tell */
	uint32_t cursor;
	int event_fd; /* becomes readable on notification; -1: the peer does not notify */
	struct pd_list waiters;
	/* The most that arm can hold; set by the transport before the link comes up */
	uint32_t hold_max;
	struct pd_moderation moderation;
	struct pd_ctr_block *ctr;
} PD_CACHE_ALIGNED;

struct pd_lane {
	const struct pd_lane_ops *ops;
	uint16_t port;  /* index of the port */
	uint16_t queue; /* queue pair within the port */
	/*
	 * The unfinished frames that tx takes as they are, enum pd_lane_offload; under the lock of
	 * the transmit side.
	 */
	uint8_t takes;
	/* Told, under the lock of the side, that it went up or down; or NULL. */
	void (*moved)(struct pd_lane *lane, enum pd_dir dir);
	struct pd_lane_plugins *plugins; /* of lane_plugins.h; NULL: `ops` are the transport's */
	struct pd_lane_side side[PD_DIRS];
};

/*
 * Forget, in a forked child, who holds the sides of its parent's lane and who sleeps on them: both
 * are down, and nobody is told.
 */
void pd_lane_abandon(struct pd_lane *lane);

/* Set up the generic part: both sides down, no waiters. `ctr` are the counter blocks per side. */
void pd_lane_init(struct pd_lane *lane, const struct pd_lane_ops *ops, uint16_t port,
		  uint16_t queue, struct pd_ctr_block *const ctr[PD_DIRS]);

/*
 * The link of one side changed: `up`, with `event_fd` to poll (or -1), cursor to start from. The
 * side's lock must be held. Rings every waiter.
 */
void pd_lane_set_link(struct pd_lane *lane, enum pd_dir dir, bool up, int event_fd,
		      uint32_t cursor);

/*
 * Ring the waiters of a side. `all`: each one, whatever it has seen; else those whose `seen`
 * differs from the position. The side's lock must be held.
 */
void pd_lane_ring(struct pd_lane *lane, enum pd_dir dir, bool all);

/*
 * Link `w` for a sleep: arms at w->seen. Returns true when the caller may sleep; false (not linked)
 * when there is something new already. A side that is down may always be slept on. The sleep must
 * end at w->until_ns at the latest. Lock held.
 */
bool pd_lane_sleep(struct pd_lane *lane, enum pd_dir dir, struct pd_lane_waiter *w);

/*
 * Undo pd_lane_sleep after the sleep. `notified`: event_fd was readable; then it is drained, the
 * others are rung and the side is armed for them. Lock held.
 */
void pd_lane_wake(struct pd_lane *lane, enum pd_dir dir, struct pd_lane_waiter *w, bool notified);

/* How much a side has to offer now: frames to receive or room to send; 0 when it is down. Lock
 * held. */
static inline uint32_t pd_lane_ready(struct pd_lane *lane, enum pd_dir dir)
{
	struct pd_lane_side *side = &lane->side[dir];

	return side->up ? lane->ops->position(lane, dir) - side->cursor : 0;
}

#endif /* PD_VLIB_LANE_H */
