/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One end of a ring, without sockets: frames straight through a port's first lane, for comparison
 * with an end of dpdk-testpmd. tests/bench/rings.py starts two ends, each a process on a core of
 * its own.
 *
 *   ringend PORT tx SIZE BATCH           send frames of SIZE bytes until SIGTERM
 *   ringend PORT rx SIZE BATCH SECONDS   receive for SECONDS from the first frame on, print the rate
 *   ringend PORT any SIZE BATCH SECONDS  the same where the sender is somebody else's
 *   ringend PORT look SIZE BATCH SECONDS the same without the copy
 *
 * PORT is what PALLADIUM_PORTS would say of pd0. Each frame is copied out of the ring, as a
 * program's receive would, and then checked: with rx every byte of it and its place in the
 * sequence; with any its length, and its first 42 bytes against those of the first frame. With look
 * that is checked where the frame stands, which is what a driver does that has its buffers in the
 * ring, as DPDK's. The result is one line of JSON on standard output. Both ends poll.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "config/config.h"
#include "transport/transport.h"

#define BATCH_MAX 256
#define FRAME_MAX 2048
#define HEADER_BYTES 14
/*
 * Of a stranger's frame only these are known to be the same each time: Ethernet, IPv4 and UDP
 * headers.
 */
#define STRANGER_BYTES 42
/* How many polls go by between two looks at the clock. */
#define POLLS_PER_LOOK 1024

static uint8_t frames[BATCH_MAX][FRAME_MAX] PD_CACHE_ALIGNED;
static uint8_t expected[FRAME_MAX];
static volatile sig_atomic_t over;

static void stop(int sig)
{
	over = 1;
}

static void die(const char *what)
{
	fprintf(stderr, "ringend: %s\n", what);
	exit(1);
}

/* The first lane of the port that `text` describes. */
static struct pd_lane *open_lane(const char *text)
{
	struct pd_config *config = pd_config_new();

	if (!config || pd_config_parse_ports(config, "ringend", text, strlen(text), NULL, NULL))
		die("no such port");
	pd_config_finish(config, NULL, NULL);
	if (pd_ports_init(config) || !pd_port_count || pd_port_open(&pd_ports[0]) ||
	    !pd_port_lease_take(&pd_ports[0]))
		die("the port does not open");
	return pd_ports[0].lanes[0];
}

/* What follows the Ethernet header and the number is the same in every frame. */
static void make_frame(uint8_t *f)
{
	memset(f, 0xff, 6);
	memset(f + 6, 0x02, 6);
	f[12] = 0x88;
	f[13] = 0xb5;
	for (unsigned i = HEADER_BYTES; i < FRAME_MAX; i++)
		f[i] = (uint8_t)(i * 167 + 13);
}

static int send_frames(struct pd_lane *lane, uint32_t size, unsigned batch)
{
	struct pd_lane_side *side = &lane->side[PD_TX];
	struct pd_buffer *bufs[BATCH_MAX];
	uint32_t indices[BATCH_MAX];
	struct pd_buffer_pool *pool;
	uint64_t seq = 0;
	int err;

	pool = pd_buffer_pool_create("ringend", BATCH_MAX, 0, &err);
	if (!pool || pd_buffer_alloc(pool, indices, batch) != batch)
		die("no memory");
	for (unsigned i = 0; i < batch; i++) {
		make_frame(frames[i]);
		bufs[i] = pd_buffer_get(indices[i]);
		bufs[i]->data = frames[i];
		bufs[i]->len = bufs[i]->total_len = size;
		bufs[i]->flags = PD_BUFFER_EXTERNAL | PD_BUFFER_SIDECAR;
		memset(bufs[i]->sidecar, 0, sizeof(bufs[i]->sidecar));
	}
	while (!over) {
		int n = 0;

		for (unsigned i = 0; i < batch; i++) {
			uint64_t number = seq + i;

			memcpy(frames[i] + HEADER_BYTES, &number, sizeof(number));
		}
		pd_lock(&side->lock);
		if (side->up) {
			n = lane->ops->tx(lane, bufs, batch);
			if (n > 0)
				lane->ops->tx_flush(lane);
		}
		pd_unlock(&side->lock);
		if (n > 0)
			seq += (unsigned)n;
		else
			pd_cpu_relax();
	}
	printf("{\"mode\":\"tx\",\"frames\":%llu}\n", (unsigned long long)seq);
	return 0;
}

/* What a receiver has seen. */
struct tally {
	uint64_t frames, bad, disorder;
	uint64_t next; /* the number that should come */
};

