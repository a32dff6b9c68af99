/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sock/packet_nodes: the fused way and the graph give the same, frame by frame and count by count;
 * several taps get what one would; what there is no buffer for stays in the ring, and with
 * PALLADIUM_RX_BACKPRESSURE=port what finds a queue full; who watches sees what is sent.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if_arp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/sys.h"
#include "config/config.h"
#include "config/vars.h"
#include "counters/counters.h"
#include "palladium_extra.h"
#include "sock/fd.h"
#include "sock/hooks.h"
#include "sock/layer.h"
#include "sock/packet_nodes.h"
#include "vlib/progress.h"
#include "vlib/runtime.h"
#include "vlib/trace.h"

#define WANTED 0x88b5
#define OTHER 0x88b6
#define ROUNDS 300
#define BATCH 40

/* --- sockets ------------------------------------------------------------------------------ */

/* A socket on `port`. */
static struct pd_packet *open_socket(const char *port, int type, uint16_t protocol)
{
	struct sockaddr_ll ll = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(protocol),
				 .sll_ifindex = (int)pd_port_by_name(port)->ifindex};
	int fd = (int)pd_hooks.socket(AF_PACKET, type, 0);
	struct pd_packet *s;

	assert_true(fd >= 0);
	s = pd_packet_of(pd_fd_get(fd));
	assert_int_equal(s->sock.ops->bind(&s->sock, (void *)&ll, sizeof(ll)), 0);
	s->recv_metadata = s->recv_control = s->auxdata = true;
	pd_packet_note_control(s);
	return s;
}

static void close_socket(struct pd_packet *s)
{
	int fd = s->fd;

	pd_fd_put(&s->sock);
	pd_fd_remove(fd);
	pd_sys_close(fd);
}

/* A sender on pd0, which is returned, and on pd1 a reader of each kind. */
static struct pd_packet *open_three(struct pd_packet **wanted, struct pd_packet **other)
{
	struct pd_packet *sender = open_socket("pd0", SOCK_RAW, 0);

	*wanted = open_socket("pd1", SOCK_RAW, WANTED);
	*other = open_socket("pd1", SOCK_RAW, OTHER);
	return sender;
}

static void close_three(struct pd_packet *a, struct pd_packet *b, struct pd_packet *c)
{
	close_socket(a);
	close_socket(b);
	close_socket(c);
}

/* The engines of a port's lane. */
static struct pd_packet_graph *graph_of(const char *port)
{
	struct pd_port *p = pd_port_by_name(port);

	return pd_packet_graph_of(p, p->lanes[0]);
}

/* --- what a run looked like, as bytes ------------------------------------------------------- */

struct record {
	uint8_t bytes[64 << 20];
	size_t len;
};

static void note(struct record *r, const void *data, size_t len)
{
	assert_true(r->len + len <= sizeof(r->bytes));
	memcpy(r->bytes + r->len, data, len);
	r->len += len;
}

static void note_number(struct record *r, int64_t n)
{
	note(r, &n, sizeof(n));
}

static uint32_t random_state;

static uint32_t rnd(uint32_t below)
{
	random_state = random_state * 1664525u + 1013904223u;
	return (random_state >> 8) % below;
}

/* Messages with room for everything. */
struct messages {
	struct mmsghdr m[BATCH];
	struct iovec iov[BATCH][3];
	uint8_t data[BATCH][2048];
	struct sockaddr_ll name[BATCH];
	uint8_t control[BATCH][256] PD_ALIGNED(16);
};

static struct messages out, in;
static uint32_t next_frame;

/*
 * Make message `i`, number `next_frame`: mostly a frame for WANTED, else for OTHER, a control
 * frame, one that is too long, or too short. Its bytes tell its number.
 */
