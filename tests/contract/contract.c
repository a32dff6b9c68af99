/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The contract of lanes (vlib/lane.h) and ports (transport/transport.h), put to every transport in
 * every role: one row of `links` per way to join two ports within this process. Every test runs over
 * every row, and where it has a direction, both ways.
 *
 * A frame is a slice of one random table, so that contents are compared without being made first; its
 * sidecar is derived from its number, so that each differs.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "counters/counters.h"
#include "transport/transport.h"
#include "vlib/progress.h"

/* One way to join two ports. */
struct link {
	const char *name;
	const char *transport;
	bool mrg_is_one; /* every frame arrives as one buffer */
	enum pd_conf_mode mode[2];
	enum pd_conf_side role[2];
	uint32_t ring;
};

static const struct link links[] = {
	{.name = "loop", .transport = "loop", .mrg_is_one = true, .ring = 256},
	{.name = "loop, two slots", .transport = "loop", .mrg_is_one = true, .ring = 2},
	{.name = "vhost: back-end connects, front-end listens",
	 .transport = "vhost-user",
	 .mode = {PD_CONF_MODE_CONNECT, PD_CONF_MODE_LISTEN},
	 .role = {PD_CONF_BACKEND, PD_CONF_FRONTEND},
	 .ring = 256},
	{.name = "vhost: back-end listens, front-end connects",
	 .transport = "vhost-user",
	 .mode = {PD_CONF_MODE_LISTEN, PD_CONF_MODE_CONNECT},
	 .role = {PD_CONF_BACKEND, PD_CONF_FRONTEND},
	 .ring = 256},
	{.name = "vhost, ring of 1024",
	 .transport = "vhost-user",
	 .mode = {PD_CONF_MODE_LISTEN, PD_CONF_MODE_CONNECT},
	 .role = {PD_CONF_BACKEND, PD_CONF_FRONTEND},
	 .ring = 1024},
};

#define TABLE_BYTES (PD_FRAME_MAX_BYTES + 8192)
#define LOST_WAKEUP_MS 20000
#define POOL_BUFFERS 2048

static const struct link *current;
static struct pd_config *config;
static struct pd_port *ports[2];
static uint8_t table[TABLE_BYTES];
static struct pd_buffer_pool *headers;
static char socket_path[64];

/* A check in a thread, where cmocka's assertions must not jump. */
#define must(cond)                                                                            \
	do {                                                                                  \
		if (!(cond)) {                                                                \
			fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, current->name, \
				#cond);                                                       \
			abort();                                                              \
		}                                                                             \
	} while (0)

/* --- a link --------------------------------------------------------------------------------- */

/* Wait until `port` is in `state`. */
static void wait_state(struct pd_port *port, enum pd_port_state state)
{
	static const struct timespec nap = {0, 200000};
	uint64_t until = pd_clock_ns() + LOST_WAKEUP_MS * PD_NS_PER_MS;

	while (pd_load_acquire(&port->state) != state) {
		must(pd_clock_ns() < until);
		nanosleep(&nap, NULL);
	}
}

static void link_up(void)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(pd_port_open(ports[i]), 0);
	for (int i = 0; i < 2; i++)
		wait_state(ports[i], PD_PORT_UP);
}

static int link_setup(void **state)
{
	static const char *const names[2] = {"pd1", "pd2"};

	current = *state;
	config = calloc(1, sizeof(*config));
	assert_non_null(config);
	config->port_count = 2;
	snprintf(socket_path, sizeof(socket_path), "/tmp/pd-contract-%d.sock", (int)getpid());
	for (int i = 0; i < 2; i++) {
		struct pd_port_config *pc = &config->ports[i];

		snprintf(pc->name, sizeof(pc->name), "%s", names[i]);
		snprintf(pc->peer, sizeof(pc->peer), "%s", names[!i]);
		snprintf(pc->transport, sizeof(pc->transport), "%s", current->transport);
		snprintf(pc->path, sizeof(pc->path), "%s", socket_path);
		pc->mode = current->mode[i];
		pc->role = current->role[i];
		pc->mtu = PD_CONF_MTU_MAX;
		pc->queues = 1;
		pc->ring = current->ring;
		pc->mac[0] = 2;
		pc->mac[5] = (uint8_t)i;
	}
	assert_int_equal(pd_ports_init(config), 0);
	for (int i = 0; i < 2; i++)
		ports[i] = pd_port_by_name(names[i]);
	link_up();
	return 0;
}

