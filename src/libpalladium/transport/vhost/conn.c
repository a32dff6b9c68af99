/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Framing over a Unix stream socket.
 *
 * A stream has no message boundaries, so a message may arrive in any number of pieces, or several
 * in one. We ask the kernel for the 12 header bytes first and then for exactly the payload, and so
 * never read into the next message, whose descriptors would otherwise come too early. The kernel
 * ties descriptors to the first byte they were sent with; a front-end sends them with the first
 * byte of a message. Descriptors that arrive with the header are collected, wherever it was split;
 * descriptors inside a payload belong to nothing and end the connection.
 *
 * Descriptors for which there is no room are closed by the kernel, in the call that receives the
 * bytes they came with, and closing may wait (base/closer.h). So there is room for all that a
 * message can carry, and bytes are read in two steps: a look (MSG_PEEK) gives the next descriptors
 * that are in the socket, with these bytes or behind them, to us too; then the bytes are read
 * without room for any, and the kernel says whether there were some. Those are the ones that we
 * have. Until they come there is no other look. When it says that some were lost, as this process
 * has no free numbers left, there is no second step: the connection ends, and who closes it closes
 * them.
 *
 * The socket of a back-end's channel comes from the peer, which may read from it too. There the
 * second step may give other bytes than the first, and so has room for descriptors as well. None is
 * ever due there. (What is left: a peer that does this in that moment, while no number is free
 * here.)
 */
#include "transport/vhost/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/closer.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"
#include "transport/vhost/foreign.h"

#define HDR_BYTES sizeof(struct pd_vhost_header)
/* The most descriptors that the kernel takes in a message (SCM_MAX_FD of <net/scm.h>). */
#define KERNEL_FDS_MAX 253

/* Messages handled in one go, so that no peer keeps the progress thread to itself. */
#define MESSAGES_PER_TURN 32

static const char peer_closed[] = "the peer closed the connection";
static const char peer_closed_inside[] = "the peer closed the connection inside a message";
static const char fds_lost[] = "file descriptors were lost: none free here";

static void conn_io(struct pd_progress_fd *io, uint32_t revents);

bool pd_vhost_conn_closed_by_peer(const char *reason)
{
	return reason == peer_closed || reason == peer_closed_inside;
}

void pd_vhost_conn_init(struct pd_vhost_conn *conn, const struct pd_vhost_conn_ops *ops,
			bool replies)
{
	memset(conn, 0, sizeof(*conn));
	conn->ops = ops;
	conn->replies = replies;
	conn->io.fd = -1;
	conn->io.fn = conn_io;
	memset(conn->in.fds, -1, sizeof(conn->in.fds));
}

void pd_vhost_conn_hang_up(const struct pd_vhost_conn *conn, int fd)
{
	if (fd >= 0)
		(conn->shared ? pd_closer_shared : pd_closer_hang_up)(fd);
}

int pd_vhost_conn_open(struct pd_vhost_conn *conn, int fd)
{
	int err;

	pd_assert(conn->io.fd < 0);
	if (pd_closer_is_full()) {
		pd_log_ratelimited(PD_LOG_WARN, "vhost",
				   "no connection is taken: too many descriptors that peers sent "
				   "are still being closed");
		pd_vhost_conn_hang_up(conn, fd);
		return -EBUSY;
	}
	pd_sys_urgent_inline(fd);
	conn->in_bytes = 0;
	conn->out_first = conn->out_count = conn->out_bytes = 0;
	conn->io.fd = fd;
	conn->io.events = EPOLLIN;
	err = pd_progress_add(&conn->io);
	if (err) {
		pd_vhost_conn_hang_up(conn, fd);
		conn->io.fd = -1;
	}
	return err;
}

/* The descriptors of `out` have gone, or never will. */
static void out_drop_fds(struct pd_vhost_out *out)
{
	for (uint32_t i = 0; out->owned && i < out->n_fds; i++)
		pd_closer_shared(out->fds[i]);
	out->owned = false;
	out->n_fds = 0;
}

/* Let go of the socket, which is given back, of what is ahead in it, and of what waits to be sent. */
static int conn_detach(struct pd_vhost_conn *conn)
{
	int fd = conn->io.fd;

	for (uint32_t i = 0; i < conn->out_count; i++)
		out_drop_fds(&conn->out[(conn->out_first + i) % PD_VHOST_OUT_MAX]);
	conn->out_count = 0;
	while (conn->n_ahead)
		pd_closer_shared(conn->ahead[--conn->n_ahead]);
	pd_progress_del(&conn->io);
	conn->io.fd = -1;
	return fd;
}