static void make_message(unsigned i, bool dgram)
{
	static const uint8_t mac[] = {2, 0, 0, 0, 0, 9};
	uint32_t number = next_frame++, kind = rnd(20), len = 60 + rnd(1440), cut = 14 + rnd(40);
	struct msghdr *m = &out.m[i].msg_hdr;
	struct cmsghdr *c = (void *)out.control[i];
	uint8_t *d = out.data[i];

	memset(d, (int)number, len);
	memset(d, 0xff, 12);
	d[12] = WANTED >> 8;
	d[13] = kind < 4 ? OTHER & 0xff : WANTED & 0xff;
	memcpy(d + 14, &number, sizeof(number));
	*m = (struct msghdr){.msg_iov = out.iov[i], .msg_iovlen = 2};
	c->cmsg_level = SOL_PALLADIUM;
	c->cmsg_type = PALLADIUM_METADATA;
	c->cmsg_len = CMSG_LEN(PD_SIDECAR_BYTES);
	memset(CMSG_DATA(c), (int)number, PD_SIDECAR_BYTES);
	CMSG_DATA(c)[PD_SIDECAR_GENERIC_FLAGS_AT] = 0;
	if (kind < 15 || kind == 19) {
		m->msg_control = c;
		m->msg_controllen = CMSG_SPACE(PD_SIDECAR_BYTES);
	}
	if (kind == 18)
		len = 1600;
	if (kind == 17)
		len = cut = 9;
	out.iov[i][0] = (struct iovec){d, cut};
	out.iov[i][1] = (struct iovec){d + cut, len - cut};
	if (kind == 19) {
		CMSG_DATA(c)[PD_SIDECAR_GENERIC_FLAGS_AT] = PD_SIDECAR_GENERIC_CONTROL;
		m->msg_iovlen = 0;
	}
	if (dgram) {
		out.name[i] =
			(struct sockaddr_ll){.sll_family = AF_PACKET,
					     .sll_protocol = htons(WANTED),
					     .sll_ifindex = (int)pd_port_by_name("pd0")->ifindex,
					     .sll_halen = 6};
		memcpy(out.name[i].sll_addr, mac, sizeof(mac));
		m->msg_name = &out.name[i];
		m->msg_namelen = sizeof(out.name[i]);
	}
}

/*
 * Receive up to `n` messages with what `flags` say; `narrow`: less room than most frames need. Note
 * all that comes.
 */
static int receive(struct pd_packet *s, struct record *r, unsigned n, int flags, bool narrow)
{
	int got;

	for (unsigned i = 0; i < n; i++) {
		memset(in.data[i], 0xa5, sizeof(in.data[i]));
		memset(in.control[i], 0, sizeof(in.control[i]));
		memset(&in.name[i], 0, sizeof(in.name[i]));
		in.iov[i][0] = (struct iovec){in.data[i], 20};
		in.iov[i][1] = (struct iovec){in.data[i] + 20, narrow ? 80 : 2000};
		in.m[i].msg_len = 0;
		in.m[i].msg_hdr = (struct msghdr){.msg_iov = in.iov[i],
						  .msg_iovlen = 2,
						  .msg_name = &in.name[i],
						  .msg_namelen = sizeof(in.name[i]),
						  .msg_control = in.control[i],
						  .msg_controllen = narrow ? 70 : 256};
	}
	got = pd_packet_receive(s, in.m, n, flags, 0, PD_WAIT_FOREVER);
	for (int i = 0; i < got && r; i++) {
		const struct msghdr *m = &in.m[i].msg_hdr;

		note_number(r, in.m[i].msg_len);
		note_number(r, m->msg_flags);
		note_number(r, m->msg_namelen);
		note(r, &in.name[i], sizeof(in.name[i]));
		note(r, in.data[i], 20 + in.iov[i][1].iov_len);
		note(r, in.control[i], m->msg_controllen);
	}
	return got;
}

/*
 * Send batches from `a`, and let `b` receive and look, in a way that random_state fixes. Notes what
 * both saw.
 */
static void converse(struct pd_packet *a, struct pd_packet *b, struct record *r)
{
	random_state = 5;
	next_frame = 0;
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned n = 1 + rnd(BATCH), done = 0;
		int got;

		for (unsigned i = 0; i < n; i++)
			make_message(i, a->type == SOCK_DGRAM);
		while (done < n) {
			int sent = pd_packet_send(a, out.m + done, n - done, MSG_DONTWAIT);

			note_number(r, sent);
			if (sent == -EAGAIN)
				break;
			done += sent > 0 ? (unsigned)sent
					 : 1; /* one that was refused is left out */
		}
		if (rnd(8) == 0)
			note_number(r, (int64_t)pd_packet_next_length(b));
		if (rnd(4) == 0) {
			got = receive(b, NULL, 1, MSG_PEEK | (rnd(2) ? MSG_TRUNC : 0), rnd(2));
			note_number(r, got);
			note_number(r, got > 0 ? in.m[0].msg_len : 0);
		}
		/* Less than comes at times, so that the ring fills. */
		while (rnd(2)) {
			unsigned most = 1 + rnd(BATCH);
			int flags = rnd(3) ? 0 : MSG_TRUNC;

			if (receive(b, r, most, flags, rnd(4) == 0) <= 0)
				break;
		}
	}
	while (receive(b, r, BATCH, 0, false) > 0)
		;
	note_number(r, b->stat_packets);
	note_number(r, b->stat_drops);
}

/* The calls, frames and errors of an engine's nodes, since the last time. */
struct node_counts {
	char name[32];
	uint64_t calls, vectors, errors[8];
};