static int link_teardown(void **state)
{
	pd_ports_close_all();
	pd_progress_stop();
	unlink(socket_path);
	free(config);
	return headers->free_count == headers->count ? 0 : -1;
}

static struct pd_lane *lane_of(int i)
{
	return ports[i]->lanes[0];
}

/* --- frames --------------------------------------------------------------------------------- */

/* The sidecar of frame `seq`: no two are alike, and no byte is constant. */
static void sidecar_of(uint32_t seq, uint8_t *out)
{
	uint32_t x = seq * 2654435761u + 1;

	for (int i = 0; i < PD_BUFFER_SIDECAR_BYTES; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		out[i] = (uint8_t)x;
	}
	out[2] &= 0xfe; /* bit 0 of generic_flags: a control frame, which has no bytes */
	memcpy(out + 40, &seq, sizeof(seq));
}

static const uint8_t *bytes_of(uint32_t seq)
{
	return table + seq % (TABLE_BYTES - PD_FRAME_MAX_BYTES - 1);
}

/* Make frame `seq` of `len` bytes in `segments` pieces of external memory; returns it. */
static struct pd_buffer *frame(uint32_t seq, uint32_t len, unsigned segments)
{
	struct pd_buffer *head = NULL, *last = NULL;
	uint32_t idx[4], done = 0;

	must(pd_buffer_alloc(headers, idx, segments) == segments);
	for (unsigned i = 0; i < segments; i++) {
		struct pd_buffer *b = pd_buffer_get(idx[i]);

		b->data = (uint8_t *)(uintptr_t)bytes_of(seq) + done;
		b->len = i + 1 == segments ? len - done : (len - done) / 3;
		b->flags = PD_BUFFER_EXTERNAL;
		done += b->len;
		if (last)
			last->next = b->index;
		else
			head = b;
		last = b;
	}
	head->total_len = len;
	head->flags |= PD_BUFFER_SIDECAR | (len ? 0 : PD_BUFFER_CONTROL);
	sidecar_of(seq, head->sidecar);
	return head;
}

static void frames_free(struct pd_buffer **bufs, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		pd_buffer_free(&bufs[i]->index, 1);
}

/* Check that `b` is frame `seq` of `len` bytes. */
static void check_frame(const struct pd_buffer *b, uint32_t seq, uint32_t len)
{
	static __thread uint8_t got[PD_FRAME_MAX_BYTES + 1];
	uint8_t want[PD_BUFFER_SIDECAR_BYTES];

	must(b->total_len == len);
	must(!!(b->flags & PD_BUFFER_CONTROL) == !len);
	must(b->flags & PD_BUFFER_SIDECAR);
	must(pd_buffer_copy_out(b, 0, got, sizeof(got)) == len);
	must(!memcmp(got, bytes_of(seq), len));
	sidecar_of(seq, want);
	must(!memcmp(b->sidecar + 2, want + 2, sizeof(want) - 2));
	if (current->mrg_is_one)
		must(b->sidecar[0] == 1 && b->sidecar[1] == 0);
}

/* --- waiting -------------------------------------------------------------------------------- */

/* A sleeper with its eventfd. */
struct sleeper {
	struct pd_lane_waiter w;
	uint64_t rounds; /* sleeps that ended */
};

static void sleeper_init(struct sleeper *s)
{
	memset(s, 0, sizeof(*s));
	pd_list_init(&s->w.node);
	s->w.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	must(s->w.wake_fd >= 0);
}

/*
 * Sleep once, from the position s->w.seen. The side's lock is held, before and after. Returns false if
 * there was something new already. Aborts when nothing ends the sleep: a lost wake-up.
 */
