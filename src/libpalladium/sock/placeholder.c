/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Placeholders: the kernel's half of a packet socket's number.
 *
 * A placeholder is one end of an AF_UNIX SOCK_SEQPACKET pair whose other end is closed at once: a
 * real descriptor that needs no privilege, and on which calls that cannot be intercepted (stdio,
 * io_uring) fail at once instead of seeming to work.
 *
 * It survives exec when the program wants it to, and then tells the preload of the new program what
 * it was:
 *
 *   its name       abstract, "palladium-packet/1/<type>/<16 hex digits>"; two numbers with one name
 *                  are one socket
 *   SO_PEEK_OFF    protocol in the low 16 bits, the options of pd_placeholder_options above them
 *   SO_RCVLOWAT    the ifindex of the port that it is bound to, or 1
 *   SO_RCVTIMEO, SO_SNDTIMEO, O_NONBLOCK   as they are
 *
 * None of these options means anything on a socket without a peer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sys.h"
#include "sock/fd.h"
#include "sock/packet.h"

#define PD_PLACEHOLDER_NAME "palladium-packet/1/"
/* Names are random: a second try is as good as never needed. */
#define PD_PLACEHOLDER_TRIES 3

/* --- making and noting --------------------------------------------------------------------- */

/* Give `fd` its name; without one it works, but not across exec. */
static void pd_placeholder_name(int fd, struct pd_packet *s)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int len;

	for (int i = 0; i < PD_PLACEHOLDER_TRIES; i++) {
		if (pd_sys_getrandom(&s->unique, sizeof(s->unique), 0) != sizeof(s->unique))
			return;
		len = snprintf(un.sun_path + 1, sizeof(un.sun_path) - 1,
			       PD_PLACEHOLDER_NAME "%d/%016llx", s->type,
			       (unsigned long long)s->unique);
		if (!pd_sys_bind(fd, &un,
				 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len)))
			return;
	}
}

int pd_placeholder_make(struct pd_packet *s, int flags)
{
	int pair[2], ret;

	ret = pd_sys_socketpair(AF_UNIX, SOCK_SEQPACKET | (flags & (SOCK_CLOEXEC | SOCK_NONBLOCK)),
				0, pair);
	if (ret < 0)
		return ret;
	pd_sys_close(pair[1]);
	pd_placeholder_name(pair[0], s);
	return pair[0];
}

/* A number under which the program knows `s`, or -1. */
static int pd_placeholder_fd(const struct pd_packet *s)
{
	int fd;

	if (pd_fd_slot(s->fd) == (uintptr_t)&s->sock)
		return s->fd;
	for (fd = pd_fd_next(0, UINT32_MAX, false); fd >= 0;
	     fd = pd_fd_next((uint32_t)fd + 1, UINT32_MAX, false))
		if (pd_fd_slot(fd) == (uintptr_t)&s->sock)
			return fd;
	return -1;
}

/* The options that travel in SO_PEEK_OFF, as bits, and back. */
static uint32_t pd_placeholder_options(const struct pd_packet *s)
{
	return s->recv_metadata | s->recv_control << 1 | s->inline_mode << 2 | s->auxdata << 3 |
	       s->ignore_outgoing << 4 | (s->timestamps == SO_TIMESTAMP) << 5 |
	       (s->timestamps == SO_TIMESTAMPNS) << 6 | s->rxq_ovfl << 7 |
	       !!(s->timestamping & SOF_TIMESTAMPING_RX_SOFTWARE) << 8 |
	       !!(s->timestamping & SOF_TIMESTAMPING_SOFTWARE) << 9 | s->vnet_hdr << 10;
}

static void pd_placeholder_set_options(struct pd_packet *s, uint32_t bits)
{
	s->recv_metadata = bits & 1;
	s->recv_control = bits >> 1 & 1;
	s->inline_mode = bits >> 2 & 1;
	s->auxdata = bits >> 3 & 1;
	s->ignore_outgoing = bits >> 4 & 1;
	s->timestamps = bits >> 5 & 1 ? SO_TIMESTAMP : bits >> 6 & 1 ? SO_TIMESTAMPNS : 0;
	s->rxq_ovfl = bits >> 7 & 1;
	s->timestamping = (bits >> 8 & 1 ? SOF_TIMESTAMPING_RX_SOFTWARE : 0) |
			  (bits >> 9 & 1 ? SOF_TIMESTAMPING_SOFTWARE : 0);
	s->vnet_hdr = bits >> 10 & 1;
	pd_packet_note_control(s);
}

/* Set an int option of the placeholder. */
static void pd_placeholder_set(int fd, int name, int value)
{
	pd_sys_setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value));
}

/* Set a timeout of the placeholder. */
static void pd_placeholder_set_time(int fd, int name, uint64_t ns)
{
	struct timeval tv = {.tv_sec = (time_t)(ns / PD_NS_PER_SEC),
			     .tv_usec = (suseconds_t)(ns % PD_NS_PER_SEC / PD_NS_PER_US)};

	pd_sys_setsockopt(fd, SOL_SOCKET, name, &tv, sizeof(tv));
}

