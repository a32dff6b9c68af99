/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a port finds its peer: connecting to a path, or listening on one that it may share with other
 * ports. Everything runs under pd_control and nothing blocks.
 *
 * After pd_vhost_dial_start the `connected` callback comes whenever there is a peer; the port then
 * uses the socket, and calls pd_vhost_dial_again when that connection is over.
 */
#ifndef PD_TRANSPORT_VHOST_DIAL_H
#define PD_TRANSPORT_VHOST_DIAL_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/clock.h"
#include "base/list.h"
#include "config/config.h"
#include "vlib/progress.h"

/* For how long a peer that has begun may say nothing when another one waits for its place. */
#define PD_VHOST_SILENT_NS (2000 * PD_NS_PER_MS)

struct pd_vhost_listener;

struct pd_vhost_dial {
	const char *path; /* at most 107 characters; borrowed */
	bool listens;
	const struct pd_conf_access *access; /* borrowed */
	uint32_t order; /* a new connection goes to the waiting port of the lowest order */
	/* There is a peer: the connected, non-blocking socket `fd` is the callee's. */
	void (*connected)(struct pd_vhost_dial *dial, int fd);
	/*
	 * A try that failed, and why (an error of path.h); `again`: for the same reason as the last
	 * one.
	 */
	void (*trouble)(struct pd_vhost_dial *dial, int err, bool again);
	/* We listen, after tries that failed. */
	void (*listening)(struct pd_vhost_dial *dial);
	/* Somebody connected who is not let in, of the user `uid`. */
	void (*refused)(struct pd_vhost_dial *dial, uid_t uid);
	/*
	 * Another peer waits for the connection's place: from when on (pd_clock_ns) it may be ended
	 * for that, UINT64_MAX: never; and end it now.
	 */
	uint64_t (*yields_at)(struct pd_vhost_dial *dial);
	void (*yield)(struct pd_vhost_dial *dial);
	/* A peer that this port admits was turned away, as each port of the path has one. */
	void (*turned_away)(struct pd_vhost_dial *dial);
	/* Private. */
	struct pd_list node; /* among the listener's ports */
	struct pd_vhost_listener *listener;
	struct pd_progress_timer timer;
	uint64_t backoff_ns;
	int last_err; /* what `trouble` was last told of */
	bool waiting; /* wants a connection */
};

/*
 * Begin. The caller filled in the public fields. Nothing is called back before the caller is back
 * in the progress loop. Returns 0, -EINVAL (empty or too long a path) or -ENOMEM.
 */
int pd_vhost_dial_start(struct pd_vhost_dial *dial);

/* The connection is over: find the next, not at once when the last ones came to nothing. */
void pd_vhost_dial_again(struct pd_vhost_dial *dial);

/* The connection works: the next failure begins with the shortest delay. */
void pd_vhost_dial_settled(struct pd_vhost_dial *dial);

/*
 * End. The socket file goes with the last port of a listening path, unless `abandon`: a forked
 * child closes what it inherited and leaves the file to its parent.
 */
void pd_vhost_dial_stop(struct pd_vhost_dial *dial, bool abandon);

#endif /* PD_TRANSPORT_VHOST_DIAL_H */
