/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads on ports of several queues, linked to the library so that a sanitizer sees both: no frame
 * may be lost, come twice, or come out of order within its class or flow, whoever sends it, by
 * whatever queue, and whoever receives.
 *
 * Each sender has a flow and a class and numbers its frames. Receivers share one socket, or have
 * one each (then each of them sees all frames of its protocol). A frame is on its way for as long
 * as its ring says, so receivers that share a socket may note two of a flow in the wrong order;
 * each notes what it took under a lock of the flow, taken before the receive when order is what is
 * looked at.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../sock/direct.h"
#include "../sock/raw.h"

#include "palladium_extra.h"
#include "transport/transport.h"

#define QUEUES 8
#define SENDERS 6
#define RECEIVERS 4
#define PROTO 0x9100

static unsigned rounds = 3000;

/* What a run is like. */
static struct plan {
	const char *name;
	int logic_tx, logic_rx, ratio;
	bool classes; /* frames carry a class; else they go as logic_tx says */
	bool one_out; /* the senders share a socket */
	bool one_in;  /* the receivers share a socket */
	bool ordered; /* a sender's frames stay in order */
	bool flap;    /* queues come and go meanwhile: no send may notice */
} plans[] = {
	{"classes, a socket for each", 0, 0, 100, true, false, false, true, false},
	{"classes, shared sockets, own queues first", 0, 20, 1, true, true, true, false, false},
	{"flows, shared sockets", 0, 0, 100, false, true, true, false, false},
	{"flows, a socket for each", 1, 10, 100, false, false, false, true, false},
	{"a queue for each socket", 10, 10, 100, false, false, false, true, false},
	{"a queue for each thread", 20, 20, -1, false, false, false, true, false},
	{"threads that migrate", 20, 20, 1, false, true, true, false, false},
	{"a queue for each core", 30, 30, 1, false, true, true, false, false},
	{"threads attached to cores", 31, 31, 1, false, true, true, false, false},
	{.name = "queues that come and go", .classes = true, .flap = true},
};
static const struct plan *plan;

static uint32_t received; /* frames taken; of one socket for each, by all together */
static uint8_t *seen[SENDERS];

struct party {
	pthread_t thread;
	unsigned index;
	int fd;
};

/* Send numbered frames of one flow, in vectors of three. */
static void *send_flow(void *arg)
{
	struct party *p = arg;
	uint8_t frame[3][64] = {{0}};
	union palladium_cmsg_buffer control[3];
	struct avip_mdata_t md = {.pd.pfc_priority = (uint8_t)p->index};
	struct iovec iov[3];
	struct mmsghdr m[3] = {{.msg_len = 0}};

	for (int k = 0; k < 3; k++) {
		memcpy(frame[k], "\2\0\0\0\0\1\2\0\0\0\0\2", 12);
		frame[k][11] = (uint8_t)p->index;
		frame[k][12] = PROTO >> 8;
		frame[k][13] = (uint8_t)(PROTO + (plan->one_in ? 0 : p->index % RECEIVERS));
		frame[k][14] = (uint8_t)p->index;
		iov[k] = (struct iovec){frame[k], sizeof(frame[k])};
		m[k].msg_hdr.msg_iov = &iov[k];
		m[k].msg_hdr.msg_iovlen = 1;
		if (plan->classes)
			palladium_cmsg_put(&m[k].msg_hdr, &control[k], &md);
	}
	for (uint32_t n = 0; n < rounds; n += 3) {
		for (uint32_t k = 0; k < 3; k++)
			memcpy(frame[k] + 16, &(uint32_t){n + k}, 4);
		CHECK(DIRECT(p->fd, sendmmsg, m, 3, 0) == 3);
	}
	return NULL;
}

/* Receive until all frames came that this party can see. */
static void *receive_flows(void *arg)
{
	struct party *p = arg;
	uint32_t next[SENDERS] = {0}, mine = 0, all = SENDERS * rounds, n;
	uint8_t frame[100];

	for (unsigned i = 0; i < SENDERS; i++)
		mine += i % RECEIVERS == p->index ? rounds : 0;
	for (;;) {
		uint32_t taken = __atomic_load_n(&received, __ATOMIC_RELAXED);
		ssize_t ret;

		if (plan->one_in ? taken == all : !mine)
			return NULL;
		ret = recv(p->fd, frame, sizeof(frame), 0);
		if (ret < 0) { /* another has the last one */
			CHECK(errno == EAGAIN && plan->one_in);
			continue;
		}
		CHECK(ret == 64 && frame[14] < SENDERS);
		memcpy(&n, frame + 16, 4);
		CHECK(n < rounds && !__atomic_exchange_n(&seen[frame[14]][n], 1, __ATOMIC_RELAXED));
		if (plan->ordered)
			CHECK(n == next[frame[14]]++);
		__atomic_fetch_add(&received, 1, __ATOMIC_RELAXED);
		mine--;
	}
}

