/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the C programs for the preload share: a check that ends them, and a packet socket. Include
 * it behind direct.h, whose names for the calls it takes.
 */
#ifndef TESTS_SOCK_RAW_H
#define TESTS_SOCK_RAW_H

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define CHECK(cond)                                                                          \
	do {                                                                                 \
		if (!(cond)) {                                                               \
			fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #cond, \
				errno);                                                      \
			abort();                                                             \
		}                                                                            \
	} while (0)

/* A packet socket on `port` for one protocol. */
static inline int packet(const char *port, uint16_t proto)
{
	struct sockaddr_ll ll = {.sll_family = AF_PACKET, .sll_protocol = htons(proto)};
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	ll.sll_ifindex = (int)if_nametoindex(port);
	CHECK(fd >= 0 && ll.sll_ifindex);
	CHECK(!bind(fd, (struct sockaddr *)&ll, sizeof(ll)));
	return fd;
}

#endif /* TESTS_SOCK_RAW_H */
