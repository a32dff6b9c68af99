/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Batches of 64-byte frames between two ports of one process, by sendmmsg and recvmmsg: what instructions are counted on. The
 * difference of two run lengths under callgrind, divided by the frames between them, leaves the start of the program out:
 *
 *   PALLADIUM_PORTS='pd0=loop:pd1;pd1=loop:pd0' LD_PRELOAD=.../libpalladium.so valgrind --tool=callgrind tests/bench/batch ROUNDS
 *
 * batch ROUNDS [BATCH [TAPS]]: BATCH frames a round (32), received by TAPS sockets (1). Ends with 0 when every frame came.
 */
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define FRAME_BYTES 64
#define BATCH_MAX 256
#define TAPS_MAX 8

/* A packet socket on `name`. */
static int tap(const char *name)
{
	struct sockaddr_ll ll = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(ETH_P_ALL),
				 .sll_ifindex = (int)if_nametoindex(name)};
	int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));

	if (fd < 0 || bind(fd, (struct sockaddr *)&ll, sizeof(ll))) {
		perror(name);
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	static uint8_t out[BATCH_MAX][FRAME_BYTES], in[BATCH_MAX][2048];
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;
	unsigned batch = argc > 2 ? (unsigned)atoi(argv[2]) : 32;
	unsigned taps = argc > 3 ? (unsigned)atoi(argv[3]) : 1;
	struct mmsghdr tx[BATCH_MAX] = {0}, rx[BATCH_MAX] = {0};
	struct iovec tx_iov[BATCH_MAX], rx_iov[BATCH_MAX];
	int from = tap("pd0"), to[TAPS_MAX];

	if (!batch || batch > BATCH_MAX || !taps || taps > TAPS_MAX)
		return 2;
	for (unsigned i = 0; i < taps; i++)
		to[i] = tap("pd1");
	for (unsigned i = 0; i < batch; i++) {
		memset(out[i], (int)i, FRAME_BYTES);
		out[i][12] = 0x88;
		out[i][13] = 0xb5;
		tx_iov[i] = (struct iovec){out[i], FRAME_BYTES};
		rx_iov[i] = (struct iovec){in[i], sizeof(in[i])};
		tx[i].msg_hdr = (struct msghdr){.msg_iov = &tx_iov[i], .msg_iovlen = 1};
		rx[i].msg_hdr = (struct msghdr){.msg_iov = &rx_iov[i], .msg_iovlen = 1};
	}
	for (unsigned r = 0; r < rounds; r++) {
		if (sendmmsg(from, tx, batch, MSG_DONTWAIT) != (int)batch)
			return 1;
		for (unsigned t = 0; t < taps; t++) {
			if (recvmmsg(to[t], rx, batch, MSG_DONTWAIT, NULL) != (int)batch)
				return 1;
			for (unsigned i = 0; i < batch; i++)
				if (rx[i].msg_len != FRAME_BYTES || in[i][20] != (uint8_t)i)
					return 1;
		}
	}
	return 0;
}
