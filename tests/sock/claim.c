/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program that dup2s a file of its own onto every number that it finds open and has not opened
 * itself, over and over, while its threads exchange frames, each waiting in another way. Run it
 * under the preload; any program of libc would do.
 *
 *   claim ping PORT ROUNDS      four threads send a frame and wait for its answer
 *   claim echo PORT             four threads answer, until they are told that it is over
 *   claim both PORT PORT ROUNDS the two in one process
 *   claim takeover PORT PORT ROUNDS  the numbers are claimed between the moments of an epoll that gets its first packet socket while a
 *                               thread sleeps in it
 *
 * The file is a socket: never readable, so that a wake-up which looks at it instead of what was
 * there is lost, and a hang, which the alarm reports; and what goes into it comes out at its other
 * end.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raw.h"

#define WAYS 4 /* recv, poll, select, epoll */
#define PROTO_BASE 0x9000
#define OVER UINT32_MAX
#define NUMBERS 8192

static bool mine[NUMBERS];   /* numbers that this program knows */
static int file, witness;    /* what it puts at the others, and its other end */
static int claimed[NUMBERS]; /* the others that it has now */
static unsigned n_claimed;
static uint32_t rounds, running;
static bool answered; /* a frame has come back: there is a link, with all its descriptors */

/* Remember `fd` as one of ours. */
static int note(int fd)
{
	CHECK(fd >= 0 && fd < NUMBERS);
	mine[fd] = true;
	return fd;
}

/* --- claiming ------------------------------------------------------------------------------- */

/* Put our file at `number`. */
static void claim(int number)
{
	CHECK(dup2(file, number) == number);
}

/* Claim every number that is open and not ours; how many. */
static unsigned claim_all(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *d;

	CHECK(dir);
	while ((d = readdir(dir))) {
		int number = atoi(d->d_name);

		if (*d->d_name != '.' && !mine[number] && number != dirfd(dir))
			claimed[n_claimed++] = number;
	}
	closedir(dir);
	for (unsigned i = 0; i < n_claimed; i++) {
		/*
		 * A low number may be that of a descriptor that is being made, which nobody is kept
		 * from closing.
		 */
		CHECK(claimed[i] < 256 || (close(claimed[i]) < 0 && errno == EBADF));
		claim(claimed[i]);
	}
	return n_claimed;
}

/*
 * True when `number` is not open. One that we gave back may be that of a descriptor the library is
 * making just now, which is seen until it is made; one that stays is seen every time.
 */
static bool gone(int number)
{
	for (unsigned i = 0; i < 1000000; i++) {
		if (fcntl(number, F_GETFD) < 0 && errno == EBADF)
			return true;
		sched_yield();
	}
	return false;
}

/* What was claimed is ours still; give it back. */
static void give_back(void)
{
	struct stat st, there;

	CHECK(!fstat(file, &st));
	while (n_claimed) {
		int number = claimed[--n_claimed];

		CHECK(!fstat(number, &there) && st.st_ino == there.st_ino);
		CHECK(!close(number));
		CHECK(number < 256 || gone(number));
	}
}

/* --- traffic -------------------------------------------------------------------------------- */

struct peer {
	pthread_t thread;
	unsigned way;
	bool asks; /* or answers */
	int fd, ep, pipe[2];
	uint32_t bytes; /* read from the pipe */
};

static void put(const struct peer *p, uint32_t n)
{
	uint16_t proto = htons((uint16_t)(PROTO_BASE + p->way));
	uint8_t frame[64] = {255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1};

	memcpy(frame + 12, &proto, sizeof(proto));
	memcpy(frame + 14, &n, sizeof(n));
	CHECK(send(p->fd, frame, sizeof(frame), 0) == sizeof(frame));
}

/* Wait in this thread's way until its socket is readable. */
static void wait_for(struct peer *p)
{
	struct pollfd poll_fd = {.fd = p->fd, .events = POLLIN};
	struct epoll_event event;
	fd_set set;
	char byte;

	switch (p->way) {
	case 1:
		CHECK(poll(&poll_fd, 1, -1) == 1);
		return;
	case 2:
		FD_ZERO(&set);
		FD_SET(p->fd, &set);
		CHECK(select(p->fd + 1, &set, NULL, NULL, NULL) == 1);
		return;
	case 3:
		for (;;) {
			CHECK(epoll_wait(p->ep, &event, 1, -1) == 1);
			if (event.data.fd == p->fd)
				return;
			CHECK(read(p->pipe[0], &byte, 1) == 1);
			__atomic_fetch_add(&p->bytes, 1, __ATOMIC_RELEASE);
		}
	}
}

static uint32_t get(struct peer *p)
{
	uint8_t frame[64];
	uint32_t n;

	wait_for(p);
	CHECK(recv(p->fd, frame, sizeof(frame), 0) == sizeof(frame));
	memcpy(&n, frame + 14, sizeof(n));
	return n;
}