static void count_nodes(const struct pd_engine *e, struct node_counts *counts)
{
	for (unsigned i = 0; i < e->node_count; i++) {
		struct pd_node *n = &e->nodes[i];

		snprintf(counts[i].name, sizeof(counts[i].name), "%s", n->reg->name);
		counts[i].calls = n->calls - counts[i].calls;
		counts[i].vectors = n->vectors - counts[i].vectors;
		for (unsigned k = 0; k < n->reg->error_count; k++)
			counts[i].errors[k] = n->errors[k] - counts[i].errors[k];
	}
}

static uint64_t lane_counter(const char *port, enum pd_ctr_word word)
{
	return pd_ctr_get(pd_port_by_name(port)->lanes[0]->side[PD_RX].ctr, word);
}

static struct record fused, graph;

/*
 * One conversation; `wanted`: through the graph; `taps`: others listen too. Notes counters of both
 * ends too.
 */
static void run(struct record *r, int type, bool wanted, unsigned taps)
{
	static const uint16_t protocols[] = {OTHER, WANTED, ETH_P_ALL};
	struct pd_packet *a = open_socket("pd0", type, 0),
			 *b = open_socket("pd1", SOCK_RAW, WANTED), *more[3];
	struct node_counts tx[32] = {0}, rx[32] = {0};
	uint64_t filtered = lane_counter("pd1", PD_CTR_LANE_RX_DROP_FILTERED);

	for (unsigned i = 0; i < taps; i++) {
		more[i] = open_socket("pd1", SOCK_RAW, protocols[i]);
		more[i]->receive_limit_bytes = 1u << 30;
	}
	r->len = 0;
	count_nodes(graph_of("pd0")->tx, tx);
	count_nodes(graph_of("pd1")->rx, rx);
	pd_graph_wanted = wanted;
	converse(a, b, r);
	pd_graph_wanted = 0;
	count_nodes(graph_of("pd0")->tx, tx);
	count_nodes(graph_of("pd1")->rx, rx);
	note(r, tx, sizeof(tx));
	note(r, rx, sizeof(rx));
	note_number(r, (int64_t)(lane_counter("pd1", PD_CTR_LANE_RX_DROP_FILTERED) - filtered));
	for (unsigned i = 0; i < taps; i++) {
		note_number(r, more[i]->stat_packets);
		while (receive(more[i], r, BATCH, 0, false) > 0)
			;
		close_socket(more[i]);
	}
	close_socket(a);
	close_socket(b);
}

/* --- tests -------------------------------------------------------------------------------- */

static void same(void)
{
	assert_true(fused.len > ROUNDS * 1000);
	for (size_t i = 0; i < pd_min(fused.len, graph.len); i++)
		if (fused.bytes[i] != graph.bytes[i])
			fail_msg("byte %zu of %zu, %zu differs", i, fused.len, graph.len);
	assert_int_equal(fused.len, graph.len);
}

static void test_fused_and_graph_give_the_same(void **state)
{
	static const int types[] = {SOCK_RAW, SOCK_DGRAM};

	for (unsigned t = 0; t < 2; t++) {
		for (unsigned taps = 0; taps < 4; taps++) {
			run(&fused, types[t], false, taps);
			run(&graph, types[t], true, taps);
			same();
		}
	}
	/* All that the comparison is about did happen. */
	assert_true(graph_of("pd1")->match->errors[PD_PACKET_MATCH_ERROR_FILTERED] > 0);
	assert_true(graph_of("pd0")->send->errors[0] > 0);
	assert_true(graph_of("pd0")->send->errors[1] > 0);
	assert_true(graph_of("pd0")->output->errors[PD_PORT_OUTPUT_ERROR_FULL] > 0);
	assert_true(graph_of("pd1")->rx->rounds > 0);
	assert_int_equal(pd_rx_pool->free_count, pd_rx_pool->count);
}

/* Send `n` numbered frames of protocols that `kinds` tells, one letter each. */
static void send_kinds(struct pd_packet *a, const char *kinds)
{
	for (unsigned i = 0; kinds[i]; i++) {
		uint8_t *d = out.data[i];

		memset(d, 0xff, 60);
		d[12] = WANTED >> 8;
		d[13] = kinds[i] == 'w' ? WANTED & 0xff : OTHER & 0xff;
		d[14] = (uint8_t)i;
		out.iov[i][0] = (struct iovec){d, 60};
		out.m[i].msg_hdr = (struct msghdr){.msg_iov = out.iov[i], .msg_iovlen = 1};
	}
	assert_int_equal(pd_packet_send(a, out.m, (unsigned)strlen(kinds), MSG_DONTWAIT),
			 (int)strlen(kinds));
}