static bool sleep_once(struct pd_lane *lane, enum pd_dir dir, struct sleeper *s)
{
	struct pd_lane_side *side = &lane->side[dir];
	struct pollfd fds[2];
	uint64_t count;
	int n;

	if (!pd_lane_sleep(lane, dir, &s->w))
		return false;
	fds[0] = (struct pollfd){.fd = s->w.wake_fd, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = side->event_fd, .events = POLLIN};
	pd_unlock(&side->lock);
	n = poll(fds, 2, LOST_WAKEUP_MS);
	must(n > 0);
	if (fds[0].revents)
		must(read(s->w.wake_fd, &count, sizeof(count)) == sizeof(count));
	pd_lock(&side->lock);
	pd_lane_wake(lane, dir, &s->w, fds[1].revents & POLLIN);
	s->rounds++;
	return true;
}

/* Wait until the side is ready; its lock is held, before and after. */
static void wait_ready(struct pd_lane *lane, enum pd_dir dir, struct sleeper *s)
{
	while (!pd_lane_ready(lane, dir)) {
		/* Not a position read now: what came since pd_lane_ready looked must end the sleep. */
		s->w.seen = lane->side[dir].cursor;
		sleep_once(lane, dir, s);
	}
}

/* Send `n` frames, sleeping for room as needed. */
static void send_all(struct pd_lane *lane, struct pd_buffer **bufs, unsigned n, struct sleeper *s)
{
	struct pd_lane_side *side = &lane->side[PD_TX];
	unsigned done = 0;

	pd_lock(&side->lock);
	while (done < n) {
		int ret;

		/* Read before tx: room that comes after tx has looked must end the sleep. */
		s->w.seen = lane->ops->position(lane, PD_TX);
		ret = lane->ops->tx(lane, bufs + done, n - done);
		must(ret >= 0);
		lane->ops->tx_flush(lane);
		done += (unsigned)ret;
		if (ret == 0)
			sleep_once(lane, PD_TX, s);
	}
	pd_unlock(&side->lock);
}

/* Send one frame and free it. */
static void send_one(struct pd_lane *lane, uint32_t seq, uint32_t len)
{
	struct sleeper s;
	struct pd_buffer *b = frame(seq, len, 1);

	sleeper_init(&s);
	send_all(lane, &b, 1, &s);
	frames_free(&b, 1);
	close(s.w.wake_fd);
}

/* --- the tests ------------------------------------------------------------------------------ */

/* What a sender and a receiver thread agree on. */
struct flow {
	struct pd_lane *from, *to;
	uint32_t frames;
	uint32_t (*len_of)(uint32_t seq);
	bool mixed; /* batches of 1 to PD_VECTOR_MAX, several segments; else one frame at a time */
};

static void *flow_sender(void *arg)
{
	struct flow *f = arg;
	struct pd_buffer *bufs[PD_VECTOR_MAX];
	unsigned seed = 1, n;
	struct sleeper s;

	sleeper_init(&s);
	for (uint32_t seq = 0; seq < f->frames; seq += n) {
		n = f->mixed ? 1 + (unsigned)rand_r(&seed) % PD_VECTOR_MAX : 1;
		n = pd_min(n, f->frames - seq);
		for (unsigned i = 0; i < n; i++)
			bufs[i] = frame(seq + i, f->len_of(seq + i),
					f->mixed ? 1 + (seq + i) % 3 : 1);
		send_all(f->from, bufs, n, &s);
		frames_free(bufs, n);
	}
	close(s.w.wake_fd);
	return NULL;
}

static void flow_receive(struct flow *f)
{
	struct pd_lane_side *side = &f->to->side[PD_RX];
	struct pd_buffer *bufs[PD_VECTOR_MAX];
	unsigned seed = 2;
	uint32_t seq = 0;
	struct sleeper s;

	sleeper_init(&s);
	pd_lock(&side->lock);
	while (seq < f->frames) {
		unsigned n = f->mixed ? 1 + (unsigned)rand_r(&seed) % PD_VECTOR_MAX : 1;
		int got;

		wait_ready(f->to, PD_RX, &s);
		got = f->to->ops->rx(f->to, bufs, n);
		must(got > 0 && (unsigned)got <= n);
		for (int i = 0; i < got; i++)
			check_frame(bufs[i], seq + (uint32_t)i, f->len_of(seq + (uint32_t)i));
		f->to->ops->rx_done(f->to, (unsigned)got);
		seq += (uint32_t)got;
	}
	must(f->to->ops->rx(f->to, bufs, 1) == 0);
	pd_unlock(&side->lock);
	close(s.w.wake_fd);
}

