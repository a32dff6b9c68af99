/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads, epolls and sockets in a muddle, for a number of rounds: no wake-up may be lost, no frame
 * may come twice or out of order, nothing may crash. Run it under the preload with a loop pair
 * pd0/pd1; any program of libc would do.
 *
 *   stress wake ROUNDS     each frame is sent after the one before was answered, to a thread that waits by recv, poll, select or
 *                          epoll: a wake-up that is lost is a hang, which the alarm reports
 *   stress churn ROUNDS    threads open, bind, copy, close, poll and add to epolls at random, on numbers that they share
 *   stress longjmp ROUNDS  handlers leave a sleep by longjmp, threads end in their sleep
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef STRESS_DIRECT
#	include "direct.h"
#endif
#include "raw.h"

#define WAITERS 6
#define CHURNERS 6
#define NUMBERS 12
#define PROTO_BASE 0x9000

static unsigned rounds;

/* Send frame `n` of `proto`. */
static void put(int fd, uint16_t proto, uint32_t n)
{
	uint8_t frame[64] = {255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1};
	ssize_t ret;

	frame[12] = (uint8_t)(proto >> 8);
	frame[13] = (uint8_t)proto;
	memcpy(frame + 14, &n, sizeof(n));
	do
		ret = send(fd, frame, sizeof(frame), 0);
	while (ret < 0 && errno == EINTR);
	CHECK(ret == sizeof(frame));
}

/* --- wake ----------------------------------------------------------------------------------- */

struct waiter {
	pthread_t thread;
	int index;
	uint16_t proto;
	int in, out; /* receives frames of proto on pd1, answers on pd1 */
	int epfd[2]; /* the second holds the first */
};

/* Wait in one of the ways there are. */
static void wait_for(struct waiter *w, unsigned way)
{
	struct pollfd p = {.fd = w->in, .events = POLLIN};
	struct epoll_event e;
	fd_set set;

	switch (way % 6) {
	case 0: /* recv itself blocks */
		break;
	case 1:
		CHECK(poll(&p, 1, -1) == 1 && p.revents == POLLIN);
		break;
	case 2:
		FD_ZERO(&set);
		FD_SET(w->in, &set);
		CHECK(select(w->in + 1, &set, NULL, NULL, NULL) == 1 && FD_ISSET(w->in, &set));
		break;
	case 3:
		CHECK(epoll_wait(w->epfd[0], &e, 1, -1) == 1 && e.events == EPOLLIN);
		break;
	case 4:
		CHECK(epoll_wait(w->epfd[1], &e, 1, -1) == 1 && e.events == EPOLLIN);
		break;
	case 5:
		p.fd = w->epfd[1];
		CHECK(poll(&p, 1, -1) == 1);
		break;
	}
}

/* One waiter: each frame is answered by one of the same number. */
static void *waiter(void *arg)
{
	struct waiter *w = arg;
	uint8_t frame[100];
	uint32_t n;

	for (unsigned i = 0; i < rounds; i++) {
		wait_for(w, (unsigned)w->index + i / 7);
		CHECK(recv(w->in, frame, sizeof(frame), 0) == 64);
		memcpy(&n, frame + 14, sizeof(n));
		CHECK(n == i);
		put(w->out, w->proto, n);
	}
	return NULL;
}