/* What `s` receives must be the frames with these numbers. */
static void expect(struct pd_packet *s, const uint8_t *numbers, unsigned n)
{
	int got = receive(s, NULL, BATCH, 0, false);

	assert_int_equal(pd_max(got, 0), n);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(in.data[i][14], numbers[i]);
}
#define EXPECT(s, ...) \
	expect(s, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void test_a_frame_that_is_peeked_at_stays(void **state)
{
	struct pd_packet *a = open_socket("pd0", SOCK_RAW, 0);
	struct pd_packet *b = open_socket("pd1", SOCK_RAW, WANTED);

	for (uint32_t wanted = 0; wanted < 2; wanted++) {
		pd_graph_wanted = wanted;
		send_kinds(a, "oww");
		for (int i = 0; i < 2; i++) {
			assert_int_equal(receive(b, NULL, 1, MSG_PEEK, false), 1);
			assert_int_equal(in.data[0][14], 1);
		}
		assert_int_equal(b->stat_packets, 0);
		EXPECT(b, 1, 2);
		assert_int_equal(b->stat_packets, 2);
		b->stat_packets = 0;
	}
	pd_graph_wanted = 0;
	close_socket(a);
	close_socket(b);
}

static void test_several_taps_get_what_each_wants(void **state)
{
	struct pd_packet *b, *c, *a = open_three(&b, &c);
	struct pd_packet *d = open_socket("pd1", SOCK_RAW, ETH_P_ALL);
	struct pd_node *queue = pd_engine_node(graph_of("pd1")->rx, "packet-queue");
	uint64_t calls = queue->calls, vectors = queue->vectors;

	send_kinds(a, "wowwo");
	EXPECT(c, 1, 4);
	assert_int_equal(queue->calls - calls, 1); /* one vector for all of them */
	assert_int_equal(queue->vectors - vectors, 5);
	EXPECT(d, 0, 1, 2, 3, 4);
	EXPECT(b, 0, 2, 3);
	assert_int_equal(pd_rx_pool->free_count, pd_rx_pool->count);
	/* One that has gone keeps nothing; nobody's frames are counted. */
	close_socket(d);
	close_socket(c);
	send_kinds(a, "ow");
	EXPECT(b, 1);
	close_socket(b);
	close_socket(a);
}

static void test_one_of_several_sees_what_one_alone_sees(void **state)
{
	struct pd_packet *a = open_socket("pd0", SOCK_RAW, 0);
	struct pd_packet *b = open_socket("pd1", SOCK_RAW, WANTED), *c;
	bool narrow;

	fused.len = graph.len = 0;
	for (int several = 0; several < 2; several++) {
		struct record *r = several ? &graph : &fused;

		c = several ? open_socket("pd1", SOCK_RAW, OTHER) : NULL;
		next_frame = 0;
		random_state = 99;
		for (int round = 0; round < ROUNDS; round++) {
			unsigned n = 1 + rnd(BATCH), done = 0;

			for (unsigned i = 0; i < n; i++)
				make_message(i, false);
			for (int sent; done<n; done += sent> 0 ? (unsigned)sent : 1)
				sent = pd_packet_send(a, out.m + done, n - done, MSG_DONTWAIT);
			/* How many calls it takes is not the same. */
			narrow = rnd(2);
			while (receive(b, r, BATCH, 0, narrow) > 0)
				;
			while (c && receive(c, NULL, BATCH, 0, false) > 0)
				;
		}
		if (c)
			close_socket(c);
	}
	same();
	close_socket(a);
	close_socket(b);
}

/* Take buffers of the pool away, so that `left` remain. Returns how many were taken. */
static unsigned hog(uint32_t *taken, unsigned left)
{
	unsigned n = pd_rx_pool->free_count - left;

	assert_int_equal(pd_buffer_alloc(pd_rx_pool, taken, n), n);
	return n;
}

static void test_what_finds_no_buffer_stays_or_is_counted(void **state)
{
	struct pd_packet *a = open_socket("pd0", SOCK_RAW, 0);
	struct pd_packet *b = open_socket("pd1", SOCK_RAW, WANTED);
	struct pd_port *port = pd_port_by_name("pd1");
	struct pd_lane *lane = port->lanes[0];
	struct pd_packet_graph *g = graph_of("pd1");
	struct pd_node *queue = pd_engine_node(g->rx, "packet-queue");
	uint64_t filtered = g->match->errors[PD_PACKET_MATCH_ERROR_FILTERED];
	uint64_t lane_filtered = lane_counter("pd1", PD_CTR_LANE_RX_DROP_FILTERED);
	uint32_t *taken = calloc(pd_rx_pool->count, sizeof(*taken));
	unsigned n = hog(taken, 2);

	/*
	 * Kept: two go into the queue with what nobody wants before the third, which stays, as all
	 * behind it.
	 */
	send_kinds(a, "owowowo");
	pd_lock(&lane->side[PD_RX].lock);
	assert_int_equal(pd_packet_distribute(port, lane, PD_VECTOR_MAX, true), 5);
	assert_int_equal(pd_packet_distribute(port, lane, PD_VECTOR_MAX, true), 0);
	pd_unlock(&lane->side[PD_RX].lock);
	assert_int_equal(g->match->errors[PD_PACKET_MATCH_ERROR_FILTERED] - filtered, 3);
	EXPECT(b, 1, 3);
	EXPECT(b, 5);
	assert_int_equal(g->match->errors[PD_PACKET_MATCH_ERROR_FILTERED] - filtered, 4);
	assert_int_equal(lane_counter("pd1", PD_CTR_LANE_RX_DROP_FILTERED) - lane_filtered, 4);

	/* Not kept: lost, and told everywhere. */
	send_kinds(a, "wwwow");
	pd_lock(&lane->side[PD_RX].lock);
	assert_int_equal(pd_packet_distribute(port, lane, PD_VECTOR_MAX, false), 5);
	pd_unlock(&lane->side[PD_RX].lock);
	assert_int_equal(queue->errors[PD_PACKET_QUEUE_ERROR_NO_BUFFER], 2);
	assert_int_equal(lane_counter("pd1", PD_CTR_LANE_RX_DROP_NO_BUFFER), 2);
	assert_int_equal(b->stat_drops, 2);
	EXPECT(b, 0, 1);
	pd_buffer_free(taken, n);
	free(taken);
	close_socket(a);
	close_socket(b);
}

static void test_a_queue_that_is_full_drops(void **state)
{
	struct pd_packet *a = open_socket("pd0", SOCK_RAW, 0);
	struct pd_packet *b = open_socket("pd1", SOCK_RAW, WANTED);
	struct pd_packet *c = open_socket("pd1", SOCK_RAW, WANTED);
	struct pd_node *queue = pd_engine_node(graph_of("pd1")->rx, "packet-queue");
	uint64_t full = queue->errors[PD_PACKET_QUEUE_ERROR_FULL];

	c->receive_limit_bytes = 130;
	send_kinds(a, "wwww");
	EXPECT(b, 0, 1, 2, 3);
	EXPECT(c, 0, 1);
	assert_int_equal(queue->errors[PD_PACKET_QUEUE_ERROR_FULL] - full, 2);
	assert_int_equal(c->stat_packets, 4);
	assert_int_equal(c->stat_drops, 2);
	assert_int_equal(pd_rx_pool->free_count, pd_rx_pool->count);
	close_three(a, b, c);
}

/* Frames that `s` has in its queue. */
static unsigned queued(const struct pd_packet *s)
{
	return s->queue.tail - s->queue.head;
}

/*
 * What only the reader wants is not copied, and what comes after its last message stays in the
 * ring.
 */
static void test_the_ring_is_the_queue_of_each_who_reads(void **state)
{
	for (uint32_t wanted = 0; wanted < 2; wanted++) {
		struct pd_packet *b, *c, *a = open_three(&b, &c);
		struct pd_node *queue = graph_of("pd1")->queue;
		uint64_t vectors = queue->vectors;

		pd_graph_wanted = wanted;
		send_kinds(a, "wwowwwoo");
		assert_int_equal(receive(b, NULL, 3, 0, false), 3);
		assert_int_equal(in.data[2][14], 3);
		assert_int_equal(queue->vectors - vectors, 1);
		assert_int_equal(queued(c), 1);
		EXPECT(c, 2);
		EXPECT(c, 6, 7);
		assert_int_equal(queued(b), 2);
		EXPECT(b, 4, 5);
		assert_int_equal(queue->vectors - vectors, 3);
		assert_int_equal(b->stat_packets, 5);
		assert_int_equal(pd_rx_pool->free_count, pd_rx_pool->count);
		pd_graph_wanted = 0;
		close_three(a, b, c);
	}
}

/* Frames in a row for another socket stay for it; a few among ours do not. */
static void test_a_run_for_another_stays_in_the_ring(void **state)
{
	for (uint32_t wanted = 0; wanted < 2; wanted++) {
		struct pd_packet *b, *c, *a = open_three(&b, &c);
		struct pd_node *queue = graph_of("pd1")->queue;
		uint64_t vectors = queue->vectors;

		pd_graph_wanted = wanted;
		send_kinds(a, "wwoooowwwwwwwwwoo");
		EXPECT(b, 0, 1);
		EXPECT(c, 2, 3, 4, 5);
		EXPECT(b, 6, 7, 8, 9, 10, 11, 12, 13, 14);
		EXPECT(c, 15, 16);
		assert_int_equal(queue->vectors - vectors, 0);
		/* Who finds nothing of its own goes past them. */
		send_kinds(a, "oooow");
		EXPECT(b, 4);
		assert_int_equal(queued(c), 4);
		EXPECT(c, 0, 1, 2, 3);
		/* As long as it lasts; and not among a few of ours. */
		send_kinds(a, "wooowoo");
		EXPECT(b, 0, 4);
		EXPECT(c, 1, 2, 3, 5, 6);
		assert_int_equal(queue->vectors - vectors, 4 + 5);
		pd_graph_wanted = 0;
		close_three(a, b, c);
	}
}

static void test_a_full_queue_stops_the_port(void **state)
{
	uint32_t room;

	pd_vars.rx_backpressure = PD_BACKPRESSURE_PORT;
	for (uint32_t wanted = 0; wanted < 2; wanted++) {
		struct pd_packet *b, *c, *a = open_three(&b, &c);
		struct pd_bell *bell = &pd_packet_port_of(pd_port_by_name("pd1"))->room;

		pd_graph_wanted = wanted;
		c->receive_limit_bytes = 130;
		send_kinds(a, "wooowow");
		EXPECT(b, 0); /* and two into the queue of c */
		assert_int_equal(receive(b, NULL, BATCH, 0, false), -EAGAIN);
		assert_int_equal(pd_ctr_get(c->ctr, PD_CTR_SOCKET_RX_STOPS), 1);
		room = pd_bell_seq(bell);
		assert_int_equal(receive(c, NULL, 1, 0, false), 1);
		assert_int_equal(in.data[0][14], 1);
		assert_int_not_equal(pd_bell_seq(bell), room); /* who waits is told */
		EXPECT(b, 4);
		assert_int_equal(queued(c), 2);
		EXPECT(c, 2, 3);
		EXPECT(c, 5);
		EXPECT(b, 6);
		assert_int_equal(b->stat_drops + c->stat_drops, 0);
		assert_int_equal(c->stat_packets, 4);
		/*
		 * What is longer than the limit goes into a queue that is empty; closing the socket
		 * ends its stops.
		 */
		c->receive_limit_bytes = 10;
		send_kinds(a, "oow");
		assert_int_equal(receive(b, NULL, BATCH, 0, false), -EAGAIN);
		assert_int_equal(queued(c), 1);
		assert_true(c->stops);
		room = pd_bell_seq(bell);
		close_socket(c);
		assert_int_not_equal(pd_bell_seq(bell), room);
		EXPECT(b, 2);
		assert_int_equal(pd_rx_pool->free_count, pd_rx_pool->count);
		pd_graph_wanted = 0;
		close_socket(a);
		close_socket(b);
	}
	pd_vars.rx_backpressure = PD_BACKPRESSURE_DROP;
}

static void test_frames_for_nobody_are_counted(void **state)
{
	struct pd_packet *a = open_socket("pd0", SOCK_RAW, 0);
	struct pd_port *port = pd_port_by_name("pd1");
	struct pd_lane *lane = port->lanes[0];
	struct pd_node *match = graph_of("pd1")->match;

	send_kinds(a, "wo");
	pd_lock(&lane->side[PD_RX].lock);
	assert_int_equal(pd_packet_distribute(port, lane, PD_VECTOR_MAX, false), 2);
	pd_unlock(&lane->side[PD_RX].lock);
	assert_int_equal(match->errors[PD_PACKET_MATCH_ERROR_NO_SOCKET], 2);
	assert_int_equal(lane_counter("pd1", PD_CTR_LANE_RX_DROP_NO_SOCKET), 2);
	close_socket(a);
}

/*
 * Frames of a SOCK_DGRAM sender have their Ethernet header in the buffer's opaque area: it must
 * come through whole.
 */
static void test_who_watches_sees_what_is_sent(void **state)
{
	struct pd_packet *a = open_socket("pd0", SOCK_DGRAM, WANTED);
	struct pd_packet *watcher = open_socket("pd0", SOCK_RAW, ETH_P_ALL);
	struct pd_packet *second = open_socket("pd0", SOCK_RAW, ETH_P_ALL);
	struct pd_packet *deaf = open_socket("pd0", SOCK_RAW, ETH_P_ALL);
	struct pd_packet *b = open_socket("pd1", SOCK_RAW, ETH_P_ALL);
	struct pd_packet *watchers[] = {watcher, second, b};
	struct sockaddr_ll ll = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(OTHER),
				 .sll_ifindex = (int)pd_port_by_name("pd0")->ifindex,
				 .sll_halen = 6,
				 .sll_addr = {2, 0, 0, 0, 0, 9}};
	static char text[] = "a frame of its own length, to be watched";
	struct iovec iov = {text, sizeof(text)};
	uint32_t seq = pd_bell_seq(&watcher->pollable.bell);
	struct mmsghdr m[2];
	uint8_t header[14];

	deaf->ignore_outgoing = true;
	memcpy(header, ll.sll_addr, 6);
	memcpy(header + 6, pd_port_by_name("pd0")->mac, 6);
	header[12] = OTHER >> 8;
	header[13] = OTHER & 0xff;
	for (int i = 0; i < 2; i++)
		m[i].msg_hdr = (struct msghdr){.msg_name = &ll,
					       .msg_namelen = sizeof(ll),
					       .msg_iov = &iov,
					       .msg_iovlen = 1};
	assert_int_equal(pd_packet_send(a, m, 2, MSG_DONTWAIT), 2);
	assert_int_equal(m[1].msg_len, sizeof(text));
	assert_int_not_equal(pd_bell_seq(&watcher->pollable.bell), seq); /* it may sleep */
	for (int w = 0; w < 3; w++) {
		assert_int_equal(receive(watchers[w], NULL, BATCH, 0, false), 2);
		for (int i = 0; i < 2; i++) {
			assert_int_equal(in.m[i].msg_len, 14 + sizeof(text));
			assert_memory_equal(in.data[i], header, 14);
			assert_memory_equal(in.data[i] + 14, text, sizeof(text));
			assert_int_equal(in.name[i].sll_pkttype,
					 watchers[w] == b ? PACKET_OTHERHOST : PACKET_OUTGOING);
		}
	}
	assert_int_equal(receive(deaf, NULL, 1, 0, false), -EAGAIN);
	assert_int_equal(receive(a, NULL, 1, 0, false), -EAGAIN);
	assert_int_equal(pd_rx_pool->free_count, pd_rx_pool->count);
	for (int w = 0; w < 3; w++)
		close_socket(watchers[w]);
	close_socket(deaf);
	close_socket(a);
}