int pd_vhost_conn_stop(struct pd_vhost_conn *conn)
{
	int fd;

	if (conn->io.fd < 0)
		return -1;
	fd = conn_detach(conn);
	pd_vhost_msg_close_fds(&conn->in);
	return fd;
}

void pd_vhost_conn_abandon(struct pd_vhost_conn *conn)
{
	if (conn->io.fd < 0)
		return;
	pd_sys_close(conn_detach(conn));
	pd_vhost_msg_close_fds(&conn->in);
}

void pd_vhost_conn_close(struct pd_vhost_conn *conn)
{
	pd_vhost_conn_hang_up(conn, pd_vhost_conn_stop(conn));
}

/* End and tell the role why. `reason` must not stand in the connection. */
static void conn_end(struct pd_vhost_conn *conn, const char *reason)
{
	int fd = pd_vhost_conn_stop(conn);

	conn->ops->ended(conn, reason);
	pd_vhost_conn_hang_up(conn, fd);
}

/* Descriptors that have come, as numbers: without names, under pd_internal_fd_lock. */
struct arrived {
	uint32_t n;
	int fds[KERNEL_FDS_MAX];
};

/* recvmsg, once more when it was interrupted. */
static ssize_t conn_recvmsg(struct pd_vhost_conn *conn, struct msghdr *mh, int flags)
{
	ssize_t got;

	do
		got = pd_sys_recvmsg(conn->io.fd, mh, flags | MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (got == -EINTR);
	return got;
}

/*
 * The same with room for all the descriptors there may be, which are in *arrived then; `n` bytes at
 * most to `to`. *lost is set when there were more than this process has numbers for.
 */
static ssize_t conn_recv_fds(struct pd_vhost_conn *conn, void *to, size_t n, int flags,
			     struct arrived *arrived, bool *lost)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(KERNEL_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = {to, n};
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t got = conn_recvmsg(conn, &mh, flags);

	arrived->n = 0;
	*lost = got > 0 && mh.msg_flags & MSG_CTRUNC;
	if (got <= 0)
		return got;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		arrived->n = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(arrived->fds, CMSG_DATA(c), arrived->n * sizeof(int));
	}
	return got;
}

/*
 * Throw out those that are not let in, of a shared connection all. Returns NULL or what is wrong
 * with them.
 */
static const char *arrived_sift(const struct pd_vhost_conn *conn, struct arrived *arrived)
{
	const char *wrong = NULL;
	uint32_t n = arrived->n;

	arrived->n = 0;
	for (uint32_t i = 0; i < n; i++) {
		const char *harmful = pd_vhost_foreign_is_harmful(arrived->fds[i]);

		if (!harmful && !conn->shared) {
			arrived->fds[arrived->n++] = arrived->fds[i];
			continue;
		}
		pd_closer_number(arrived->fds[i]);
		wrong = harmful ? harmful : "file descriptors on a reply";
	}
	return !wrong && arrived->n > PD_VHOST_FDS_MAX ? "too many file descriptors" : wrong;
}

/*
 * Give them names, in conn->ahead, unless something is `wrong` with them; the others are closed, of
 * which the socket has each still. Returns `wrong`, or that there are no names.
 */
static const char *arrived_keep(struct pd_vhost_conn *conn, const struct arrived *arrived,
				const char *wrong)
{
	for (uint32_t i = 0; i < arrived->n; i++) {
		int fd = wrong ? -1 : pd_internal_fd_try(arrived->fds[i]);

		if (fd >= 0) {
			conn->ahead[conn->n_ahead++] = fd;
			continue;
		}
		pd_sys_close(arrived->fds[i]);
		wrong = wrong ? wrong : fds_lost;
	}
	return wrong;
}

/*
 * Receive up to `n` bytes to `to` with the next descriptors in the socket, which are looked at, and
 * with MSG_PEEK kept. Returns as recvmsg; *reason is NULL or what is wrong with them.
 */
static ssize_t conn_recv_sifted(struct pd_vhost_conn *conn, void *to, size_t n, int flags,
				const char **reason)
{
	struct arrived arrived;
	bool lost;
	ssize_t got;

	pd_internal_fd_lock();
	got = conn_recv_fds(conn, to, n, flags, &arrived, &lost);
	*reason = arrived_sift(conn, &arrived);
	if (flags & MSG_PEEK)
		*reason = arrived_keep(conn, &arrived, *reason || !lost ? *reason : fds_lost);
	pd_internal_fd_unlock();
	return got;
}

