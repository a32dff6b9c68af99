/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the example programs share: opening a packet socket, reading numbers, ending on a signal.
 *
 * Nothing here is special to libpalladium but the two socket options of ex_want_sidecars(). Without
 * the preload the programs run on an interface of the kernel, where frames have no sidecar.
 */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "palladium_extra.h"

#define EX_FRAME_BYTES 16384 /* room for any frame: the largest is 12,240 */
#define EX_BATCH_MAX 256
#define EX_TICK_MS 100 /* how often a waiting program looks at its stop flag and its clock */

static const char *ex_program; /* for messages */
static volatile sig_atomic_t ex_stopped;

static void ex_on_signal(int number)
{
	(void)number;
	ex_stopped = 1;
}

/* Remember the program's name and let SIGINT and SIGTERM end it in order. */
static inline void ex_start(const char *program)
{
	struct sigaction action = {.sa_handler = ex_on_signal}; /* no SA_RESTART: calls end */

	ex_program = program;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
}

/* Say what went wrong with `what`, from errno, and end. */
static inline void __attribute__((noreturn)) ex_fail(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", ex_program, what, strerror(errno));
	exit(1);
}

/* The number that the text of an option is; ends the program when it is none or out of range. */
static inline unsigned long long ex_number(const char *option, const char *text,
					   unsigned long long low, unsigned long long high)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno || end == text || *end || *text == '-' || value < low || value > high) {
		fprintf(stderr, "%s: %s %s: expected a number from %llu to %llu\n", ex_program,
			option, text, low, high);
		exit(2);
	}
	return value;
}

/* Nanoseconds of a clock that never goes back. */
static inline uint64_t ex_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/*
 * Open a packet socket for all frames of the port (or interface) `name`. Calls that wait for a
 * frame give up with EAGAIN after EX_TICK_MS, so that a loop around them sees the stop flag.
 */
static inline int ex_open_port(const char *name)
{
	struct timeval tick = {.tv_usec = EX_TICK_MS * 1000};
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)if_nametoindex(name),
	};
	/* Protocol 0: nothing comes in before bind says from where. */
	int fd = socket(AF_PACKET, SOCK_RAW, 0), on = 1;

	if (!address.sll_ifindex) {
		fprintf(stderr,
			"%s: there is no port or interface \"%s\"; ports come from PALLADIUM_PORTS "
			"or "
			"libpalladium.conf, under LD_PRELOAD=libpalladium.so\n",
			ex_program, name);
		exit(1);
	}
	if (fd < 0)
		ex_fail("socket");
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
		ex_fail(name);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof(tick)))
		ex_fail("SO_RCVTIMEO");
	/* What we send does not interest us; kernels before 4.20 do not know the option. */
	setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
	return fd;
}

/*
 * Ask for the sidecar of each frame, and for control messages too. Returns false when the socket is
 * the kernel's: it has none.
 */
static inline bool ex_want_sidecars(int fd)
{
	int on = 1;

	if (setsockopt(fd, SOL_PALLADIUM, PALLADIUM_RECV_METADATA, &on, sizeof(on)))
		return false;
	return !setsockopt(fd, SOL_PALLADIUM, PALLADIUM_RECV_CONTROL, &on, sizeof(on));
}

/*
 * A send failed; see to it that trying again makes sense. Returns after there was time for things
 * to change, or ends the program when they will not.
 */
static inline void ex_wait_to_send(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	switch (errno) {
	case EINTR:
		return;
	case EAGAIN: /* the peer's ring is full */
		poll(&p, 1, EX_TICK_MS);
		return;
	case ENETDOWN: /* the peer is away: it may come back */
		poll(NULL, 0, 10);
		return;
	case ENOBUFS: /* the kernel's queue is full, and poll would not tell */
		poll(NULL, 0, 1);
		return;
	default:
		ex_fail("send");
	}
}

#endif /* EXAMPLE_H */