static unsigned rows_of_ports;

static void look_for_ports(const struct pd_node_runtime *row, void *arg)
{
	if (!strcmp(row->node, "packet-deliver") &&
	    (!strcmp(row->engine, "pd0/0 receive") || !strcmp(row->engine, "pd1/0 receive"))) {
		rows_of_ports++;
		*(uint64_t *)arg += row->vectors;
	}
}

static char traced[65536];

static void add_line(void *arg, const char *line)
{
	size_t n = strlen(traced);

	snprintf(traced + n, sizeof(traced) - n, "%s\n", line);
}

/* Print what was traced, and forget it. It must have all the texts, in this order. */
static void expect_traced(const char *const *texts)
{
	char *at = traced;

	*traced = 0;
	assert_int_equal(pd_trace_print(0, add_line, NULL), 0);
	for (; *texts; texts++) {
		char *found = strstr(at, *texts);

		if (!found)
			fail_msg("'%s' is not in:\n%s", *texts, at);
		at = found + strlen(*texts);
	}
	pd_trace_clear();
	assert_int_equal(pd_graph_wanted, 0);
}
#define EXPECT_TRACED(...) expect_traced((const char *const[]){__VA_ARGS__, NULL})

static void test_the_tracer_tells_whose_a_frame_is(void **state)
{
	struct pd_packet *b, *c, *a = open_three(&b, &c);
	char takes[64], gets[64], sends[64];

	snprintf(takes, sizeof(takes), "\n  socket %d takes it\n", b->fd);
	snprintf(gets, sizeof(gets), "\n  into a message of socket %d\n", b->fd);
	snprintf(sends, sizeof(sends), "\n  socket %d, for pd0: 60 bytes in 1 segment", a->fd);
	assert_int_equal(pd_trace_add("packet-input", 2), 0);
	assert_true(pd_graph_wanted > 0);
	send_kinds(a, "wow");
	EXPECT(b, 0, 2);
	EXPECT(c, 1);
	EXPECT_TRACED("Start of pd1/0 receive", "Packet 1", "packet-input\n",
		      "  from pd1: 60 bytes in 1 segment, protocol 0x88b5\n", "  sidecar {",
		      "packet-match", takes, "packet-deliver", gets, "Packet 2",
		      "protocol 0x88b6\n", "packet-match", "  1 socket of pd1 gets a copy\n",
		      "packet-queue", "  into the queues of 1 socket\n");
	assert_null(strstr(traced, "Packet 3"));
	/* One alone, and a frame for nobody. */
	close_socket(c);
	assert_int_equal(pd_trace_add("packet-match", 5), 0);
	send_kinds(a, "ow");
	EXPECT(b, 1);
	EXPECT_TRACED("packet-match", "  no socket of pd1 wants it\n", "error-drop",
		      "  packet-match: no socket wants it\n", "drop", "Packet 2", takes, gets);
	/* What is sent. */
	assert_int_equal(pd_trace_add("packet-send", 5), 0);
	send_kinds(a, "w");
	EXPECT(b, 0);
	EXPECT_TRACED("Start of pd0/0 send", "packet-send", sends, "packet-output",
		      "  to pd0, 60 bytes\n");
	assert_null(strstr(traced, "receive"));
	/* They work for a call: nobody else may give them frames. */
	assert_int_equal(pd_node_may_enter("packet-match"), -EPERM);
	assert_int_equal(pd_node_may_enter("packet-output"), -EPERM);
	assert_int_equal(pd_rx_pool->free_count, pd_rx_pool->count);
	close_socket(b);
	close_socket(a);
}

