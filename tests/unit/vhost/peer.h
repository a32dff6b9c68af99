/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A scripted peer for the tests of the vhost transport: plain blocking socket calls on its side,
 * while the library's side is turned by pd_progress_run_once in the same thread.
 */
#ifndef TESTS_UNIT_VHOST_PEER_H
#define TESTS_UNIT_VHOST_PEER_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "transport/transport.h"
#include "transport/vhost/wire.h"
#include "vlib/progress.h"

/* Descriptors that are open in this process. */
static inline int fd_count(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* Turn the progress loop until nothing more happens at once. */
static inline void turn(void)
{
	for (int quiet = 0; quiet < 2;)
		quiet = pd_progress_run_once(0) > 0 ? 0 : quiet + 1;
}

/* Turn the progress loop until `cond`, for ten seconds at most: then the test fails. */
#define turn_until(cond)                                             \
	do {                                                         \
		uint64_t until = pd_clock_ns() + 10 * PD_NS_PER_SEC; \
		while (!(cond)) {                                    \
			assert_true(pd_clock_ns() < until);          \
			pd_progress_run_once(10);                    \
		}                                                    \
	} while (0)

/* Send `n` bytes with `n_fds` descriptors. */
static inline void peer_send_bytes(int sock, const void *bytes, size_t n, const int *fds,
				   unsigned n_fds)
{
	char control[CMSG_SPACE(256 * sizeof(int))];
	struct iovec iov = {(void *)(uintptr_t)bytes, n};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n_fds) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		memset(control, 0, sizeof(control));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
		mh.msg_control = control;
		mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	assert_int_equal(sendmsg(sock, &mh, MSG_NOSIGNAL), n);
}

/* Send a message. */
static inline void peer_send(int sock, uint32_t request, uint32_t flags, const void *payload,
			     uint32_t size, const int *fds, unsigned n_fds)
{
	struct {
		struct pd_vhost_header hdr;
		uint8_t payload[1024];
	} PD_PACKED msg = {.hdr = {request, flags | PD_VHOST_VERSION, size}};

	if (size)
		memcpy(msg.payload, payload, size);
	peer_send_bytes(sock, &msg, sizeof(msg.hdr) + size, fds, n_fds);
}

static inline void peer_u64(int sock, uint32_t request, uint64_t value)
{
	peer_send(sock, request, 0, &value, sizeof(value), NULL, 0);
}

static inline void peer_state(int sock, uint32_t request, uint32_t index, uint32_t num)
{
	struct pd_vhost_vring_state state = {index, num};

	peer_send(sock, request, 0, &state, sizeof(state), NULL, 0);
}

/* KICK or CALL with a descriptor; -1: with the no-fd bit instead. */
static inline void peer_fd(int sock, uint32_t request, uint32_t index, int fd)
{
	uint64_t value = index | (fd < 0 ? PD_VHOST_VRING_NOFD : 0);

	peer_send(sock, request, 0, &value, sizeof(value), &fd, fd >= 0);
}

/* True when the library's side has closed the connection. */
static inline bool peer_closed(int sock)
{
	struct pollfd p = {.fd = sock};

	turn();
	poll(&p, 1, 0);
	return p.revents & (POLLHUP | POLLERR);
}

/* Read a message: header and up to `size` payload bytes. Returns the payload's size. */
static inline uint32_t peer_recv(int sock, struct pd_vhost_header *hdr, void *payload,
				 uint32_t size)
{
	turn();
	assert_int_equal(recv(sock, hdr, sizeof(*hdr), MSG_DONTWAIT), sizeof(*hdr));
	assert_true(hdr->size <= size);
	if (hdr->size)
		assert_int_equal(recv(sock, payload, hdr->size, MSG_DONTWAIT), hdr->size);
	return hdr->size;
}

/* Read the answer to `request`: one number. */
static inline uint64_t peer_reply(int sock, uint32_t request)
{
	struct pd_vhost_header hdr;
	uint64_t value = 0;

	assert_int_equal(peer_recv(sock, &hdr, &value, sizeof(value)), sizeof(value));
	assert_int_equal(hdr.request, request);
	assert_int_equal(hdr.flags, PD_VHOST_VERSION | PD_VHOST_REPLY);
	return value;
}

/* Ask, and read the answer. */
static inline uint64_t peer_ask(int sock, uint32_t request)
{
	peer_send(sock, request, 0, "", 0, NULL, 0);
	return peer_reply(sock, request);
}

/* Connect to `path`, with blocking calls. */
static inline int peer_connect(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	memcpy(addr.sun_path, path, strlen(path));
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

/* A directory of the test's own, with the path of a socket in it. */
static char peer_dir[64], peer_path[96];

static inline void peer_dir_make(void)
{
	snprintf(peer_dir, sizeof(peer_dir), "/tmp/pd-vhost-XXXXXX");
	assert_non_null(mkdtemp(peer_dir));
	snprintf(peer_path, sizeof(peer_path), "%s/s", peer_dir);
}

static inline void peer_dir_remove(void)
{
	unlink(peer_path);
	assert_int_equal(rmdir(peer_dir), 0);
}

/* Make `n` vhost-user ports pd0, pd1, ... on peer_path. */
static struct pd_config peer_config;

static inline void peer_ports(unsigned n, enum pd_conf_mode mode, enum pd_conf_side role,
			      unsigned queues)
{
	memset(&peer_config, 0, sizeof(peer_config));
	peer_config.port_count = n;
	for (unsigned i = 0; i < n; i++) {
		struct pd_port_config *pc = &peer_config.ports[i];

		snprintf(pc->name, sizeof(pc->name), "pd%u", i);
		snprintf(pc->transport, sizeof(pc->transport), "vhost-user");
		snprintf(pc->path, sizeof(pc->path), "%s", peer_path);
		pc->mode = mode;
		pc->role = role;
		pc->mergeable = true;
		pc->in_order = true;
		pc->mtu = 1500;
		pc->queues = queues;
		pc->ring = 64;
	}
	pd_progress_set_manual(true);
	assert_int_equal(pd_ports_init(&peer_config), 0);
}

#endif /* TESTS_UNIT_VHOST_PEER_H */