static uint32_t sending; /* senders that are not done */

/* Take queues of the sending port but the first away, and bring them back. */
static void *flap(void *arg)
{
	struct pd_port *port = pd_port_by_name("pd0");

	(void)arg;
	/* Each by itself: with all of them up again, it is sent by at once. */
	for (unsigned i = 2; pd_load_acquire(&sending); i++) {
		struct pd_lane *lane = port->lanes[1 + i / 2 % (QUEUES - 1)];
		struct pd_lane_side *side = &lane->side[PD_TX];

		pd_lock(&pd_control);
		pd_lock(&side->lock);
		pd_lane_set_link(lane, PD_TX, i & 1, side->event_fd, side->cursor);
		pd_unlock(&side->lock);
		pd_unlock(&pd_control);
	}
	return NULL;
}

/* One plan, from making its sockets to closing them. */
static void run(void)
{
	static const struct timeval patience = {.tv_usec = 20000};
	struct party in[RECEIVERS], out[SENDERS];
	pthread_t flapper;
	cpu_set_t may;

	CHECK(!sched_getaffinity(0, sizeof(may), &may));
	pd_vars.ring_allocation_logic_tx = plan->logic_tx;
	pd_vars.ring_allocation_logic_rx = plan->logic_rx;
	pd_vars.ring_migration_ratio_tx = pd_vars.ring_migration_ratio_rx = plan->ratio;
	received = 0;
	for (unsigned i = 0; i < SENDERS; i++)
		memset(seen[i], 0, rounds);
	for (unsigned i = 0; i < RECEIVERS; i++) {
		bool makes = !i || !plan->one_in;

		in[i].index = i;
		in[i].fd = makes ? packet("pd1", (uint16_t)(PROTO + i)) : in[0].fd;
		if (plan->one_in)
			CHECK(!setsockopt(in[i].fd, SOL_SOCKET, SO_RCVTIMEO, &patience,
					  sizeof(patience)));
		/* Several taps: what one does not read in time is dropped. */
		CHECK(!setsockopt(in[i].fd, SOL_SOCKET, SO_RCVBUF, &(int){1 << 24}, sizeof(int)));
	}
	for (unsigned i = 0; i < SENDERS; i++) {
		out[i].index = i;
		out[i].fd = i && plan->one_out ? out[0].fd : packet("pd0", 0);
	}
	for (unsigned i = 0; i < RECEIVERS; i++)
		CHECK(!pthread_create(&in[i].thread, NULL, receive_flows, &in[i]));
	for (unsigned i = 0; i < SENDERS; i++)
		CHECK(!pthread_create(&out[i].thread, NULL, send_flow, &out[i]));
	pd_store_release(&sending, 1);
	CHECK(!plan->flap || !pthread_create(&flapper, NULL, flap, NULL));
	for (unsigned i = 0; i < SENDERS; i++)
		CHECK(!pthread_join(out[i].thread, NULL));
	pd_store_release(&sending, 0);
	CHECK(!plan->flap || !pthread_join(flapper, NULL));
	for (unsigned i = 0; i < RECEIVERS; i++)
		CHECK(!pthread_join(in[i].thread, NULL));
	CHECK(received == SENDERS * rounds);
	for (unsigned i = 0; i < SENDERS; i++)
		for (uint32_t n = 0; n < rounds; n++)
			CHECK(seen[i][n]);
	for (unsigned i = 0; i < RECEIVERS; i++)
		if (!i || !plan->one_in)
			close(in[i].fd);
	for (unsigned i = 0; i < SENDERS; i++)
		if (!i || !plan->one_out)
			close(out[i].fd);
	CHECK(!sched_setaffinity(0, sizeof(may), &may));
}

int main(void)
{
	direct_start("pd0=loop:pd1,queues=8,ring=64");
	alarm(300);
	for (unsigned i = 0; i < SENDERS; i++)
		CHECK((seen[i] = malloc(rounds)));
	printf("1..%zu\n", sizeof(plans) / sizeof(plans[0]));
	for (unsigned i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
		plan = &plans[i];
		run();
		printf("ok %u - %s\n", i + 1, plan->name);
		fflush(stdout);
	}
	for (unsigned i = 0; i < SENDERS; i++)
		free(seen[i]);
	return 0;
}
