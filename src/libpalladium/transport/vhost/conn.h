/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One vhost-user connection: bytes and descriptors to messages, and back.
 *
 * Nothing blocks. What has arrived of a message waits in `in`; what the socket did not take waits
 * in a bounded queue, with copies of its descriptors. Everything runs under pd_control. A
 * connection that ended has closed its socket, those copies, and every descriptor that came with a
 * message nobody took.
 */
#ifndef PD_TRANSPORT_VHOST_CONN_H
#define PD_TRANSPORT_VHOST_CONN_H

#include <stdbool.h>

#include "transport/vhost/wire.h"
#include "vlib/progress.h"

/* Messages that may wait for the socket to take them. A peer that lets more pile up is cut off. */
#define PD_VHOST_OUT_MAX 32

struct pd_vhost_conn;

struct pd_vhost_conn_ops {
	/*
	 * A message whose header was checked (pd_vhost_check_header). Descriptors that are still in
	 * it afterwards are closed. Returns NULL, or why the connection must end. Must not close
	 * the connection itself.
	 */
	const char *(*message)(struct pd_vhost_conn *conn, struct pd_vhost_msg *msg);
	/* There is room for messages again; NULL if nobody waits for that. Returns as `message`. */
	const char *(*drained)(struct pd_vhost_conn *conn);
	/*
	 * The connection ended by itself, `reason` says why (valid during the call). It is as if
	 * closed, and may be opened again from here; the peer sees it afterwards.
	 */
	void (*ended)(struct pd_vhost_conn *conn, const char *reason);
};

struct pd_vhost_out {
	struct pd_vhost_header hdr;
	uint32_t n_fds; /* that have not gone yet */
	bool owned;     /* the descriptors are copies of ours: the message waits */
	union {
		uint8_t bytes[sizeof(struct pd_vhost_memory)];
		uint64_t align;
	} payload;
	int fds[PD_VHOST_FDS_MAX];
};

struct pd_vhost_conn {
	const struct pd_vhost_conn_ops *ops;
	bool replies; /* what arrives are replies: we are the front-end */
	bool shared;  /* the peer may have our end of the socket too; descriptors are never due */
	struct pd_progress_fd io;
	struct pd_vhost_msg in;
	uint32_t in_bytes; /* of header and payload that are there */
	/* The next descriptors in the socket, which we have too: of this message or of a later one. */
	uint32_t n_ahead;
	int ahead[PD_VHOST_FDS_MAX];
	uint32_t out_first, out_count;
	uint32_t out_bytes; /* of the first message that are gone */
	struct pd_vhost_out out[PD_VHOST_OUT_MAX];
};

/* A connection that is not open. `replies`: see above. */
void pd_vhost_conn_init(struct pd_vhost_conn *conn, const struct pd_vhost_conn_ops *ops,
			bool replies);

/* Begin on the connected stream socket `fd`, which is taken. Returns 0 or -errno (fd closed). */
int pd_vhost_conn_open(struct pd_vhost_conn *conn, int fd);

/* End, quietly. Harmless when it is not open. */
void pd_vhost_conn_close(struct pd_vhost_conn *conn);

/*
 * The same in two steps. A driver that sees its device hang up may use the memory of its rings for
 * something else, so they have to be let go in between. The first returns the socket for the
 * second; -1, which is harmless there: it was not open.
 */
int pd_vhost_conn_stop(struct pd_vhost_conn *conn);
void pd_vhost_conn_hang_up(const struct pd_vhost_conn *conn, int fd);

/*
 * Close a forked child's copies, of which the parent's connection is none the wiser. Harmless when
 * it is not open.
 */
void pd_vhost_conn_abandon(struct pd_vhost_conn *conn);

static inline bool pd_vhost_conn_is_open(const struct pd_vhost_conn *conn)
{
	return conn->io.fd >= 0;
}

/*
 * True when `reason`, of `ended` or pd_vhost_conn_send, is that the other end closed the
 * connection.
 */
bool pd_vhost_conn_closed_by_peer(const char *reason);

/* How many more messages pd_vhost_conn_send takes now. */
static inline uint32_t pd_vhost_conn_room(const struct pd_vhost_conn *conn)
{
	return PD_VHOST_OUT_MAX - conn->out_count;
}

/*
 * Send a message: `hdr`, its payload of hdr->size bytes, and `n_fds` descriptors, which stay the
 * caller's. Returns NULL, or why the connection must end: the caller returns that from its message
 * callback, or closes the connection.
 */
const char *pd_vhost_conn_send(struct pd_vhost_conn *conn, const struct pd_vhost_header *hdr,
			       const void *payload, const int *fds, uint32_t n_fds);

#endif /* PD_TRANSPORT_VHOST_CONN_H */
