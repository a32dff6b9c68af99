/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A ring between two lanes of one process, one in the device role, the other in the driver role,
 * nothing else in between. Every byte is copied into the ring and out of it, every sidecar too, and
 * each frame's number, length and ends are checked.
 *
 *   ring FRAMES FORMAT TO DIALECT BYTES BATCH   one thread for both: what instructions are counted on
 *   ring threads SECONDS                        two threads, each pinned to a core: frames/s of all these
 *   ring threads SECONDS FORMAT TO DIALECT BYTES BATCH   of this one alone, a number
 *   ring trip N FORMAT DIALECT BYTES            two rings, a frame to and fro: the middle time of N, ns
 *
 * FORMAT split or packed, TO driver or device, DIALECT avip or virtio.
 */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include "counters/counters.h"
#include "transport/vhost/lane.h"

#define SIZE 256
#define GPA 0x100000000ULL

struct config {
	bool packed;
	bool to_driver; /* the device sends */
	bool avip;
	uint32_t len;
	unsigned batch;
};

/* A ring runs between these; what goes back takes others (trip). */
static struct pd_vhost_lane devices[2], drivers[2];
static struct pd_mem_table tables[2];
static uint8_t *areas[2];
static struct pd_buffer *out[PD_VECTOR_MAX];
static __thread unsigned first_out; /* of them, the first that this thread sends */
static uint32_t stop;
static struct config now;

static void die(const char *what)
{
	fprintf(stderr, "ring: %s\n", what);
	exit(1);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void lane_make(struct pd_vhost_lane *lane, enum pd_vhost_role role)
{
	enum pd_vhost_dialect dialect = now.avip ? PD_VHOST_AVIP : PD_VHOST_VIRTIO;
	struct pd_ctr_block *ctr = pd_ctr_alloc(PD_CTR_LANE, 0, 0, "bench");
	struct pd_ctr_block *const blocks[PD_DIRS] = {ctr, ctr};

	memset(lane, 0, sizeof(*lane));
	if (pd_vhost_lane_init(lane, role, dialect, NULL))
		die("no lane");
	pd_lane_init(&lane->lane, pd_vhost_lane_ops(role, dialect, now.packed), 0, 0, blocks);
}

static void lane_end(struct pd_vhost_lane *lane, enum pd_dir dir)
{
	pd_vhost_lane_down(lane, dir);
	pd_ctr_free(lane->lane.side[0].ctr);
	pd_vhost_lane_fini(lane);
}

/* Both ends of ring `which`, and frames to send. */
static void open_ring(unsigned which, struct pd_lane **tx, struct pd_lane **rx)
{
	struct pd_vhost_lane *device = &devices[which], *driver = &drivers[which];
	struct pd_vq_layout layout = {
		.size = SIZE,
		.hdr_bytes = now.avip ? 48 : 12,
		.features = 1ULL << VIRTIO_NET_F_MRG_RXBUF | 1ULL << VIRTIO_F_VERSION_1 |
			    1ULL << VIRTIO_RING_F_EVENT_IDX |
			    (now.packed ? 1ULL << VIRTIO_F_RING_PACKED : 0),
		.buf_bytes = 2048,
		.base = pd_vq_first_base(now.packed),
		.receive = now.to_driver,
	};
	uint64_t bytes = pd_vq_driver_area_bytes(SIZE, 2048);
	struct pd_mem_table *table = &tables[which];

	lane_make(device, PD_VHOST_DEVICE);
	lane_make(driver, PD_VHOST_DRIVER);
	table->n = 0;
	pd_mem_add(table,
		   &(struct pd_mem_region){GPA, bytes, (uintptr_t)areas[which], areas[which]});
	pd_vq_driver_place(&layout, areas[which], GPA);
	if (pd_vhost_lane_up(driver, now.to_driver ? PD_RX : PD_TX, &layout, NULL, -1, -1, false) ||
	    pd_vhost_lane_up(device, now.to_driver ? PD_TX : PD_RX, &layout, table, -1, -1, false))
		die("the ring does not come up");
	*tx = now.to_driver ? &device->lane : &driver->lane;
	*rx = now.to_driver ? &driver->lane : &device->lane;
	for (unsigned i = 0; i < PD_VECTOR_MAX; i++) {
		out[i]->len = out[i]->total_len = now.len;
		for (uint32_t k = 0; k < now.len; k++)
			out[i]->data[k] = (uint8_t)(i + k);
	}
}

static void close_ring(unsigned which)
{
	lane_end(&devices[which], now.to_driver ? PD_TX : PD_RX);
	lane_end(&drivers[which], now.to_driver ? PD_RX : PD_TX);
}

/* One burst out: frames numbered in their sidecar and their first word. Returns how many. */
static unsigned send_burst(struct pd_lane *lane, uint64_t *seq)
{
	struct pd_buffer **mine = &out[first_out];
	int n;

	for (unsigned i = 0; i < now.batch; i++) {
		uint64_t s = *seq + i;

		memcpy(mine[i]->data, &s, 8);
		memcpy(mine[i]->sidecar + 11, &s, 8);
		mine[i]->flags |= PD_BUFFER_SIDECAR;
	}
	pd_lock(&lane->side[PD_TX].lock);
	n = lane->ops->tx(lane, mine, now.batch);
	if (n > 0)
		lane->ops->tx_flush(lane);
	pd_unlock(&lane->side[PD_TX].lock);
	if (n < 0)
		die("tx");
	*seq += (unsigned)n;
	return (unsigned)n;
}

/* Read a frame as a program would, and check it. */
static void check(const struct pd_buffer *b, uint64_t seq)
{
	static __thread uint8_t copy[2048];
	uint64_t in_frame, in_sidecar;

	memcpy(copy, b->data, b->len);
	memcpy(&in_frame, copy, 8);
	memcpy(&in_sidecar, b->sidecar + 11, 8);
	if (b->total_len != now.len || in_frame != seq || (now.avip && in_sidecar != seq) ||
	    (uint8_t)(copy[8] + now.len - 9) != copy[now.len - 1])
		die("a frame is not what was sent");
}

static unsigned receive_burst(struct pd_lane *lane, uint64_t *seq)
{
	struct pd_buffer *in[PD_VECTOR_MAX];
	int n;

	pd_lock(&lane->side[PD_RX].lock);
	n = lane->ops->rx(lane, in, now.batch);
	for (int i = 0; i < n; i++)
		check(in[i], (*seq)++);
	if (n > 0)
		lane->ops->rx_done(lane, (unsigned)n);
	pd_unlock(&lane->side[PD_RX].lock);
	if (n < 0)
		die("rx");
	return (unsigned)n;
}

static void *sender(void *arg)
{
	uint64_t seq = 0;

	while (!pd_load_relaxed(&stop))
		if (!send_burst(arg, &seq))
			pd_cpu_relax();
	return NULL;
}

/* Move `frames` frames in bursts, in this thread. */
static void run_alone(uint64_t frames)
{
	struct pd_lane *tx, *rx;
	uint64_t sent = 0, got = 0;

	open_ring(0, &tx, &rx);
	while (got < frames) {
		send_burst(tx, &sent);
		while (got < sent)
			receive_burst(rx, &got);
	}
	close_ring(0);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* The middle of `n` values, which are sorted. */
static double middle_of(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), by_value);
	return n ? values[n / 2] : 0;
}