static void *flow_receiver(void *arg)
{
	flow_receive(arg);
	return NULL;
}

static void flow_run(struct flow *f)
{
	pthread_t sender;

	assert_int_equal(pthread_create(&sender, NULL, flow_sender, f), 0);
	flow_receive(f);
	pthread_join(sender, NULL);
}

static uint32_t len_each_size(uint32_t seq)
{
	return seq;
}

static uint32_t len_mixed(uint32_t seq)
{
	static const uint32_t lens[] = {
		60, 0, 64, 1514, 1, 576, 9014, 60, 13, 0, PD_FRAME_MAX_BYTES};

	return lens[seq % PD_ARRAY_SIZE(lens)];
}

static uint32_t len_64(uint32_t seq)
{
	return 64;
}

static void test_every_size(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct flow f = {.from = lane_of(i),
				 .to = lane_of(!i),
				 .frames = PD_FRAME_MAX_BYTES + 1,
				 .len_of = len_each_size,
				 .mixed = true};

		flow_run(&f);
	}
}

static void test_batches_of_every_size_and_sums_of_counters(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct flow f = {.from = lane_of(i),
				 .to = lane_of(!i),
				 .frames = 20000,
				 .len_of = len_mixed,
				 .mixed = true};
		struct pd_ctr_block *tx = f.from->side[PD_TX].ctr, *rx = f.to->side[PD_RX].ctr;
		uint64_t bytes = 0, control = 0;

		flow_run(&f);
		for (uint32_t seq = 0; seq < f.frames; seq++) {
			bytes += len_mixed(seq);
			control += !len_mixed(seq);
		}
		assert_int_equal(pd_ctr_get(tx, PD_CTR_LANE_TX_FRAMES), f.frames);
		assert_int_equal(pd_ctr_get(rx, PD_CTR_LANE_RX_FRAMES), f.frames);
		assert_int_equal(pd_ctr_get(tx, PD_CTR_LANE_TX_BYTES), bytes);
		assert_int_equal(pd_ctr_get(rx, PD_CTR_LANE_RX_BYTES), bytes);
		assert_int_equal(pd_ctr_get(tx, PD_CTR_LANE_TX_CONTROL), control);
		assert_int_equal(pd_ctr_get(rx, PD_CTR_LANE_RX_CONTROL), control);
	}
}

static void test_both_directions_at_once(void **state)
{
	struct flow f[2];
	pthread_t senders[2], other;

	for (int i = 0; i < 2; i++) {
		f[i] = (struct flow){.from = lane_of(i),
				     .to = lane_of(!i),
				     .frames = 5000,
				     .len_of = len_mixed,
				     .mixed = true};
		assert_int_equal(pthread_create(&senders[i], NULL, flow_sender, &f[i]), 0);
	}
	assert_int_equal(pthread_create(&other, NULL, flow_receiver, &f[1]), 0);
	flow_receive(&f[0]);
	pthread_join(other, NULL);
	for (int i = 0; i < 2; i++)
		pthread_join(senders[i], NULL);
}

static void test_shown_frames_stay_until_they_are_consumed(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct pd_lane *from = lane_of(i), *to = lane_of(!i);
		struct pd_buffer *bufs[PD_VECTOR_MAX];

		send_one(from, 1, 100);
		send_one(from, 2, 0);
		pd_lock(&to->side[PD_RX].lock);
		assert_int_equal(pd_lane_ready(to, PD_RX), 2);
		for (int round = 0; round < 3; round++) {
			assert_int_equal(to->ops->rx(to, bufs, PD_VECTOR_MAX), 2);
			check_frame(bufs[0], 1, 100);
			check_frame(bufs[1], 2, 0);
			to->ops->rx_done(to, 0);
		}
		assert_int_equal(to->ops->rx(to, bufs, 2), 2);
		to->ops->rx_done(to, 1);
		assert_int_equal(to->ops->rx(to, bufs, 2), 1);
		check_frame(bufs[0], 2, 0);
		to->ops->rx_done(to, 1);
		assert_int_equal(to->ops->rx(to, bufs, 2), 0);
		assert_int_equal(pd_lane_ready(to, PD_RX), 0);
		pd_unlock(&to->side[PD_RX].lock);
	}
}