/*
 * What was ahead belongs to the current message: it goes there, if descriptors may come now.
 * Returns NULL or what is wrong.
 */
static const char *ahead_take(struct pd_vhost_conn *conn)
{
	struct pd_vhost_msg *in = &conn->in;
	const char *wrong = conn->in_bytes >= HDR_BYTES ? "file descriptors inside a message"
			    : in->n_fds + conn->n_ahead > PD_VHOST_FDS_MAX
				    ? "too many file descriptors"
				    : NULL;

	for (uint32_t i = 0; i < conn->n_ahead; i++) {
		if (wrong)
			pd_closer_shared(conn->ahead[i]);
		else
			in->fds[in->n_fds++] = conn->ahead[i];
	}
	conn->n_ahead = 0;
	return wrong;
}

/*
 * Read up to `n` bytes to `to`, none of which is behind what is ahead. Returns as recvmsg; *reason
 * is NULL or what is wrong with what came with them.
 */
static ssize_t conn_take(struct pd_vhost_conn *conn, void *to, size_t n, const char **reason)
{
	struct iovec iov = {to, n};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t got = conn_recvmsg(conn, &mh, 0);

	/* That is said of those that were given no room. */
	if (got > 0 && mh.msg_flags & MSG_CTRUNC)
		*reason = ahead_take(conn);
	return got;
}

/*
 * Read up to `n` bytes of the current message to `to`. Returns how many came, 0 when none are there
 * yet, or -1 with *reason set.
 */
static int conn_read(struct pd_vhost_conn *conn, void *to, size_t n, const char **reason)
{
	ssize_t got = (ssize_t)n;

	*reason = NULL;
	if (!conn->n_ahead)
		got = conn_recv_sifted(conn, to, n, MSG_PEEK, reason);
	/* Where the peer has our end too, it may have been quicker, and these be other bytes. */
	if (got > 0 && !*reason && conn->shared)
		got = conn_recv_sifted(conn, to, (size_t)got, 0, reason);
	else if (got > 0 && !*reason)
		got = conn_take(conn, to, (size_t)got, reason);
	if (got == -EAGAIN)
		return 0;
	if (got <= 0)
		*reason = got < 0 && got != -ECONNRESET ? pd_strerror((int)got)
			  : conn->in_bytes              ? peer_closed_inside
							: peer_closed;
	return *reason ? -1 : (int)got;
}

/*
 * Bring the current message forward. Returns true when it is whole; else *reason says why the
 * connection must end, or is NULL when the rest is still to come.
 */
static bool conn_fill(struct pd_vhost_conn *conn, const char **reason)
{
	struct pd_vhost_msg *in = &conn->in;
	int got;

	*reason = NULL;
	while (conn->in_bytes < HDR_BYTES) {
		got = conn_read(conn, (char *)&in->hdr + conn->in_bytes, HDR_BYTES - conn->in_bytes,
				reason);
		if (got <= 0)
			return false;
		conn->in_bytes += (uint32_t)got;
		if (conn->in_bytes < HDR_BYTES)
			continue;
		*reason = pd_vhost_check_header(&in->hdr, conn->replies);
		if (*reason)
			return false;
		memset(&in->payload, 0, sizeof(in->payload));
	}
	while (conn->in_bytes < HDR_BYTES + in->hdr.size) {
		uint32_t at = conn->in_bytes - HDR_BYTES;

		got = conn_read(conn, in->payload.bytes + at, in->hdr.size - at, reason);
		if (got <= 0)
			return false;
		conn->in_bytes += (uint32_t)got;
	}
	return true;
}

/* The message `mh` with `n` descriptors of ours beside it. As sendmsg. */
static ssize_t conn_send_fds(struct pd_vhost_conn *conn, struct msghdr *mh, const int *fds,
			     uint32_t n)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(PD_VHOST_FDS_MAX * sizeof(int))];
	} control = {.bytes = {0}};
	uint32_t turns[PD_VHOST_FDS_MAX];
	int numbers[PD_VHOST_FDS_MAX];
	struct cmsghdr *c = &control.align;
	ssize_t sent;

	for (uint32_t i = 0; i < n; i++)
		numbers[i] = pd_internal_fd_hold(fds[i], &turns[i]);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), numbers, n * sizeof(int));
	mh->msg_control = control.bytes;
	mh->msg_controllen = CMSG_SPACE(n * sizeof(int));
	do
		sent = pd_sys_sendmsg(conn->io.fd, mh, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent == -EINTR);
	for (uint32_t i = 0; i < n; i++)
		pd_internal_fd_release(fds[i], turns[i]);
	return sent;
}

