/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end's dirty log: the bitmap that a front-end gives while it migrates its guest. What
 * goes into it, and when, stands in virtio/dirty.h.
 *
 * Everything runs under pd_control; no lane lock may be held on entry, but where it says so.
 */
#ifndef PD_TRANSPORT_VHOST_DIRTY_H
#define PD_TRANSPORT_VHOST_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/vhost/map.h"

struct pd_vhost_backend;
struct pd_vq;

struct pd_vhost_dirty {
	struct pd_vhost_mapping mapping; /* base NULL: there is no log */
	uint64_t pages;                  /* bits of it */
	int fd;                          /* SET_LOG_FD: tell when bits were set; -1: none */
	uint32_t news;                   /* atomic: some were */
};

/*
 * SET_LOG_BASE: the log, in place of the one that is there. Returns NULL or why not, then nothing
 * changed.
 */
const char *pd_vhost_dirty_set_base(struct pd_vhost_backend *be, struct pd_vhost_msg *msg);

/* SET_LOG_FD. Returns NULL or why not. */
const char *pd_vhost_dirty_set_fd(struct pd_vhost_backend *be, struct pd_vhost_msg *msg);

/* May ring `i` run: what is written into it is not to be logged, or there is a log? */
bool pd_vhost_dirty_ready(const struct pd_vhost_backend *be, unsigned i);

/* Why ring `i`, which is ready, cannot be logged as the peer says, or NULL. */
const char *pd_vhost_dirty_check(struct pd_vhost_backend *be, unsigned i);

/*
 * Log ring `i`, which may run, as it is to be logged now. Takes the side's lock if there is
 * anything to do.
 */
void pd_vhost_dirty_ring(struct pd_vhost_backend *be, unsigned i);

/*
 * The same for the queue that ring `i` comes up on, or that moves to the memory `map`. The side's
 * lock is held.
 */
void pd_vhost_dirty_queue(struct pd_vhost_backend *be, unsigned i, struct pd_vq *vq,
			  const struct pd_vhost_map *map);

/* Tell the peer of what was noted, if it wants to know. What the data path posted runs this. */
void pd_vhost_dirty_tell(struct pd_vhost_backend *be);

/* True when the log's file turned out to be shorter than it was. */
bool pd_vhost_dirty_is_cut(const struct pd_vhost_backend *be);

/* There is no log any more. Every ring is down. */
void pd_vhost_dirty_reset(struct pd_vhost_backend *be);

#endif /* PD_TRANSPORT_VHOST_DIRTY_H */