static void test_runtime_tells_of_sockets(void **state)
{
	uint64_t delivered = 0;

	pd_runtime_each(look_for_ports, &delivered);
	assert_int_equal(rows_of_ports, 2);
	assert_true(delivered > 1000);
}

static void test_buffers_are_taken_as_the_mode_says(void **state)
{
	struct pd_packet *b, *c, *a = open_three(&b, &c);
	struct pd_packet_graph *g = graph_of("pd1");
	uint32_t all = pd_rx_pool->count;

	for (int mode = PD_BATCHING_NONE; mode <= PD_BATCHING_KEEP; mode++) {
		pd_vars.buffer_batching_mode = mode;
		send_kinds(a, "oowoo");
		EXPECT(b, 2); /* four wait for c */
		assert_int_equal(g->kept.n, mode == PD_BATCHING_KEEP ? PD_PACKET_SPARES - 4 : 0);
		assert_int_equal(pd_rx_pool->free_count, all - 4 - g->kept.n);
		EXPECT(c, 0, 1, 3, 4);
		assert_int_equal(pd_rx_pool->free_count, all - g->kept.n);
	}
	/* What is kept is used first. */
	send_kinds(a, "o");
	assert_int_equal(receive(b, NULL, 1, 0, false), -EAGAIN);
	assert_int_equal(g->kept.n, PD_PACKET_SPARES - 5);
	EXPECT(c, 0);
	pd_buffer_free(g->kept.index, g->kept.n);
	g->kept.n = 0;
	assert_int_equal(pd_rx_pool->free_count, all);
	pd_vars.buffer_batching_mode = PD_BATCHING_RECLAIM;
	close_three(a, b, c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fused_and_graph_give_the_same),
		cmocka_unit_test(test_a_frame_that_is_peeked_at_stays),
		cmocka_unit_test(test_several_taps_get_what_each_wants),
		cmocka_unit_test(test_one_of_several_sees_what_one_alone_sees),
		cmocka_unit_test(test_what_finds_no_buffer_stays_or_is_counted),
		cmocka_unit_test(test_a_queue_that_is_full_drops),
		cmocka_unit_test(test_the_ring_is_the_queue_of_each_who_reads),
		cmocka_unit_test(test_a_run_for_another_stays_in_the_ring),
		cmocka_unit_test(test_a_full_queue_stops_the_port),
		cmocka_unit_test(test_frames_for_nobody_are_counted),
		cmocka_unit_test(test_buffers_are_taken_as_the_mode_says),
		cmocka_unit_test(test_who_watches_sees_what_is_sent),
		cmocka_unit_test(test_the_tracer_tells_whose_a_frame_is),
		cmocka_unit_test(test_runtime_tells_of_sockets),
	};
	struct pd_config *config;
	int ret;

	setenv("PALLADIUM_PORTS", "pd0=loop:pd1,ring=64;pd1=loop:pd0,ring=64", 1);
	setenv("PALLADIUM_CONFIG_FILE", "/dev/null", 1);
	pd_progress_set_manual(true);
	pd_vars_load();
	pd_log_set_level(PD_LOG_NONE);
	if (pd_config_load(&config))
		return 1;
	pd_fd_adopt();
	if (pd_sock_layer_start(config))
		return 1;
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	pd_sock_layer_end();
	return ret;
}
