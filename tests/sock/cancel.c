/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Cancels threads that sleep on a packet socket, each call in turn: NAME1 NAME2 are two joined
 * interfaces. Then frames still pass, and the sockets can be closed and opened again. Prints a line
 * per call.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "sleeps.h"

static int cleaned;

static void wait_epoll(void)
{
	struct epoll_event ev = {.events = EPOLLIN};
	int ep = epoll_create1(0);

	epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev);
	epoll_wait(ep, &ev, 1, -1);
}

/* A cleanup handler uses the socket that the thread slept on. */
static void cleanup(void *arg)
{
	unsigned char buf[64];

	cleaned += recv(b, buf, sizeof(buf), MSG_DONTWAIT) < 0 || arg;
}

static void *thread(void *arg)
{
	void (*call)(void) = *(void (**)(void))arg;

	pthread_cleanup_push(cleanup, call == wait_send ? arg : NULL);
	call();
	pthread_cleanup_pop(0);
	return NULL;
}

/*
 * Cancel a thread in `call` soon after its start, at different moments; true when each one ended
 * so.
 */
static int cancel(void (*call)(void))
{
	for (int i = 0; i < 8; i++) {
		struct timespec pause = {0, i * 300000}, until;
		pthread_t t;
		void *result;

		cleaned = 0;
		pthread_create(&t, NULL, thread, &call);
		nanosleep(&pause, NULL);
		pthread_cancel(t);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += 10;
		if (pthread_timedjoin_np(t, &result, &until) || result != PTHREAD_CANCELED)
			return 0;
		if (i == 7 && !cleaned)
			return 0;
	}
	return 1;
}

int main(int argc, char **argv)
{
	static const struct way ways[] = {{"recv", wait_recv},   {"recvmmsg", wait_recvmmsg},
					  {"poll", wait_poll},   {"select", wait_select},
					  {"epoll", wait_epoll}, {"send", wait_send}};

	if (argc != 3)
		return 2;
	end_each(argv[1], argv[2], ways, sizeof(ways) / sizeof(*ways), cancel);
	return 0;
}