static void test_nothing_is_published_before_flush(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct pd_lane *from = lane_of(i), *to = lane_of(!i);
		struct pd_buffer *b = frame(7, 333, 2), *got[1];

		pd_lock(&from->side[PD_TX].lock);
		assert_int_equal(from->ops->tx(from, &b, 1), 1);
		pd_unlock(&from->side[PD_TX].lock);

		pd_lock(&to->side[PD_RX].lock);
		assert_int_equal(pd_lane_ready(to, PD_RX), 0);
		pd_unlock(&to->side[PD_RX].lock);

		pd_lock(&from->side[PD_TX].lock);
		from->ops->tx_flush(from);
		from->ops->tx_flush(from); /* nothing more to publish: harmless */
		pd_unlock(&from->side[PD_TX].lock);

		pd_lock(&to->side[PD_RX].lock);
		assert_int_equal(pd_lane_ready(to, PD_RX), 1);
		assert_int_equal(to->ops->rx(to, got, 1), 1);
		check_frame(got[0], 7, 333);
		to->ops->rx_done(to, 1);
		pd_unlock(&to->side[PD_RX].lock);
		frames_free(&b, 1);
	}
}

static void test_a_full_ring_holds_back_and_loses_nothing(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct pd_lane *from = lane_of(i), *to = lane_of(!i);
		uint32_t sent = 0, seen;
		struct pd_buffer *got[1];

		pd_lock(&from->side[PD_TX].lock);
		for (;;) {
			struct pd_buffer *b = frame(sent, 64, 1);
			int ret = from->ops->tx(from, &b, 1);

			frames_free(&b, 1);
			if (ret == 0)
				break;
			assert_int_equal(ret, 1);
			sent++;
			assert_true(sent <= 2 * PD_CONF_RING_MAX);
		}
		assert_true(sent > 0);
		assert_int_equal(pd_lane_ready(from, PD_TX), 0);
		seen = from->ops->position(from, PD_TX);
		from->ops->tx_flush(from);
		assert_false(from->ops->arm(from, PD_TX, seen));
		pd_unlock(&from->side[PD_TX].lock);

		pd_lock(&to->side[PD_RX].lock);
		for (uint32_t seq = 0; seq < sent; seq++) {
			assert_int_equal(to->ops->rx(to, got, 1), 1);
			check_frame(got[0], seq, 64);
			to->ops->rx_done(to, 1);
		}
		assert_int_equal(to->ops->rx(to, got, 1), 0);
		pd_unlock(&to->side[PD_RX].lock);

		pd_lock(&from->side[PD_TX].lock);
		while (from->ops->position(from, PD_TX) == seen) /* a peer in another thread */
			sched_yield();
		assert_true(from->ops->arm(from, PD_TX, seen));
		assert_true(pd_lane_ready(from, PD_TX) > 0);
		from->ops->disarm(from, PD_TX);
		pd_unlock(&from->side[PD_TX].lock);
	}
}

static void test_too_long_is_refused_and_what_stands_before_it_goes(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct pd_lane *from = lane_of(i), *to = lane_of(!i);
		struct pd_buffer *b[2] = {frame(1, 60, 1), frame(2, PD_FRAME_MAX_BYTES + 1, 1)},
				 *got[2];

		pd_lock(&from->side[PD_TX].lock);
		assert_int_equal(from->ops->tx(from, b, 2), 1);
		from->ops->tx_flush(from);
		assert_int_equal(from->ops->tx(from, b + 1, 1), -EMSGSIZE);
		from->ops->tx_flush(from);
		pd_unlock(&from->side[PD_TX].lock);
		frames_free(b, 2);

		pd_lock(&to->side[PD_RX].lock);
		assert_int_equal(to->ops->rx(to, got, 2), 1);
		check_frame(got[0], 1, 60);
		to->ops->rx_done(to, 1);
		pd_unlock(&to->side[PD_RX].lock);
		send_one(from, 3, 61);
		pd_lock(&to->side[PD_RX].lock);
		assert_int_equal(to->ops->rx(to, got, 2), 1);
		check_frame(got[0], 3, 61);
		to->ops->rx_done(to, 1);
		pd_unlock(&to->side[PD_RX].lock);
	}
}

