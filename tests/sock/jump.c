/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A handler jumps out of each call that sleeps on a packet socket, and its thread ends: by
 * pthread_exit, cancelled, or by returning. NAME1 NAME2 are two joined interfaces; "kernel" is an
 * epoll of nothing. Prints a line per call: whether all threads ended as they should with their own
 * cleanup handlers run, and whether frames still pass.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
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
static sem_t jumped;
static sigjmp_buf back;

/* On an epoll of `fd`, or of nothing. */
static void wait_epoll_of(int fd)
{
	static int ep = -1;
	struct epoll_event ev = {.events = EPOLLIN};

	close(ep);
	ep = epoll_create1(0);
	if (fd >= 0)
		epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	epoll_wait(ep, &ev, 1, -1);
}

static void wait_epoll(void)
{
	wait_epoll_of(b);
}

static void wait_kernel(void)
{
	wait_epoll_of(-1);
}

static void handler(int sig)
{
	(void)sig;
	siglongjmp(back, 1);
}

/* Put something else where the sleep stood. */
static __attribute__((noinline)) void overwrite(void)
{
	volatile unsigned char stack[16384];

	for (size_t i = 0; i < sizeof(stack); i++)
		stack[i] = 0xee;
}

static void cleanup(void *arg)
{
	(void)arg;
	cleaned++;
}

/* How a thread ends. */
enum { EXITS, IS_CANCELLED, RETURNS, ENDS };

struct job {
	void (*call)(void);
	int end;
};

static void *thread(void *arg)
{
	const struct job *job = arg;

	pthread_cleanup_push(cleanup, NULL);
	if (!sigsetjmp(back, 1)) {
		sem_post(&jumped);
		job->call();
		exit(3);
	}
	overwrite();
	sem_post(&jumped);
	if (job->end == EXITS)
		pthread_exit(PTHREAD_CANCELED);
	while (job->end == IS_CANCELLED)
		pause();
	pthread_cleanup_pop(1);
	return PTHREAD_CANCELED;
}

/*
 * Have a handler jump out of `call` soon after its start, at different moments; true when each
 * thread ended well.
 */
static int jump(void (*call)(void))
{
	for (int i = 0; i < 12; i++) {
		struct timespec pause = {0, i * 300000}, until;
		struct job job = {call, i % ENDS};
		pthread_t t;
		void *result;

		cleaned = 0;
		pthread_create(&t, NULL, thread, &job);
		sem_wait(&jumped);
		nanosleep(&pause, NULL);
		pthread_kill(t, SIGUSR1);
		sem_wait(&jumped);
		if (job.end == IS_CANCELLED)
			pthread_cancel(t);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += 10;
		if (pthread_timedjoin_np(t, &result, &until) || result != PTHREAD_CANCELED ||
		    cleaned != 1)
			return 0;
	}
	return 1;
}

int main(int argc, char **argv)
{
	static const struct way ways[] = {{"recv", wait_recv},    {"recvmmsg", wait_recvmmsg},
					  {"poll", wait_poll},    {"select", wait_select},
					  {"epoll", wait_epoll},  {"send", wait_send},
					  {"kernel", wait_kernel}};

	if (argc != 3)
		return 2;
	sem_init(&jumped, 0, 0);
	signal(SIGUSR1, handler);
	end_each(argv[1], argv[2], ways, sizeof(ways) / sizeof(*ways), jump);
	return 0;
}
