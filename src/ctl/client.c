/* SPDX-License-Identifier: BSD-2-Clause */
/* Talking to the debug CLI of a program (contract in client.h). */
#include "client.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SEPARATOR '\036'

/*
 * Have more bytes in c->in; what was used is dropped. Returns 0, or -1 with `error` written and
 * errno set (0 at the end of the stream).
 */
static int fill(struct pd_ctl *c, char *error)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	ssize_t n;
	int ready;

	memmove(c->in, c->in + c->at, c->n - c->at);
	c->n -= c->at;
	c->at = 0;
	do
		ready = poll(&p, 1, c->timeout_ms);
	while (ready < 0 && errno == EINTR);
	if (ready == 0) {
		snprintf(error, PD_CTL_ERROR_BYTES, "no answer for %d s: is the process stopped?",
			 c->timeout_ms / 1000);
		errno = ETIMEDOUT;
		return -1;
	}
	n = ready < 0 ? -1 : recv(c->fd, c->in + c->n, sizeof(c->in) - c->n, 0);
	if (n > 0) {
		c->n += (size_t)n;
		return 0;
	}
	if (n == 0)
		errno = 0;
	snprintf(error, PD_CTL_ERROR_BYTES, "the connection has ended%s%s", n ? ": " : "",
		 n ? strerror(errno) : "");
	return -1;
}

/*
 * Read the line that begins at c->at into `line`, without its end; what does not fit is lost.
 * Returns 0 or -1 as fill.
 */
static int read_line(struct pd_ctl *c, char *line, size_t size, char *error)
{
	char *end;
	size_t n;

	while (!(end = memchr(c->in + c->at, '\n', c->n - c->at))) {
		if (c->n - c->at == sizeof(c->in)) {
			snprintf(error, PD_CTL_ERROR_BYTES, "the answer is none of a debug CLI's");
			errno = EPROTO;
			return -1;
		}
		if (fill(c, error))
			return -1;
	}
	n = (size_t)(end - (c->in + c->at));
	if (n >= size)
		n = size - 1;
	memcpy(line, c->in + c->at, n);
	line[n] = '\0';
	c->at = (size_t)(end + 1 - c->in);
	return 0;
}

/* Read who it is. Returns 0 or -1. */
static int read_hello(struct pd_ctl *c, char *error)
{
	char line[PD_CTL_ERROR_BYTES];
	int protocol;

	if (read_line(c, line, sizeof(line), error))
		return -1;
	errno = EPROTO;
	if (line[0] == SEPARATOR) { /* turned away: " 1 why" */
		snprintf(error, PD_CTL_ERROR_BYTES, "%s", strlen(line) > 4 ? line + 4 : "refused");
		return -1;
	}
	if (sscanf(line, "palladium-cli %d", &protocol) != 1) {
		snprintf(error, PD_CTL_ERROR_BYTES, "it is not the debug CLI of libpalladium");
		return -1;
	}
	if (protocol != PD_CTL_PROTOCOL) {
		snprintf(error, PD_CTL_ERROR_BYTES,
			 "it speaks version %d of the protocol, and this program speaks %d: use "
			 "the palladium_ctl of its library",
			 protocol, PD_CTL_PROTOCOL);
		return -1;
	}
	if (sscanf(line, "palladium-cli %*d %d %31s %63[^\n]", &c->pid, c->version, c->program) <
	    2) {
		snprintf(error, PD_CTL_ERROR_BYTES, "it does not say who it is");
		return -1;
	}
	return 0;
}

int pd_ctl_connect(struct pd_ctl *c, const char *path, int timeout_ms, char *error)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int err;

	memset(c, 0, sizeof(*c));
	c->timeout_ms = timeout_ms;
	c->fd = -1;
	if (strlen(path) >= sizeof(addr.sun_path)) {
		snprintf(error, PD_CTL_ERROR_BYTES, "the path is too long for a socket");
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(addr.sun_path, path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		snprintf(error, PD_CTL_ERROR_BYTES, "%s", strerror(errno));
	} else if (!read_hello(c, error)) {
		return 0;
	}
	err = errno;
	pd_ctl_close(c);
	errno = err;
	return -1;
}

void pd_ctl_close(struct pd_ctl *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

/* Send `line` with its end. Returns 0, or -1 with `error` written. */
static int send_line(struct pd_ctl *c, const char *line, char *error)
{
	struct iovec iov[] = {{(void *)(uintptr_t)line, strlen(line)}, {"\n", 1}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	size_t left = iov[0].iov_len + 1;

	while (left) {
		ssize_t n = sendmsg(c->fd, &msg, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			/* It may have said why before it went: that is read next. */
			if (errno == EPIPE || errno == ECONNRESET)
				return 0;
			snprintf(error, PD_CTL_ERROR_BYTES, "%s", strerror(errno));
			return -1;
		}
		left -= (size_t)n;
		for (unsigned i = 0; i < 2; i++) {
			size_t part = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;

			iov[i].iov_base = (char *)iov[i].iov_base + part;
			iov[i].iov_len -= part;
			n -= (ssize_t)part;
		}
	}
	return 0;
}

int pd_ctl_run(struct pd_ctl *c, const char *line, FILE *out, char *error)
{
	char record[PD_CTL_ERROR_BYTES];

	if (send_line(c, line, error))
		return -1;
	for (;;) {
		size_t have = c->n - c->at;
		char *from = c->in + c->at, *mark = memchr(from, SEPARATOR, have);

		fwrite(from, 1, mark ? (size_t)(mark - from) : have, out);
		c->at += mark ? (size_t)(mark - from) : have;
		if (mark)
			break;
		if (fill(c, error))
			return -1;
	}
	if (read_line(c, record, sizeof(record), error))
		return -1;
	if (!strcmp(record, "\036 0"))
		return 0;
	snprintf(error, PD_CTL_ERROR_BYTES, "%s", strlen(record) > 4 ? record + 4 : "failed");
	return 1;
}