static void test_a_frame_without_sidecar_arrives_with_zeroes(void **state)
{
	static const uint8_t zeroes[PD_BUFFER_SIDECAR_BYTES];
	struct pd_lane *from = lane_of(0), *to = lane_of(1);
	struct pd_buffer *b = frame(5, 99, 1), *got;
	struct sleeper s;

	b->flags &= (uint16_t)~PD_BUFFER_SIDECAR;
	sleeper_init(&s);
	send_all(from, &b, 1, &s);
	frames_free(&b, 1);
	pd_lock(&to->side[PD_RX].lock);
	wait_ready(to, PD_RX, &s);
	assert_int_equal(to->ops->rx(to, &got, 1), 1);
	assert_memory_equal(got->sidecar + 2, zeroes + 2, sizeof(zeroes) - 2);
	to->ops->rx_done(to, 1);
	pd_unlock(&to->side[PD_RX].lock);
	close(s.w.wake_fd);
}

static void test_arm_tells_what_is_new_and_the_event_comes_once(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct pd_lane *from = lane_of(i), *to = lane_of(!i);
		struct pd_lane_side *side = &to->side[PD_RX];
		struct pd_buffer *got[4];
		struct pollfd p;
		uint32_t seen;

		pd_lock(&side->lock);
		to->ops->drain(to, PD_RX);
		seen = to->ops->position(to, PD_RX);
		assert_int_equal(seen, side->cursor);
		assert_false(to->ops->arm(to, PD_RX, seen));
		p = (struct pollfd){.fd = side->event_fd, .events = POLLIN};
		assert_int_equal(poll(&p, 1, 0), 0);
		pd_unlock(&side->lock);

		send_one(from, 1, 60);
		assert_int_equal(poll(&p, 1, LOST_WAKEUP_MS), 1);

		pd_lock(&side->lock);
		assert_true(to->ops->arm(to, PD_RX, seen));
		assert_int_equal(to->ops->position(to, PD_RX), seen + 1);
		to->ops->drain(to, PD_RX);
		assert_int_equal(poll(&p, 1, 0), 0);
		/* What stands in the ring is no news to who has seen it. */
		assert_false(to->ops->arm(to, PD_RX, seen + 1));
		assert_int_equal(poll(&p, 1, 0), 0);
		pd_unlock(&side->lock);

		send_one(from, 2, 60);
		assert_int_equal(poll(&p, 1, LOST_WAKEUP_MS), 1);
		pd_lock(&side->lock);
		to->ops->drain(to, PD_RX);
		to->ops->disarm(to, PD_RX);
		assert_int_equal(to->ops->rx(to, got, 4), 2);
		to->ops->rx_done(to, 2);
		pd_unlock(&side->lock);
	}
}

#define PING_PONGS 20000

static void *pong(void *arg)
{
	struct pd_lane *lane = arg;
	struct pd_buffer *got, *out;
	struct sleeper s;

	sleeper_init(&s);
	for (uint32_t seq = 0; seq < PING_PONGS; seq++) {
		pd_lock(&lane->side[PD_RX].lock);
		wait_ready(lane, PD_RX, &s);
		must(lane->ops->rx(lane, &got, 1) == 1);
		check_frame(got, seq, 64);
		lane->ops->rx_done(lane, 1);
		pd_unlock(&lane->side[PD_RX].lock);
		out = frame(seq, 64, 1);
		send_all(lane, &out, 1, &s);
		frames_free(&out, 1);
	}
	close(s.w.wake_fd);
	return NULL;
}

static void test_ping_pong_through_sleep_loses_no_wakeup(void **state)
{
	struct pd_lane *lane = lane_of(0);
	struct pd_buffer *got, *out;
	struct sleeper s;
	pthread_t t;

	sleeper_init(&s);
	assert_int_equal(pthread_create(&t, NULL, pong, lane_of(1)), 0);
	for (uint32_t seq = 0; seq < PING_PONGS; seq++) {
		out = frame(seq, 64, 1);
		send_all(lane, &out, 1, &s);
		frames_free(&out, 1);
		pd_lock(&lane->side[PD_RX].lock);
		wait_ready(lane, PD_RX, &s);
		assert_int_equal(lane->ops->rx(lane, &got, 1), 1);
		check_frame(got, seq, 64);
		lane->ops->rx_done(lane, 1);
		pd_unlock(&lane->side[PD_RX].lock);
	}
	pthread_join(t, NULL);
	close(s.w.wake_fd);
}

