/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a frame costs as ports and packet sockets grow in number; tests/bench/growth.py starts two
 * of these.
 *
 *   growth tx PORTS SOCKETS N SIZE BATCH    send N frames in bursts of BATCH, to one socket after the other
 *   growth rx PORTS SOCKETS N SIZE BATCH    receive them with SOCKETS packet sockets on each of the PORTS, print the rate
 *
 * PORTS are names, parted by commas. The sockets of a port differ in their EtherType; the receiver
 * finds out by epoll which have frames. The burst's place in the sequence of its socket stands
 * behind the Ethernet header and is checked, as is every byte behind it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ETHERTYPE \
	0x8800 /* of the first socket; none of 0x8800 to 0x9000 is looked at by anybody here */
#define BATCH_MAX 256
#define FRAME_MAX 2048
#define PORTS_MAX 64
#define EVENTS_MAX 64
#define IDLE_MS 10000

struct member {
	int fd;
	uint32_t next; /* number of the next frame */
};

static uint8_t frames[BATCH_MAX][FRAME_MAX];
static struct iovec iovs[BATCH_MAX];
static struct mmsghdr msgs[BATCH_MAX];
static struct member *members;
static unsigned ports[PORTS_MAX], n_ports, n_sockets;

static void die(const char *what)
{
	fprintf(stderr, "growth: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void read_ports(char *names)
{
	for (char *rest, *name = strtok_r(names, ",", &rest); name && n_ports < PORTS_MAX;
	     name = strtok_r(NULL, ",", &rest)) {
		ports[n_ports] = if_nametoindex(name);
		if (!ports[n_ports++])
			die(name);
	}
}

/* A packet socket on a port; protocol 0 receives nothing. */
static int open_socket(unsigned ifindex, unsigned protocol)
{
	struct sockaddr_ll ll = {.sll_family = AF_PACKET,
				 .sll_protocol = htons((uint16_t)protocol),
				 .sll_ifindex = (int)ifindex};
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&ll, sizeof(ll)))
		die("socket");
	return fd;
}

static void prepare(unsigned batch, unsigned size)
{
	for (unsigned i = 0; i < batch; i++) {
		memset(frames[i], 0xff, 6);
		memset(frames[i] + 6, 0x02, 6);
		memset(frames[i] + 18, 0x5a, FRAME_MAX - 18);
		iovs[i] = (struct iovec){frames[i], size};
		msgs[i].msg_hdr = (struct msghdr){.msg_iov = &iovs[i], .msg_iovlen = 1};
	}
}

/* One burst for socket `s` of port `p`. */
static void send_burst(int fd, struct member *m, unsigned s, unsigned batch)
{
	uint64_t give_up = now_ns() + IDLE_MS * 1000000ull;

	for (unsigned i = 0; i < batch; i++) {
		uint32_t number = m->next++;

		frames[i][12] = (uint8_t)((ETHERTYPE + s) >> 8);
		frames[i][13] = (uint8_t)(ETHERTYPE + s);
		memcpy(frames[i] + 14, &number, sizeof(number));
	}
	for (unsigned done = 0; done < batch;) {
		int ret = sendmmsg(fd, msgs + done, batch - done, 0);

		if (ret > 0)
			done += (unsigned)ret;
		else if (errno == ENETDOWN)
			sched_yield(); /* the link comes up by a thread on this core */
		else if (errno != EAGAIN && errno != EINTR)
			die("send");
		else if (now_ns() > give_up)
			die("the peer takes nothing");
	}
}

static int run_tx(uint64_t n, unsigned batch)
{
	uint64_t sent = 0;
	int fds[PORTS_MAX];

	for (unsigned p = 0; p < n_ports; p++)
		fds[p] = open_socket(ports[p], 0);
	fprintf(stderr, "ready\n");
	for (unsigned turn = 0; sent < n; turn++) {
		unsigned p = turn % n_ports, s = turn / n_ports % n_sockets;

		send_burst(fds[p], &members[p * n_sockets + s], s, batch);
		sent += batch;
	}
	/* What the receiver has not taken would go with us: wait until somebody ends us. */
	pause();
	return 0;
}

/* Take what a socket has, up to a batch; returns how many, and counts those that are not right. */
static unsigned receive(struct member *m, unsigned size, unsigned batch, uint64_t *bad)
{
	static uint8_t rest[FRAME_MAX];
	int k = recvmmsg(m->fd, msgs, batch, MSG_DONTWAIT, NULL);
	uint32_t number;

	if (!*rest)
		memset(rest, 0x5a, sizeof(rest));
	for (int i = 0; i < k; i++) {
		memcpy(&number, frames[i] + 14, sizeof(number));
		*bad += msgs[i].msg_len != size || number != m->next++ ||
			memcmp(frames[i] + 18, rest, size - 18);
	}
	return k > 0 ? (unsigned)k : 0;
}

static int run_rx(uint64_t n, unsigned size, unsigned batch)
{
	struct epoll_event events[EVENTS_MAX];
	uint64_t got = 0, bad = 0, start = 0;
	int ep = epoll_create1(0);

	for (unsigned i = 0; i < n_ports * n_sockets; i++) {
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &members[i]};

		members[i].fd = open_socket(ports[i / n_sockets], ETHERTYPE + i % n_sockets);
		if (epoll_ctl(ep, EPOLL_CTL_ADD, members[i].fd, &ev))
			die("epoll_ctl");
	}
	fprintf(stderr, "ready\n");
	while (got < n) {
		int k = epoll_wait(ep, events, EVENTS_MAX, IDLE_MS);

		if (k <= 0)
			break;
		if (!start)
			start = now_ns();
		for (int i = 0; i < k; i++)
			got += receive(events[i].data.ptr, size, batch, &bad);
	}
	printf("{\"mode\":\"rx\",\"frames\":%llu,\"bad\":%llu,\"ns_per_frame\":%.3f}\n",
	       (unsigned long long)got, (unsigned long long)bad,
	       got ? (double)(now_ns() - start) / (double)got : 0.0);
	return bad || got < n;
}

int main(int argc, char **argv)
{
	unsigned size, batch;
	uint64_t n;

	if (argc != 7 || (strcmp(argv[1], "tx") && strcmp(argv[1], "rx"))) {
		fprintf(stderr, "usage: growth tx|rx PORT[,PORT...] SOCKETS N SIZE BATCH\n");
		return 2;
	}
	read_ports(argv[2]);
	n_sockets = (unsigned)strtoul(argv[3], NULL, 0);
	n = strtoull(argv[4], NULL, 0);
	size = (unsigned)strtoul(argv[5], NULL, 0);
	batch = (unsigned)strtoul(argv[6], NULL, 0);
	if (!n_sockets || n_sockets > 2048 || !batch || batch > BATCH_MAX || size < 60 ||
	    size > FRAME_MAX) {
		fprintf(stderr, "growth: SOCKETS is 1 to 2048, BATCH 1 to %d, SIZE 60 to %d\n",
			BATCH_MAX, FRAME_MAX);
		return 2;
	}
	members = calloc((size_t)n_ports * n_sockets, sizeof(*members));
	if (!members)
		die("memory");
	prepare(batch, argv[1][0] == 'r' ? FRAME_MAX : size);
	return argv[1][0] == 't' ? run_tx(n, batch) : run_rx(n, size, batch);
}
