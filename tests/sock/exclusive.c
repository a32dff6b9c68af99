/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads asleep in epolls of their own, exclusive members all, of whom one ends its wait in the
 * moment a frame comes: it is cancelled, interrupted, at the end of its time, or its epoll loses
 * the socket. One of the others has to be told. NAME1 NAME2 are two joined interfaces. Prints a
 * line for each way to end: 1 when every frame was told of.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "sleeps.h"

#define THREADS 4
#define FRAMES 300
#define LOST_MS 20000

enum how { CANCELLED, INTERRUPTED, TIMED_OUT, TAKEN_OUT, HOWS };

static struct {
	pthread_t thread;
	int epoll;
	int timeout_ms;
} all[THREADS];
static int told;   /* waits that ended with the frame */
static int asleep; /* threads that are about to sleep */

static void *sleeper(void *arg)
{
	int me = (int)(long)arg, n;
	struct epoll_event event;

	__atomic_fetch_add(&asleep, 1, __ATOMIC_RELEASE);
	n = epoll_wait(all[me].epoll, &event, 1, all[me].timeout_ms);
	if (n == 1)
		__atomic_fetch_add(&told, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void on_signal(int sig)
{
}

static void nap(long ns)
{
	struct timespec ts = {0, ns};

	nanosleep(&ts, NULL);
}

/* End the first sleeper's wait; its time ends by itself. */
static void end_one(enum how how)
{
	if (how == CANCELLED)
		pthread_cancel(all[0].thread);
	else if (how == INTERRUPTED)
		pthread_kill(all[0].thread, SIGUSR1);
	else if (how == TAKEN_OUT)
		epoll_ctl(all[0].epoll, EPOLL_CTL_DEL, b, NULL);
}

/* One frame, while the first sleeper ends. True when somebody was told. */
static int one_frame(enum how how, int i)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE};
	unsigned char buf[64];
	int ok;

	asleep = told = 0;
	for (int t = 0; t < THREADS; t++) {
		all[t].epoll = epoll_create1(0);
		all[t].timeout_ms = how == TIMED_OUT && !t ? 1 : LOST_MS;
		epoll_ctl(all[t].epoll, EPOLL_CTL_ADD, b, &event);
		pthread_create(&all[t].thread, NULL, sleeper, (void *)(long)t);
	}
	while (__atomic_load_n(&asleep, __ATOMIC_ACQUIRE) < THREADS)
		sched_yield();
	/* Mostly they are asleep by now; now the one, now the other comes first. */
	nap(how == TIMED_OUT ? 700000 + i % 50 * 10000 : 100000);
	if (i % 2)
		end_one(how);
	send(a, frame, sizeof(frame), 0);
	if (i % 2 == 0)
		end_one(how);
	for (int ms = 0; ms < LOST_MS / 2 && !__atomic_load_n(&told, __ATOMIC_ACQUIRE); ms++)
		nap(1000000);
	ok = told >= 1;
	/* Those that are still asleep; a cancelled thread may have ended well before. */
	for (int t = 0; t < THREADS; t++)
		pthread_cancel(all[t].thread);
	for (int t = 0; t < THREADS; t++) {
		pthread_join(all[t].thread, NULL);
		close(all[t].epoll);
	}
	recv(b, buf, sizeof(buf), 0);
	return ok;
}

int main(int argc, char **argv)
{
	static const char *const names[HOWS] = {"cancelled", "interrupted", "timed out",
						"taken out"};
	struct sigaction action = {.sa_handler = on_signal};

	if (argc != 3)
		return 2;
	sigaction(SIGUSR1, &action, NULL);
	open_pair(argv[1], argv[2]);
	for (int how = 0; how < HOWS; how++) {
		int ok = 1;

		for (int i = 0; ok && i < FRAMES; i++)
			ok = one_frame((enum how)how, i);
		printf("%s %d\n", names[how], ok);
		fflush(stdout);
	}
	return 0;
}