/* Whether the frame at `f`, of `len` bytes, is the next of our own sender's. */
static void check_own(struct tally *t, const uint8_t *f, uint32_t len, uint32_t size)
{
	const unsigned behind = HEADER_BYTES + sizeof(uint64_t);
	uint64_t number;

	memcpy(&number, f + HEADER_BYTES, sizeof(number));
	t->disorder += number != t->next;
	t->next = number + 1;
	t->bad += len != size || memcmp(f, expected, HEADER_BYTES) ||
		  memcmp(f + behind, expected + behind, size - behind);
	t->frames++;
}

/* The same of somebody else's: the first frame says what the others look like. */
static void check_strangers(struct tally *t, const uint8_t *f, uint32_t len, uint32_t size)
{
	if (!t->frames)
		memcpy(expected, f, STRANGER_BYTES);
	t->bad += len != size || memcmp(f, expected, STRANGER_BYTES);
	t->frames++;
}

/* How frames are received: the words of the command line. */
enum how { HOW_RX, HOW_ANY, HOW_LOOK, HOWS };
static const char *const how_names[HOWS] = {"rx", "any", "look"};

/* One burst out of the ring, checked. Returns how many frames there were. */
static unsigned receive_burst(struct pd_lane *lane, uint32_t size, unsigned batch, enum how how,
			      struct tally *t)
{
	struct pd_lane_side *side = &lane->side[PD_RX];
	struct pd_buffer *bufs[BATCH_MAX];
	uint32_t lens[BATCH_MAX];
	int n = 0;

	pd_lock(&side->lock);
	if (side->up)
		n = lane->ops->rx(lane, bufs, batch);
	for (int i = 0; i < n; i++) {
		lens[i] = bufs[i]->total_len;
		if (how == HOW_LOOK)
			check_strangers(t, bufs[i]->data, lens[i], size);
		else if (pd_likely(bufs[i]->next == PD_BUFFER_NONE && lens[i] <= FRAME_MAX))
			memcpy(frames[i], bufs[i]->data, lens[i]);
		else
			pd_buffer_copy_out(bufs[i], 0, frames[i], FRAME_MAX);
	}
	if (n > 0)
		lane->ops->rx_done(lane, (unsigned)n);
	pd_unlock(&side->lock);
	for (int i = 0; i < n && how != HOW_LOOK; i++) {
		if (how == HOW_RX)
			check_own(t, frames[i], lens[i], size);
		else
			check_strangers(t, frames[i], lens[i], size);
	}
	return n > 0 ? (unsigned)n : 0;
}

static int receive_frames(struct pd_lane *lane, uint32_t size, unsigned batch, double seconds,
			  enum how how)
{
	const uint64_t most = (uint64_t)(seconds * 1e9);
	uint64_t start = 0, now = 0, polls = 0;
	struct tally t = {0};

	make_frame(expected);
	do {
		unsigned n = receive_burst(lane, size, batch, how, &t);

		if (!n)
			pd_cpu_relax();
		if (n && !start) {
			/* What was on its way before belongs to nobody's rate. */
			start = pd_clock_ns();
			t.disorder = 0;
		}
		if (++polls % POLLS_PER_LOOK == 0)
			now = pd_clock_ns();
	} while (!over && (!start || now < start + most));
	now = pd_clock_ns();
	printf("{\"mode\":\"rx\",\"frames\":%llu,\"bad\":%llu,\"disorder\":%llu,\"mpps\":%.4f}\n",
	       (unsigned long long)t.frames, (unsigned long long)t.bad,
	       (unsigned long long)t.disorder,
	       start ? (double)t.frames * 1e3 / (double)(now - start) : 0.0);
	return t.bad || t.disorder;
}

int main(int argc, char **argv)
{
	struct pd_lane *lane;
	unsigned size, batch;
	bool tx = argc == 5 && !strcmp(argv[2], "tx");
	enum how how = HOW_RX;
	int ret;

	while (!tx && argc == 6 && how < HOWS && strcmp(argv[2], how_names[how]))
		how++;
	if (!tx && (argc != 6 || how == HOWS)) {
		fprintf(stderr,
			"usage: ringend PORT tx SIZE BATCH | rx|any|look SIZE BATCH SECONDS\n");
		return 2;
	}
	size = (unsigned)strtoul(argv[3], NULL, 0);
	batch = (unsigned)strtoul(argv[4], NULL, 0);
	if (size < 64 || size > FRAME_MAX || !batch || batch > BATCH_MAX) {
		fprintf(stderr, "ringend: SIZE is 64 to %d, BATCH 1 to %d\n", FRAME_MAX, BATCH_MAX);
		return 2;
	}
	signal(SIGTERM, stop);
	signal(SIGINT, stop);
	lane = open_lane(argv[1]);
	fprintf(stderr, "ready\n");
	if (tx)
		ret = send_frames(lane, size, batch);
	else
		ret = receive_frames(lane, size, batch, strtod(argv[5], NULL), how);
	pd_ports_close_all();
	return ret;
}
