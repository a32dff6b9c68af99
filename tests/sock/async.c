/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Cancels threads of PTHREAD_CANCEL_ASYNCHRONOUS that use packet sockets as fast as they can: NAME1
 * NAME2 are two joined interfaces. After each one a frame passes: no lock was left held. Prints a
 * line per kind of call.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "pair.h"

static int ep, began;

static void move(void)
{
	unsigned char buf[64];

	send(a, frame, sizeof(frame), MSG_DONTWAIT);
	recv(b, buf, sizeof(buf), MSG_DONTWAIT);
}

static void look(void)
{
	struct pollfd p[2] = {{b, POLLIN, 0}, {a, POLLOUT, 0}};
	struct epoll_event ev;

	poll(p, 2, 0);
	epoll_wait(ep, &ev, 1, 0);
}

static void sleeping(void)
{
	unsigned char buf[64];

	recv(b, buf, sizeof(buf), 0);
}

static void *thread(void *arg)
{
	void (*call)(void) = *(void (**)(void))arg;
	int old;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
	__atomic_store_n(&began, old == PTHREAD_CANCEL_DEFERRED ? 1 : -1, __ATOMIC_RELEASE);
	for (;;)
		call();
	return NULL;
}

/*
 * Cancel a thread in `call` soon after its start, at different moments; true when each one ended so
 * and frames pass.
 */
static int cancel(void (*call)(void), int rounds)
{
	for (int i = 0; i < rounds; i++) {
		struct timespec pause = {0, i % 50 * 1009}, until;
		pthread_t t;
		void *result;
		int at;

		__atomic_store_n(&began, 0, __ATOMIC_RELAXED);
		pthread_create(&t, NULL, thread, &call);
		while (!(at = __atomic_load_n(&began, __ATOMIC_ACQUIRE)))
			;
		nanosleep(&pause, NULL);
		pthread_cancel(t);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += 10;
		if (at != 1 || pthread_timedjoin_np(t, &result, &until) ||
		    result != PTHREAD_CANCELED)
			return 0;
		alarm(10); /* a lock that is held would keep us for ever */
		if (!passes())
			return 0;
		alarm(0);
	}
	return 1;
}

int main(int argc, char **argv)
{
	struct epoll_event ev = {.events = EPOLLIN};

	if (argc != 3)
		return 2;
	open_pair(argv[1], argv[2]);
	ep = epoll_create1(0);
	epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev);
	printf("move %d\n", cancel(move, 400));
	printf("look %d\n", cancel(look, 400));
	printf("sleep %d\n", cancel(sleeping, 50));
	return 0;
}
