/* SPDX-License-Identifier: BSD-2-Clause */
/* The sinks of the debug CLI (contract in sink.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/internal_fd.h"
#include "base/quiet.h"
#include "base/sys.h"
#include "cli/sink.h"

#define FIRST_BYTES 1024
/* pd_quiet_write takes no more at a time. */
#define WRITE_BYTES 4096

/* --- memory -------------------------------------------------------------------------------- */

/* Have room for `n` bytes in all. Returns 0 or -ENOMEM. */
static int memory_reserve(struct pd_cli_memory *m, size_t n)
{
	size_t size = m->size ? m->size : FIRST_BYTES;
	char *bytes;

	if (n <= m->size)
		return 0;
	while (size < n)
		size *= 2;
	bytes = realloc(m->bytes, size);
	if (!bytes)
		return -ENOMEM;
	m->bytes = bytes;
	m->size = size;
	return 0;
}

/* Append `n` bytes, for which the bound has room. Returns 0 or -ENOMEM. */
static int memory_append(struct pd_cli_memory *m, const char *bytes, size_t n)
{
	if (memory_reserve(m, m->n + n))
		return -ENOMEM;
	if (n)
		memcpy(m->bytes + m->n, bytes, n);
	m->n += n;
	return 0;
}

/* take of memory. */
static int memory_take(struct pd_cli_sink *sink, const char *bytes, size_t n)
{
	struct pd_cli_memory *m = pd_container_of(sink, struct pd_cli_memory, sink);

	if (n > m->limit - m->n)
		return -ENOBUFS;
	return memory_append(m, bytes, n);
}

void pd_cli_memory_init(struct pd_cli_memory *m, size_t limit)
{
	*m = (struct pd_cli_memory){.sink.take = memory_take, .limit = limit};
}

void pd_cli_memory_free(struct pd_cli_memory *m)
{
	free(m->bytes);
	m->bytes = NULL;
	m->n = m->size = 0;
}

/* --- a connection's queue ------------------------------------------------------------------ */

/* take of a queue. */
static int queue_take(struct pd_cli_sink *sink, const char *bytes, size_t n)
{
	struct pd_cli_queue *q = pd_container_of(sink, struct pd_cli_queue, memory.sink);
	struct pd_cli_memory *m = &q->memory;
	size_t waits = m->n - q->sent;

	if (waits > m->limit || n > m->limit - waits)
		return -ENOBUFS;
	/* What was sent makes room, once it is worth the move. */
	if (q->sent && (q->sent == m->n || (m->n + n > m->size && q->sent >= m->size / 2))) {
		memmove(m->bytes, m->bytes + q->sent, waits);
		m->n = waits;
		q->sent = 0;
	}
	return memory_append(m, bytes, n);
}

void pd_cli_queue_init(struct pd_cli_queue *q, int fd, size_t limit)
{
	*q = (struct pd_cli_queue){.memory = {.sink.take = queue_take, .limit = limit}, .fd = fd};
}

size_t pd_cli_queue_length(const struct pd_cli_queue *q)
{
	return q->memory.n - q->sent;
}

ssize_t pd_cli_queue_flush(struct pd_cli_queue *q)
{
	ssize_t went = 0;

	while (q->fd >= 0 && pd_cli_queue_length(q)) {
		struct iovec iov = {q->memory.bytes + q->sent, pd_cli_queue_length(q)};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n = pd_sys_sendmsg(q->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n == -EAGAIN)
			break;
		if (n == -EINTR)
			continue;
		if (n < 0)
			return n;
		q->sent += (size_t)n;
		went += n;
	}
	if (!pd_cli_queue_length(q))
		q->memory.n = q->sent = 0;
	return went;
}

/* --- a file -------------------------------------------------------------------------------- */

/* take of a file. */
static int file_take(struct pd_cli_sink *sink, const char *bytes, size_t n)
{
	struct pd_cli_file *f = pd_container_of(sink, struct pd_cli_file, sink);

	if (n > f->left)
		return -ENOBUFS;
	f->left -= n;
	while (n) {
		ssize_t went = pd_quiet_write(f->fd, bytes, n < WRITE_BYTES ? n : WRITE_BYTES);

		if (went == -EINTR)
			continue;
		if (went <= 0)
			return went ? (int)went : -ENOSPC;
		bytes += went;
		n -= (size_t)went;
	}
	return 0;
}

int pd_cli_file_open(struct pd_cli_file *f, const char *path, size_t limit)
{
	int fd = pd_internal_fd(pd_sys_open(
		path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0600));

	if (fd < 0)
		return fd;
	*f = (struct pd_cli_file){.sink.take = file_take, .fd = fd, .left = limit};
	return 0;
}

void pd_cli_file_close(struct pd_cli_file *f)
{
	if (f->fd >= 0)
		pd_sys_close(f->fd);
	f->fd = -1;
}
