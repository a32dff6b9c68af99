/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pair of packet sockets, `a` and `b`, on two ports that are joined, and whether frames pass
 * between them.
 */
#ifndef PD_TESTS_SOCK_PAIR_H
#define PD_TESTS_SOCK_PAIR_H

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raw.h"

#define PAIR_PROTO 0x88b5

static int a, b;
static unsigned char frame[64] = {
	255, 255, 255, 255, 255, 255, [12] = PAIR_PROTO >> 8, [13] = PAIR_PROTO & 255};

/* Open both; ends the program when they cannot be had. */
static inline void open_pair(const char *port_a, const char *port_b)
{
	a = packet(port_a, PAIR_PROTO);
	b = packet(port_b, PAIR_PROTO);
}

static inline void close_pair(void)
{
	close(a);
	close(b);
}

/* One frame from a to b, with nothing in front of it. */
static inline int passes(void)
{
	struct pollfd p = {b, POLLIN, 0};
	unsigned char buf[sizeof(frame)];

	while (recv(b, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	return send(a, frame, sizeof(frame), 0) == sizeof(frame) && poll(&p, 1, 10000) == 1 &&
	       recv(b, buf, sizeof(buf), 0) == sizeof(buf);
}

#endif /* PD_TESTS_SOCK_PAIR_H */