void pd_placeholder_note(struct pd_packet *s)
{
	const struct pd_port *port = pd_load_acquire(&s->port);
	int fd = pd_placeholder_fd(s), noted;

	if (fd < 0)
		return;
	pd_lock(&s->lock);
	noted = (int)(s->protocol | pd_placeholder_options(s) << 16);
	pd_unlock(&s->lock);
	pd_placeholder_set(fd, SO_PEEK_OFF, noted);
	pd_placeholder_set(fd, SO_RCVLOWAT, port ? (int)port->ifindex : 1);
	pd_placeholder_set_time(fd, SO_RCVTIMEO, pd_load_relaxed(&s->receive_timeout_ns));
	pd_placeholder_set_time(fd, SO_SNDTIMEO, pd_load_relaxed(&s->send_timeout_ns));
}

/* --- after exec ---------------------------------------------------------------------------- */

/* What the name of `fd` says; false when it is no placeholder. */
static bool pd_placeholder_read_name(int fd, int *type, uint64_t *unique)
{
	struct sockaddr_un un = {.sun_family = 0};
	socklen_t len = sizeof(un) - 1; /* the last byte stays 0 */
	char *rest;

	if (PD_SYS_3(SYS_getsockname, fd, &un, &len) < 0 || un.sun_family != AF_UNIX ||
	    un.sun_path[0] ||
	    memcmp(un.sun_path + 1, PD_PLACEHOLDER_NAME, sizeof(PD_PLACEHOLDER_NAME) - 1))
		return false;
	*type = (int)strtol(un.sun_path + sizeof(PD_PLACEHOLDER_NAME), &rest, 10);
	if ((*type != SOCK_RAW && *type != SOCK_DGRAM) || *rest != '/')
		return false;
	*unique = strtoull(rest + 1, NULL, 16);
	return true;
}

/* An int option of the placeholder, 0 when it cannot be read. */
static int pd_placeholder_get(int fd, int name)
{
	socklen_t len = sizeof(int);
	int value = 0;

	return pd_sys_getsockopt(fd, SOL_SOCKET, name, &value, &len) < 0 ? 0 : value;
}

/* A timeout of the placeholder. */
static uint64_t pd_placeholder_get_time(int fd, int name)
{
	struct timeval tv = {0, 0};
	socklen_t len = sizeof(tv);

	if (pd_sys_getsockopt(fd, SOL_SOCKET, name, &tv, &len) < 0)
		return 0;
	return (uint64_t)tv.tv_sec * PD_NS_PER_SEC + (uint64_t)tv.tv_usec * PD_NS_PER_US;
}

/* The socket that was recovered under another number with this name, with a reference, or NULL. */
static struct pd_sock *pd_placeholder_twin(uint64_t unique)
{
	struct pd_sock *sk;
	int fd;

	for (fd = pd_fd_next(0, UINT32_MAX, false); fd >= 0;
	     fd = pd_fd_next((uint32_t)fd + 1, UINT32_MAX, false)) {
		sk = pd_fd_get(fd);
		if (sk && sk->kind == PD_SOCK_PACKET && pd_packet_of(sk)->unique == unique)
			return sk;
		if (sk)
			pd_fd_put(sk);
	}
	return NULL;
}

/* Make `fd` a packet socket again if it is a placeholder. */
static void pd_placeholder_recover_one(void *unused, int fd)
{
	uint32_t noted, ifindex;
	struct pd_packet *s;
	struct pd_sock *sk;
	uint64_t unique;
	int type, ret;

	if (!pd_placeholder_read_name(fd, &type, &unique))
		return;
	sk = pd_placeholder_twin(unique);
	if (sk) {
		pd_fd_install(fd, sk);
		pd_fd_put(sk);
		return;
	}
	noted = (uint32_t)pd_placeholder_get(fd, SO_PEEK_OFF);
	ifindex = (uint32_t)pd_placeholder_get(fd, SO_RCVLOWAT);
	if (ifindex > 1 && !pd_port_by_ifindex(ifindex)) {
		pd_warn("packet", "fd %d was bound to a port that this program does not have", fd);
		return;
	}
	ret = pd_packet_new(fd, type, (uint16_t)noted, &sk);
	if (ret) {
		pd_err("packet", "fd %d cannot be taken over after exec: %s", fd, pd_strerror(ret));
		return;
	}
	s = pd_packet_of(sk);
	s->unique = unique;
	s->port = pd_port_by_ifindex(ifindex);
	pd_placeholder_set_options(s, noted >> 16);
	s->receive_timeout_ns = pd_placeholder_get_time(fd, SO_RCVTIMEO);
	s->send_timeout_ns = pd_placeholder_get_time(fd, SO_SNDTIMEO);
	pd_fetch_or(&sk->flags, (uint32_t)(pd_sys_fcntl(fd, F_GETFL, 0) & O_NONBLOCK));
	pd_debug("packet", "fd %d is a packet socket from before exec", fd);
	pd_sock_put(sk);
}

void pd_placeholder_recover(void)
{
	pd_fd_each_open(pd_placeholder_recover_one, NULL);
}