/* Start `run` on the other core. */
static pthread_t start_other(void *(*run)(void *), void *arg)
{
	pthread_t thread;

	pin(1);
	if (pthread_create(&thread, NULL, run, arg))
		die("no thread");
	pin(0);
	return thread;
}

/*
 * Frames per second with a thread at each end: the middle of many short stretches, so that other
 * programs of the machine, which hold one end up now and then, do not count.
 */
#define STRETCH 16384
#define STRETCHES_MAX 8192
static double run_threads(double each)
{
	static double rates[STRETCHES_MAX];
	struct pd_lane *tx, *rx;
	double begin, start, end;
	pthread_t thread;
	uint64_t got = 0;
	size_t n = 0;

	open_ring(0, &tx, &rx);
	pd_store_relaxed(&stop, 0);
	thread = start_other(sender, tx);
	start = begin = seconds();
	do {
		uint64_t from = got;

		while (got < from + STRETCH)
			if (!receive_burst(rx, &got))
				pd_cpu_relax();
		end = seconds();
		rates[n++] = (double)(got - from) / (end - start);
		start = end;
	} while (end - begin < each && n < STRETCHES_MAX);
	pd_store_relaxed(&stop, 1);
	pthread_join(thread, NULL);
	close_ring(0);
	return middle_of(rates, n);
}