/* Several threads on one receive side: some take frames, some only watch for news. */
struct crowd {
	struct pd_lane *lane;
	uint32_t total;
	uint32_t taken; /* under the side's lock */
	uint64_t rounds;
};

static void *crowd_taker(void *arg)
{
	struct crowd *c = arg;
	struct pd_lane_side *side = &c->lane->side[PD_RX];
	struct pd_buffer *got;
	struct sleeper s;

	sleeper_init(&s);
	pd_lock(&side->lock);
	while (c->taken < c->total) {
		s.w.seen = c->lane->ops->position(c->lane, PD_RX);
		if (c->lane->ops->rx(c->lane, &got, 1) == 1) {
			check_frame(got, c->taken++, 64);
			c->lane->ops->rx_done(c->lane, 1);
			if (c->taken == c->total)
				pd_lane_ring(c->lane, PD_RX, true);
			continue;
		}
		sleep_once(c->lane, PD_RX, &s);
	}
	c->rounds += s.rounds;
	pd_unlock(&side->lock);
	close(s.w.wake_fd);
	return NULL;
}

static void *crowd_watcher(void *arg)
{
	struct crowd *c = arg;
	struct pd_lane_side *side = &c->lane->side[PD_RX];
	struct sleeper s;
	uint32_t first;

	sleeper_init(&s);
	pd_lock(&side->lock);
	first = side->cursor - c->taken;
	for (;;) {
		/* Edge-triggered: whatever is there now is known; only news ends the sleep. */
		s.w.seen = c->lane->ops->position(c->lane, PD_RX);
		if (s.w.seen - first == c->total)
			break;
		sleep_once(c->lane, PD_RX, &s);
	}
	c->rounds += s.rounds;
	pd_unlock(&side->lock);
	close(s.w.wake_fd);
	return NULL;
}