/* Send what waits, as far as the socket takes it. Returns NULL or why the connection must end. */
static const char *conn_flush(struct pd_vhost_conn *conn)
{
	while (conn->out_count) {
		struct pd_vhost_out *out = &conn->out[conn->out_first];
		uint32_t head = pd_min(conn->out_bytes, (uint32_t)HDR_BYTES);
		uint32_t body = conn->out_bytes - head;
		struct iovec iov[2] = {
			{(char *)&out->hdr + head, HDR_BYTES - head},
			{out->payload.bytes + body, out->hdr.size - body},
		};
		struct msghdr mh = {.msg_iov = iov, .msg_iovlen = 2};
		ssize_t sent;

		if (out->n_fds)
			sent = conn_send_fds(conn, &mh, out->fds, out->n_fds);
		else
			do
				sent = pd_sys_sendmsg(conn->io.fd, &mh,
						      MSG_DONTWAIT | MSG_NOSIGNAL);
			while (sent == -EINTR);
		if (sent == -EAGAIN)
			break;
		if (sent < 0)
			return sent == -EPIPE || sent == -ECONNRESET ? peer_closed
								     : pd_strerror((int)sent);
		out_drop_fds(out);
		conn->out_bytes += (uint32_t)sent;
		if (conn->out_bytes < HDR_BYTES + out->hdr.size)
			continue;
		conn->out_bytes = 0;
		conn->out_first = (conn->out_first + 1) % PD_VHOST_OUT_MAX;
		conn->out_count--;
	}
	pd_progress_mod(&conn->io, conn->out_count ? EPOLLIN | EPOLLOUT : EPOLLIN);
	return NULL;
}

/*
 * `out` waits, and its sender may close what goes with it meanwhile: keep copies of the
 * descriptors. Returns NULL or why not.
 */
static const char *out_own_fds(struct pd_vhost_out *out)
{
	uint32_t n = out->n_fds;

	out->owned = true;
	for (out->n_fds = 0; out->n_fds < n; out->n_fds++) {
		int *fd = &out->fds[out->n_fds];

		*fd = pd_internal_fd(pd_sys_fcntl(*fd, F_DUPFD_CLOEXEC, 0));
		if (*fd < 0)
			return pd_strerror(*fd);
	}
	return NULL;
}

const char *pd_vhost_conn_send(struct pd_vhost_conn *conn, const struct pd_vhost_header *hdr,
			       const void *payload, const int *fds, uint32_t n_fds)
{
	struct pd_vhost_out *out;
	const char *why;

	pd_assert(hdr->size <= sizeof(out->payload) && n_fds <= PD_VHOST_FDS_MAX);
	if (conn->out_count == PD_VHOST_OUT_MAX)
		return "the peer does not read its replies";
	out = &conn->out[(conn->out_first + conn->out_count++) % PD_VHOST_OUT_MAX];
	out->hdr = *hdr;
	if (hdr->size)
		memcpy(out->payload.bytes, payload, hdr->size);
	out->owned = false;
	out->n_fds = n_fds;
	if (n_fds)
		memcpy(out->fds, fds, n_fds * sizeof(int));
	why = conn_flush(conn);
	return why || !out->n_fds ? why : out_own_fds(out);
}

/* The socket is readable, writable or gone. */
static void conn_io(struct pd_progress_fd *io, uint32_t revents)
{
	struct pd_vhost_conn *conn = pd_container_of(io, struct pd_vhost_conn, io);
	const char *reason = NULL;

	if (revents & EPOLLOUT) {
		reason = conn_flush(conn);
		if (!reason && conn->ops->drained && pd_vhost_conn_room(conn))
			reason = conn->ops->drained(conn);
	}
	for (int i = 0; !reason && i < MESSAGES_PER_TURN; i++) {
		if (!conn_fill(conn, &reason))
			break;
		reason = conn->ops->message(conn, &conn->in);
		pd_vhost_msg_close_fds(&conn->in);
		conn->in_bytes = 0;
	}
	if (reason)
		conn_end(conn, reason);
}