static void run_wake(void)
{
	struct epoll_event e = {.events = EPOLLIN}, got[4];
	int answers = epoll_create1(0), out = packet("pd0", 0);
	unsigned sent[WAITERS] = {0}, left = WAITERS;
	struct waiter w[WAITERS];
	int in[WAITERS];

	for (int i = 0; i < WAITERS; i++) {
		w[i] = (struct waiter){.index = i, .proto = (uint16_t)(PROTO_BASE + i)};
		w[i].in = packet("pd1", w[i].proto);
		w[i].out = packet("pd1", 0);
		in[i] = packet("pd0", w[i].proto);
		w[i].epfd[0] = epoll_create1(0);
		w[i].epfd[1] = epoll_create1(0);
		CHECK(!epoll_ctl(w[i].epfd[0], EPOLL_CTL_ADD, w[i].in, &e));
		CHECK(!epoll_ctl(w[i].epfd[1], EPOLL_CTL_ADD, w[i].epfd[0], &e));
		e.events = i & 1 ? EPOLLIN | EPOLLET : EPOLLIN;
		e.data.u32 = (uint32_t)i;
		CHECK(!epoll_ctl(answers, EPOLL_CTL_ADD, in[i], &e));
		e.events = EPOLLIN;
	}
	for (int i = 0; i < WAITERS; i++)
		CHECK(!pthread_create(&w[i].thread, NULL, waiter, &w[i]));
	for (int i = 0; i < WAITERS; i++)
		put(out, w[i].proto, 0);
	while (left) {
		int n = epoll_wait(answers, got, 4, -1);

		CHECK(n > 0);
		for (int k = 0; k < n; k++) {
			unsigned i = got[k].data.u32;
			uint8_t frame[100];
			uint32_t number;

			/* An edge may be told of twice, never not at all. */
			if (recv(in[i], frame, sizeof(frame), MSG_DONTWAIT) != 64) {
				CHECK(errno == EAGAIN);
				continue;
			}
			memcpy(&number, frame + 14, sizeof(number));
			CHECK(number == sent[i]);
			if (++sent[i] < rounds)
				put(out, w[i].proto, sent[i]);
			else
				left--;
		}
	}
	for (int i = 0; i < WAITERS; i++)
		pthread_join(w[i].thread, NULL);
	/*
	 * All closed: an object that stays is a leak, and the sanitizer does not see the descriptor
	 * table.
	 */
	for (int i = 0; i < WAITERS; i++) {
		close(w[i].in);
		close(w[i].out);
		close(in[i]);
		close(w[i].epfd[0]);
		close(w[i].epfd[1]);
	}
	close(answers);
	close(out);
}

/* --- churn ---------------------------------------------------------------------------------- */

static int numbers[NUMBERS]; /* descriptors that any thread may use or close */
static int epolls[2];

/* A pseudo-random number below `n`; xorshift. */
static unsigned below(uint32_t *state, unsigned n)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state % n;
}

/* One step of a thread: whatever comes back is right, as long as it does come back. */
static void churn_step(uint32_t *rnd)
{
	int slot = (int)below(rnd, NUMBERS), fd = __atomic_load_n(&numbers[slot], __ATOMIC_RELAXED);
	struct epoll_event e = {.events = EPOLLIN | (below(rnd, 2) ? EPOLLET : 0)}, got[8];
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
	uint8_t frame[64] = {255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 0x90, 0};
	int ep = epolls[below(rnd, 2)], made, on = 1;

	switch (below(rnd, 10)) {
	case 0:
	case 1: /* a new socket takes the slot, the old one is closed */
		made = packet(below(rnd, 2) ? "pd0" : "pd1",
			      (uint16_t)(below(rnd, 3) ? ETH_P_ALL : PROTO_BASE));
		made = __atomic_exchange_n(&numbers[slot], made, __ATOMIC_RELAXED);
		if (made >= 0)
			close(made);
		break;
	case 2: /* a copy takes the slot */
		made = __atomic_exchange_n(&numbers[slot], dup(fd), __ATOMIC_RELAXED);
		if (made >= 0)
			close(made);
		break;
	case 3:
		send(fd, frame, sizeof(frame), MSG_DONTWAIT);
		break;
	case 4:
		recv(fd, frame, sizeof(frame), MSG_DONTWAIT | (below(rnd, 3) ? 0 : MSG_PEEK));
		break;
	case 5:
		poll(&p, 1, (int)below(rnd, 2));
		break;
	case 6:
		epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
		break;
	case 7:
		epoll_ctl(ep, below(rnd, 2) ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, fd, &e);
		break;
	case 8:
		epoll_wait(ep, got, 8, (int)below(rnd, 3));
		break;
	case 9:
		setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on));
		ioctl(fd, FIONREAD, &made);
		break;
	}
}