static void test_several_sleepers_on_one_side(void **state)
{
	struct pd_lane *from = lane_of(0);
	struct crowd c = {.lane = lane_of(1), .total = 5000};
	pthread_t t[5];
	struct sleeper s;

	for (int i = 0; i < 5; i++)
		assert_int_equal(
			pthread_create(&t[i], NULL, i < 3 ? crowd_taker : crowd_watcher, &c), 0);
	sleeper_init(&s);
	for (uint32_t seq = 0; seq < c.total; seq++) {
		struct pd_buffer *b = frame(seq, 64, 1);

		send_all(from, &b, 1, &s);
		frames_free(&b, 1);
		if (seq % 7 == 0)
			sched_yield();
	}
	for (int i = 0; i < 5; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(c.taken, c.total);
	/* Nobody wakes over and over for what it knows already: a few ends of sleep per frame and
	 * thread at the very most. */
	assert_true(c.rounds <= 5ull * 3 * c.total);
	close(s.w.wake_fd);
}

/* Sleeps on a side until its link has changed `changes` times. */
struct link_watch {
	struct pd_lane *lane;
	enum pd_dir dir;
	uint32_t asleep; /* set once it is linked */
	bool want_up;
};

static void *watch_link(void *arg)
{
	struct link_watch *l = arg;
	struct pd_lane_side *side = &l->lane->side[l->dir];
	struct sleeper s;

	sleeper_init(&s);
	pd_lock(&side->lock);
	pd_store_release(&l->asleep, 1);
	while (side->up != l->want_up) {
		s.w.seen = side->up ? l->lane->ops->position(l->lane, l->dir) : side->cursor;
		sleep_once(l->lane, l->dir, &s);
	}
	pd_unlock(&side->lock);
	close(s.w.wake_fd);
	return NULL;
}

static void test_a_change_of_the_link_wakes_who_sleeps(void **state)
{
	for (int stays = 0; stays < 2; stays++) {
		for (int up = 0; up < 2; up++) {
			struct link_watch l[PD_DIRS];
			pthread_t t[PD_DIRS];

			for (int dir = 0; dir < PD_DIRS; dir++) {
				l[dir] = (struct link_watch){
					.lane = lane_of(stays), .dir = dir, .want_up = up};
				assert_int_equal(pthread_create(&t[dir], NULL, watch_link, &l[dir]),
						 0);
			}
			for (int dir = 0; dir < PD_DIRS; dir++)
				while (!pd_load_acquire(&l[dir].asleep))
					sched_yield();
			if (up)
				assert_int_equal(pd_port_open(ports[!stays]), 0);
			else
				pd_port_close(ports[!stays]);
			for (int dir = 0; dir < PD_DIRS; dir++)
				pthread_join(t[dir], NULL);
			wait_state(ports[stays], up ? PD_PORT_UP : PD_PORT_DOWN);
		}
		wait_state(ports[!stays], PD_PORT_UP);
	}
}

static void test_frames_flow_again_after_closing_and_opening(void **state)
{
	for (int round = 0; round < 6; round++) {
		struct flow f = {.from = lane_of(round & 1),
				 .to = lane_of(!(round & 1)),
				 .frames = 300,
				 .len_of = len_64,
				 .mixed = true};

		flow_run(&f);
		/* Frames that nobody takes do not come back after the link was down. */
		if (round == 2)
			send_one(lane_of(0), 1, 60);
		if (round < 4) {
			pd_port_close(ports[round >> 1 & 1]);
			wait_state(ports[!(round >> 1 & 1)], PD_PORT_DOWN);
		} else {
			pd_ports_close_all();
		}
		link_up();
		assert_int_equal(pd_lane_ready(lane_of(0), PD_RX), 0);
		assert_int_equal(pd_lane_ready(lane_of(1), PD_RX), 0);
	}
}

int main(void)
{
#define ON_EVERY_LINK(f)                               \
	{                                              \
#		f, f, link_setup, link_teardown, NULL \
	}
	static const struct CMUnitTest suite[] = {
		ON_EVERY_LINK(test_every_size),
		ON_EVERY_LINK(test_batches_of_every_size_and_sums_of_counters),
		ON_EVERY_LINK(test_both_directions_at_once),
		ON_EVERY_LINK(test_shown_frames_stay_until_they_are_consumed),
		ON_EVERY_LINK(test_nothing_is_published_before_flush),
		ON_EVERY_LINK(test_a_full_ring_holds_back_and_loses_nothing),
		ON_EVERY_LINK(test_too_long_is_refused_and_what_stands_before_it_goes),
		ON_EVERY_LINK(test_a_frame_without_sidecar_arrives_with_zeroes),
		ON_EVERY_LINK(test_arm_tells_what_is_new_and_the_event_comes_once),
		ON_EVERY_LINK(test_ping_pong_through_sleep_loses_no_wakeup),
		ON_EVERY_LINK(test_several_sleepers_on_one_side),
		ON_EVERY_LINK(test_a_change_of_the_link_wakes_who_sleeps),
		ON_EVERY_LINK(test_frames_flow_again_after_closing_and_opening),
	};
	static char names[PD_ARRAY_SIZE(links) * PD_ARRAY_SIZE(suite)][128];
	static struct CMUnitTest tests[PD_ARRAY_SIZE(links) * PD_ARRAY_SIZE(suite)];
	size_t n = 0;
	int err;

	for (size_t i = 0; i < sizeof(table); i++)
		table[i] = (uint8_t)((i * 2654435761u) >> 13 ^ i);
	headers = pd_buffer_pool_create("contract", POOL_BUFFERS, 0, &err);
	if (!headers)
		return 1;
	pd_log_set_level(PD_LOG_ERROR);
	for (size_t l = 0; l < PD_ARRAY_SIZE(links); l++) {
		for (size_t t = 0; t < PD_ARRAY_SIZE(suite); t++, n++) {
			snprintf(names[n], sizeof(names[n]), "%s: %s", links[l].name,
				 suite[t].name + strlen("test_"));
			tests[n] = suite[t];
			tests[n].name = names[n];
			tests[n].initial_state = (void *)(uintptr_t)&links[l];
		}
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
