/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Batches of 64-byte frames between two ports of one process, by sendmmsg and recvmmsg: what
 * instructions are counted on. The difference of two run lengths under callgrind, divided by the
 * frames between them, leaves the start of the program out:
 *
 *   PALLADIUM_PORTS='pd0=loop:pd1;pd1=loop:pd0' LD_PRELOAD=.../libpalladium.so valgrind --tool=callgrind tests/bench/batch ROUNDS
 *
 * batch ROUNDS [BATCH [TAPS [MODE]]]: BATCH frames a round (32) for TAPS sockets (1). MODE says how
 * they share them:
 *
 *   all     every socket gets every frame
 *   own     each has an EtherType of its own; the rounds take turns among them
 *   epoll   the same, and epoll_wait has to tell which one it is
 *   ports   epoll again; one socket on each of TAPS pairs of ports: pd0 and pd1, pd2 and pd3 ...
 *
 * Ends with 0 when every frame came.
 */
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define FRAME_BYTES 64
#define BATCH_MAX 256
#define TAPS_MAX 1000
#define ETHERTYPE 0x8800

static uint8_t out[BATCH_MAX][FRAME_BYTES], in[BATCH_MAX][2048];
static struct mmsghdr tx[BATCH_MAX], rx[BATCH_MAX];
static unsigned batch = 32, taps = 1;
static int from[TAPS_MAX], to[TAPS_MAX];

/* A packet socket on port `number`. */
static int tap(unsigned number, unsigned protocol)
{
	char name[16];
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	snprintf(name, sizeof(name), "pd%u", number);
	struct sockaddr_ll ll = {.sll_family = AF_PACKET,
				 .sll_protocol = htons((uint16_t)protocol),
				 .sll_ifindex = (int)if_nametoindex(name)};

	if (fd < 0 || bind(fd, (struct sockaddr *)&ll, sizeof(ll))) {
		perror(name);
		exit(1);
	}
	return fd;
}

static void prepare(void)
{
	static struct iovec tx_iov[BATCH_MAX], rx_iov[BATCH_MAX];

	for (unsigned i = 0; i < batch; i++) {
		memset(out[i], (int)i, FRAME_BYTES);
		tx_iov[i] = (struct iovec){out[i], FRAME_BYTES};
		rx_iov[i] = (struct iovec){in[i], sizeof(in[i])};
		tx[i].msg_hdr = (struct msghdr){.msg_iov = &tx_iov[i], .msg_iovlen = 1};
		rx[i].msg_hdr = (struct msghdr){.msg_iov = &rx_iov[i], .msg_iovlen = 1};
	}
}

static void send_round(int fd, unsigned protocol)
{
	for (unsigned i = 0; i < batch; i++) {
		out[i][12] = (uint8_t)(protocol >> 8);
		out[i][13] = (uint8_t)protocol;
	}
	if (sendmmsg(fd, tx, batch, MSG_DONTWAIT) != (int)batch)
		exit(1);
}

static void receive_round(int fd)
{
	if (recvmmsg(fd, rx, batch, MSG_DONTWAIT, NULL) != (int)batch)
		exit(1);
	for (unsigned i = 0; i < batch; i++)
		if (rx[i].msg_len != FRAME_BYTES || in[i][20] != (uint8_t)i)
			exit(1);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;
	const char *mode = argc > 4 ? argv[4] : "all";
	bool all = !strcmp(mode, "all"), ports = !strcmp(mode, "ports");
	bool wait = ports || !strcmp(mode, "epoll");
	int ep = wait ? epoll_create1(0) : -1;
	struct rlimit limit;

	batch = argc > 2 ? (unsigned)atoi(argv[2]) : batch;
	taps = argc > 3 ? (unsigned)atoi(argv[3]) : taps;
	if (!batch || batch > BATCH_MAX || !taps || taps > TAPS_MAX)
		return 2;
	prepare();
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	for (unsigned i = 0; i < taps; i++) {
		struct epoll_event ev = {.events = EPOLLIN, .data.u32 = i};

		from[i] = i && !ports ? from[0] : tap(2 * i * ports, 0);
		to[i] = tap(1 + 2 * i * ports, all || ports ? ETH_P_ALL : ETHERTYPE + i);
		if (wait && epoll_ctl(ep, EPOLL_CTL_ADD, to[i], &ev))
			return 1;
	}
	for (unsigned r = 0; r < rounds; r++) {
		unsigned t = r % taps;
		struct epoll_event ev[64];

		send_round(from[t], ETHERTYPE + (all ? 0 : t));
		if (wait && (epoll_wait(ep, ev, 64, 0) != 1 || ev[0].data.u32 != t))
			return 1;
		for (unsigned i = all ? 0 : t; i < (all ? taps : t + 1); i++)
			receive_round(to[i]);
	}
	return 0;
}