static void *churner(void *arg)
{
	uint32_t rnd = (uint32_t)(uintptr_t)arg * 2654435761u + 1;

	for (unsigned i = 0; i < rounds; i++)
		churn_step(&rnd);
	return NULL;
}

static void run_churn(void)
{
	pthread_t t[CHURNERS];

	for (int i = 0; i < NUMBERS; i++)
		numbers[i] = packet(i & 1 ? "pd0" : "pd1", ETH_P_ALL);
	epolls[0] = epoll_create1(0);
	epolls[1] = epoll_create1(0);
	for (int i = 0; i < CHURNERS; i++)
		CHECK(!pthread_create(&t[i], NULL, churner, (void *)(uintptr_t)(i + 1)));
	for (int i = 0; i < CHURNERS; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < NUMBERS; i++)
		if (numbers[i] >= 0)
			close(numbers[i]);
	close(epolls[0]);
	close(epolls[1]);
}

#ifndef STRESS_DIRECT
/* --- longjmp -------------------------------------------------------------------------------- */

static sigjmp_buf away;
static int jump_fd;

/* Leaves the sleep for good. */
static void jump(int sig)
{
	siglongjmp(away, 1);
}

/* Waits in the handler, and comes back. */
static void nest(int sig)
{
	struct pollfd p = {.fd = jump_fd, .events = POLLIN};

	poll(&p, 1, 1);
}

static void *ends_asleep(void *arg)
{
	struct pollfd p = {.fd = jump_fd, .events = POLLIN};

	poll(&p, 1, -1);
	return NULL;
}

static void run_longjmp(void)
{
	int out = packet("pd0", 0);
	struct pollfd p;
	uint8_t frame[100];
	pthread_t t;

	jump_fd = packet("pd1", ETH_P_ALL);
	signal(SIGUSR1, nest);
	p = (struct pollfd){.fd = jump_fd, .events = POLLIN};
	for (volatile unsigned i = 0; i < rounds; i++) {
		signal(SIGALRM, i % 3 ? jump : nest);
		if (!sigsetjmp(away, 1)) {
			ualarm(300, 0);
			/* Deeper on the stack now and then. */
			if (i % 2 && i % 3)
				recv(jump_fd, frame, sizeof(frame), 0);
			poll(&p, 1, i % 3 ? -1 : 2);
		}
		ualarm(0, 0);
		CHECK(!pthread_create(&t, NULL, ends_asleep, NULL));
		if (i % 4)
			usleep(100);
		pthread_cancel(t);
		pthread_join(t, NULL);
		put(out, PROTO_BASE, i);
		CHECK(poll(&p, 1, -1) == 1);
		CHECK(recv(jump_fd, frame, sizeof(frame), MSG_DONTWAIT) == 64);
	}
}
#endif

#ifdef STRESS_DIRECT
/* Both muddles as one TAP test, in the process that the sanitizer watches. */
int main(void)
{
	direct_start("pd0=loop:pd1");
	puts("1..2");
	rounds = 300;
	run_wake();
	puts("ok 1 - no wake-up is lost");
	rounds = 1500;
	run_churn();
	puts("ok 2 - sockets come and go under epolls");
	return 0;
}
#else
int main(int argc, char **argv)
{
	CHECK(argc == 3);
	rounds = (unsigned)atoi(argv[2]);
	if (!strcmp(argv[1], "wake"))
		run_wake();
	else if (!strcmp(argv[1], "churn"))
		run_churn();
	else
		run_longjmp();
	puts("done");
	return 0;
}
#endif