/* The table of everything. */
static void print_table(double each)
{
	static const uint32_t lens[] = {64, 1500};
	static const unsigned batches[] = {1, 32, 256};

	pin(0);
	printf("%-7s %-17s %-7s %5s %6s %10s %8s\n", "format", "direction", "dialect", "bytes",
	       "batch", "Mframes/s", "Gbit/s");
	for (unsigned k = 0; k < 48; k++) {
		double rate;

		now = (struct config){k / 24, k / 12 % 2, k / 6 % 2 == 0, lens[k / 3 % 2],
				      batches[k % 3]};
		rate = run_threads(each);
		printf("%-7s %-17s %-7s %5u %6u %10.2f %8.2f\n", now.packed ? "packed" : "split",
		       now.to_driver ? "device to driver" : "driver to device",
		       now.avip ? "avip" : "virtio", now.len, now.batch, rate / 1e6,
		       rate * now.len * 8 / 1e9);
		fflush(stdout);
	}
}

/* The two rings of a round trip, seen from one end. */
struct end {
	struct pd_lane *tx, *rx;
	uint64_t n;
};

/* Send each frame back. */
static void *answer(void *arg)
{
	struct end *e = arg;
	uint64_t got = 0, sent = 0;

	first_out = PD_VECTOR_MAX - 1;
	while (got < e->n) {
		/*
		 * No pause between two looks, as in bounds.c: it takes as long as a line takes from
		 * core to core.
		 */
		if (receive_burst(e->rx, &got) && !send_burst(e->tx, &sent))
			die("no room for an answer");
	}
	return NULL;
}

/* The middle of `n` round trips, in ns; what is timed is TRIPS of them together. */
#define TRIPS 16
static double run_trip(uint64_t n)
{
	struct end here = {.n = n / TRIPS * TRIPS}, there = here;
	double *times = malloc(n / TRIPS * sizeof(*times)), middle;
	uint64_t sent = 0, got = 0;
	pthread_t thread;

	now.batch = 1;
	now.to_driver = false;
	open_ring(0, &here.tx, &there.rx);
	now.to_driver = true;
	open_ring(1, &there.tx, &here.rx);
	if (!times)
		die("no memory");
	thread = start_other(answer, &there);
	while (sent < here.n) {
		double start = seconds();
		uint64_t end = sent + TRIPS;

		while (sent < end) {
			send_burst(here.tx, &sent);
			while (!receive_burst(here.rx, &got))
				;
		}
		times[end / TRIPS - 1] = (seconds() - start) / TRIPS * 1e9;
	}
	pthread_join(thread, NULL);
	middle = middle_of(times, n / TRIPS);
	free(times);
	return middle;
}

/* The row that the arguments from `v` on name. */
static struct config row_of(char **v)
{
	return (struct config){!strcmp(v[0], "packed"), !strcmp(v[1], "driver"),
			       !strcmp(v[2], "avip"), (uint32_t)atoi(v[3]), (unsigned)atoi(v[4])};
}

/* What may be asked for. */
static void check_row(void)
{
	if (now.len < 64 || now.len > 2000 || !now.batch || now.batch > PD_VECTOR_MAX)
		die("BYTES is 64 to 2000, BATCH 1 to 256");
}

int main(int argc, char **argv)
{
	bool threads = argc > 2 && !strcmp(argv[1], "threads");
	struct pd_buffer_pool *pool;
	uint32_t idx[PD_VECTOR_MAX];
	int err;

	pool = pd_buffer_pool_create("bench", PD_VECTOR_MAX, 2048, &err);
	for (unsigned i = 0; i < 2; i++) {
		areas[i] = mmap(NULL, pd_vq_driver_area_bytes(SIZE, 2048), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (areas[i] == MAP_FAILED)
			die("no memory");
	}
	if (!pool || pd_buffer_alloc(pool, idx, PD_VECTOR_MAX) != PD_VECTOR_MAX)
		die("no memory");
	for (unsigned i = 0; i < PD_VECTOR_MAX; i++)
		out[i] = pd_buffer_get(idx[i]);
	if (threads && argc == 3) {
		print_table(atof(argv[2]));
	} else if (threads && argc == 8) {
		now = row_of(&argv[3]);
		check_row();
		pin(0);
		printf("%.3f\n", run_threads(atof(argv[2])) / 1e6);
	} else if (argc == 6 && !strcmp(argv[1], "trip")) {
		now = row_of((char *[]){argv[3], "device", argv[4], argv[5], "1"});
		check_row();
		pin(0);
		printf("%.1f\n", run_trip(pd_max(strtoull(argv[2], NULL, 0), TRIPS + 0ull)));
	} else if (argc == 7) {
		now = row_of(&argv[2]);
		check_row();
		run_alone(strtoull(argv[1], NULL, 0));
	} else {
		fprintf(stderr,
			"usage: ring FRAMES split|packed driver|device avip|virtio BYTES BATCH,\n"
			"       ring threads SECONDS [the same], ring trip N split|packed "
			"avip|virtio BYTES\n");
		return 2;
	}
	return 0;
}
