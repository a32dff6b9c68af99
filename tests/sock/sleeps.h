/* SPDX-License-Identifier: BSD-2-Clause */
/* Ways to sleep on a packet socket, for programs that end such sleeps: cancel.c, jump.c. */
#ifndef PD_TESTS_SOCK_SLEEPS_H
#define PD_TESTS_SOCK_SLEEPS_H

#include <poll.h>
#include <stdio.h>
#include <sys/select.h>
#include <sys/socket.h>

#include "pair.h"

/* A way to sleep. */
struct way {
	const char *name;
	void (*call)(void);
};

/* The calls that sleep: each until a frame comes to `b`, or for ever. */
static void wait_recv(void)
{
	unsigned char buf[64];

	recv(b, buf, sizeof(buf), 0);
}

static void wait_recvmmsg(void)
{
	unsigned char buf[64];
	struct iovec iov = {buf, sizeof(buf)};
	struct mmsghdr msg = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};

	recvmmsg(b, &msg, 1, 0, NULL);
}

static void wait_poll(void)
{
	struct pollfd p[2] = {{b, POLLIN, 0}, {b, POLLIN, 0}};

	poll(p, 2, -1);
}

static void wait_select(void)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(b, &set);
	select(b + 1, &set, NULL, NULL, NULL);
}

/* Sleeps once the ring of `a` is full. */
static void wait_send(void)
{
	for (;;)
		send(a, frame, sizeof(frame), 0);
}

/*
 * Have sleeps of each of `n` ways ended on new sockets of two ports; prints what `end` answers, and
 * whether a frame passes then.
 */
static void end_each(const char *port_a, const char *port_b, const struct way *ways, size_t n,
		     int (*end)(void (*call)(void)))
{
	for (size_t i = 0; i < n; i++) {
		open_pair(port_a, port_b);
		printf("%s %d %d\n", ways[i].name, end(ways[i].call), passes());
		fflush(stdout);
		close_pair();
	}
}

#endif /* PD_TESTS_SOCK_SLEEPS_H */
