/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ways to sleep on a packet socket, for programs that end such sleeps: cancel.c, jump.c. `a` and `b` are sockets on the two ports of
 * a loop, which main opens.
 */
#ifndef PD_TESTS_SOCK_SLEEPS_H
#define PD_TESTS_SOCK_SLEEPS_H

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

/* A way to sleep. */
struct way {
	const char *name;
	void (*call)(void);
};

static int a, b;
static unsigned char frame[64] = {255, 255, 255, 255, 255, 255, [12] = 0x88, [13] = 0xb5};

/* A packet socket on the port `name`; ends the program when it cannot be had. */
static int packet(const char *name)
{
	struct sockaddr_ll addr = {.sll_family = AF_PACKET, .sll_protocol = htons(0x88b5)};
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	addr.sll_ifindex = (int)if_nametoindex(name);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		exit(2);
	return fd;
}

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

/* One frame from a to b, with nothing in front of it. */
static int passes(void)
{
	struct pollfd p = {b, POLLIN, 0};
	unsigned char buf[64];

	while (recv(b, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	return send(a, frame, sizeof(frame), 0) == sizeof(frame) && poll(&p, 1, 10000) == 1 &&
	       recv(b, buf, sizeof(buf), 0) == sizeof(buf);
}

/* Have sleeps of each of `n` ways ended on new sockets of two ports; prints what `end` answers, and whether a frame passes then. */
static void end_each(const char *port_a, const char *port_b, const struct way *ways, size_t n,
		     int (*end)(void (*call)(void)))
{
	for (size_t i = 0; i < n; i++) {
		a = packet(port_a);
		b = packet(port_b);
		printf("%s %d %d\n", ways[i].name, end(ways[i].call), passes());
		fflush(stdout);
		close(a);
		close(b);
	}
}

#endif /* PD_TESTS_SOCK_SLEEPS_H */