static void *ask(void *arg)
{
	struct peer *p = arg;

	/* Once more for each number: as long as numbers are claimed there is traffic. */
	for (uint32_t n = 0; __atomic_load_n(&rounds, __ATOMIC_ACQUIRE) > 0 || n < 100; n++) {
		put(p, n);
		CHECK(get(p) == n);
		__atomic_store_n(&answered, true, __ATOMIC_RELEASE);
	}
	put(p, OVER);
	CHECK(get(p) == OVER);
	__atomic_fetch_sub(&running, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void *answer(void *arg)
{
	struct peer *p = arg;
	uint32_t n, expected = 0;

	do {
		n = get(p);
		CHECK(n == OVER || n == expected++);
		put(p, n);
	} while (n != OVER);
	__atomic_fetch_sub(&running, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* The four threads on `port`. */
static void start(struct peer *peers, const char *port, bool asks)
{
	for (unsigned way = 0; way < WAYS; way++) {
		struct peer *p = &peers[way];
		struct epoll_event event = {.events = EPOLLIN};

		*p = (struct peer){.way = way, .asks = asks};
		p->fd = note(packet(port, (uint16_t)(PROTO_BASE + way)));
		CHECK(!pipe(p->pipe));
		note(p->pipe[0]);
		note(p->pipe[1]);
		p->ep = note(epoll_create1(0));
		event.data.fd = p->fd;
		CHECK(!epoll_ctl(p->ep, EPOLL_CTL_ADD, p->fd, &event));
		event.data.fd = p->pipe[0];
		CHECK(!epoll_ctl(p->ep, EPOLL_CTL_ADD, p->pipe[0], &event));
	}
}

static void run(struct peer *peers)
{
	for (unsigned way = 0; way < WAYS; way++) {
		struct peer *p = &peers[way];

		__atomic_fetch_add(&running, 1, __ATOMIC_RELEASE);
		CHECK(!pthread_create(&p->thread, NULL, p->asks ? ask : answer, p));
	}
}

/*
 * A byte through the pipe in the epoll of a thread that waits by epoll: it comes out while the
 * thread runs.
 */
static void poke(struct peer *p, uint32_t bytes)
{
	if (!p->ep || !__atomic_load_n(&running, __ATOMIC_ACQUIRE))
		return;
	CHECK(write(p->pipe[1], "x", 1) == 1);
	while (__atomic_load_n(&p->bytes, __ATOMIC_ACQUIRE) < bytes &&
	       __atomic_load_n(&running, __ATOMIC_ACQUIRE) == 2 * WAYS)
		sched_yield();
}

static void exchange(struct peer *peers, unsigned n)
{
	unsigned times = 0;
	uint32_t pokes = 0;

	for (unsigned i = 0; i < n; i++)
		run(peers + i * WAYS);
	while (__atomic_load_n(&running, __ATOMIC_ACQUIRE)) {
		times += claim_all();
		for (unsigned i = 0; i < n; i++)
			poke(&peers[i * WAYS + 3], pokes + 1);
		pokes++;
		give_back();
		if (__atomic_load_n(&answered, __ATOMIC_ACQUIRE) &&
		    __atomic_load_n(&rounds, __ATOMIC_ACQUIRE))
			__atomic_fetch_sub(&rounds, 1, __ATOMIC_RELEASE);
	}
	for (unsigned i = 0; i < n * WAYS; i++)
		pthread_join(peers[i].thread, NULL);
	printf("claimed %u\n", times);
}

/* --- an epoll's first packet socket ---------------------------------------------------------- */

static void *sleep_in(void *arg)
{
	struct peer *p = arg;
	struct epoll_event event;

	CHECK(epoll_wait(p->ep, &event, 1, -1) == 1 && event.data.fd == p->fd);
	return NULL;
}

static void takeover(const char *port, const char *other)
{
	unsigned times = 0;

	for (; rounds; rounds--) {
		struct peer from = {.fd = note(packet(other, PROTO_BASE))},
			    to = {.fd = note(packet(port, PROTO_BASE)),
				  .ep = note(epoll_create1(0))};
		struct epoll_event event = {.events = EPOLLIN, .data.fd = to.fd};

		CHECK(!pthread_create(&to.thread, NULL, sleep_in, &to));
		for (unsigned i = rounds % 4; i; i--)
			sched_yield();
		times += claim_all();
		CHECK(!epoll_ctl(to.ep, EPOLL_CTL_ADD, to.fd, &event));
		give_back();
		times += claim_all();
		put(&from, 1);
		pthread_join(to.thread, NULL);
		give_back();
		for (unsigned i = 0; i < 2; i++)
			close((int[]){from.fd, to.fd}[i]);
		close(to.ep);
	}
	printf("claimed %u\n", times);
}

int main(int argc, char **argv)
{
	struct peer peers[2 * WAYS];
	int pair[2];
	char byte;

	CHECK(argc > 2);
	alarm(50);
	for (int fd = 0; fd < NUMBERS; fd++)
		mine[fd] = fcntl(fd, F_GETFD) >= 0;
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	file = note(pair[0]);
	witness = note(pair[1]);
	if (argc > 3)
		rounds = (uint32_t)atoi(argv[argc - 1]);
	if (!strcmp(argv[1], "takeover")) {
		takeover(argv[2], argv[3]);
	} else {
		bool both = !strcmp(argv[1], "both");

		start(peers, argv[2], strcmp(argv[1], "echo"));
		if (both)
			start(peers + WAYS, argv[3], false);
		exchange(peers, both ? 2 : 1);
	}
	CHECK(recv(witness, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
	return 0;
}
