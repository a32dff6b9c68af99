/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Exits while other threads are inside calls on the ports NAME...: asleep in recv, poll, select and
 * epoll, spinning, and sending as fast as they can. `exiting SEED NAME...` ends with status 7, from
 * main or from a thread, after a moment that SEED gives.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static unsigned char frame[64] = {255, 255, 255, 255, 255, 255, [12] = 0x88, [13] = 0xb5};
static __thread const char *name;
static pthread_barrier_t begun;

/* What a thread does, on which port. */
struct job {
	void *(*body)(void *);
	const char *name;
	void *arg;
};

static void *work(void *arg)
{
	const struct job *job = arg;

	name = job->name;
	return job->body(job->arg);
}

static int packet(void)
{
	struct sockaddr_ll addr = {.sll_family = AF_PACKET, .sll_protocol = htons(0x88b5)};
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	addr.sll_ifindex = (int)if_nametoindex(name);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		_exit(2);
	return fd;
}

static void *receiver(void *arg)
{
	unsigned char buf[16][64];
	struct iovec iov[16];
	struct mmsghdr msgs[16] = {{{0}, 0}};
	int fd = packet();

	for (int i = 0; i < 16; i++) {
		iov[i] = (struct iovec){buf[i], 64};
		msgs[i].msg_hdr.msg_iov = &iov[i];
		msgs[i].msg_hdr.msg_iovlen = 1;
	}
	pthread_barrier_wait(&begun);
	for (;;)
		arg ? recv(fd, buf, 64, 0) : recvmmsg(fd, msgs, 16, 0, NULL);
	return NULL;
}

static void *sender(void *arg)
{
	int fd = packet();

	pthread_barrier_wait(&begun);
	for (;;)
		send(fd, frame, sizeof(frame), arg ? MSG_DONTWAIT : 0);
	return NULL;
}

static void *poller(void *arg)
{
	struct epoll_event ev = {.events = EPOLLIN};
	int fd = packet(), ep = epoll_create1(0);
	unsigned char buf[64];

	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	pthread_barrier_wait(&begun);
	for (unsigned i = 0;; i++) {
		struct pollfd p = {fd, POLLIN | (i & 1 ? POLLOUT : 0), 0};
		fd_set set;

		FD_ZERO(&set);
		FD_SET(fd, &set);
		if (i % 3 == 0)
			poll(&p, 1, -1);
		else if (i % 3 == 1)
			epoll_wait(ep, &ev, 1, -1);
		else
			select(fd + 1, &set, NULL, NULL, NULL);
		if (arg)
			recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	}
	return NULL;
}

/* Threads that open and close sockets also at the end. */
static void *opener(void *arg)
{
	(void)arg;
	pthread_barrier_wait(&begun);
	for (;;) {
		int fd = socket(AF_PACKET, SOCK_RAW, 0);

		send(fd, frame, sizeof(frame), 0);
		close(fd);
	}
	return NULL;
}

static unsigned pause_us;

static void *ender(void *arg)
{
	struct timespec pause = {0, pause_us * 1000};

	(void)arg;
	pthread_barrier_wait(&begun);
	nanosleep(&pause, NULL);
	exit(7);
}

int main(int argc, char **argv)
{
	static void *(*const bodies[])(void *) = {receiver, sender, poller, opener};
	unsigned seed = (unsigned)atoi(argv[1]);
	int names = argc - 2;
	pthread_t t;

	pause_us = seed * 37 % 2000;
	pthread_barrier_init(&begun, NULL, (unsigned)names * 8 + 1);
	for (int i = 0; i < names * 8; i++) {
		struct job *job = malloc(sizeof(*job));

		*job = (struct job){bodies[(i + (int)seed) % 4], argv[2 + i / 8],
				    i & 4 ? &begun : NULL};
		pthread_create(&t, NULL, work, job);
	}
	if (seed & 1) {
		pthread_create(&t, NULL, ender, NULL);
		pause();
	}
	ender(NULL);
}
