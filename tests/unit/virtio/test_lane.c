/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * transport/vhost/lane: two lanes, one in each role, joined by shared memory and eventfds, used
 * through the lane operations alone; link changes; counters; the report of a broken ring.
 */
#include "ring_util.h"

#include <poll.h>
#include <sys/eventfd.h>

#include "config/vars.h"
#include "counters/counters.h"
#include "transport/vhost/lane.h"

#define SIZE 64
#define GPA 0x10000

/* One ring of the pair: its memory, and the eventfds of both its ends. */
struct ring {
	struct pd_vq_layout layout;
	uint8_t *area;
	uint64_t bytes;
	int kick, call; /* rung by the driver, by the device */
};

static struct pd_vhost_lane device, driver;
static struct ring ring[PD_DIRS]; /* by the device's direction */
static struct pd_mem_table table;
static struct out_frame frames[32];

static struct pd_progress_work broken_work;
static unsigned broken_runs;

static void on_broken(struct pd_progress_work *work)
{
	broken_runs++;
}

static bool readable(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};

	return poll(&p, 1, 0) == 1;
}

static void lane_make(struct pd_vhost_lane *lane, enum pd_vhost_role role,
		      enum pd_vhost_dialect dialect)
{
	struct pd_ctr_block *ctr = pd_ctr_alloc(PD_CTR_LANE, 0, 0, "test");
	struct pd_ctr_block *const blocks[PD_DIRS] = {ctr, ctr};

	memset(lane, 0, sizeof(*lane));
	assert_int_equal(pd_vhost_lane_init(lane, role, dialect, &broken_work), 0);
	pd_lane_init(&lane->lane, pd_vhost_lane_ops(role, dialect, false), 0, 0, blocks);
}

static void up(enum pd_dir dir)
{
	struct ring *r = &ring[dir];

	pd_lock(&driver.lane.side[!dir].lock);
	assert_int_equal(pd_vhost_lane_up(&driver, !dir, &r->layout, NULL, r->call, r->kick, false),
			 0);
	pd_unlock(&driver.lane.side[!dir].lock);
	pd_lock(&device.lane.side[dir].lock);
	assert_int_equal(
		pd_vhost_lane_up(&device, dir, &r->layout, &table, r->kick, r->call, false), 0);
	pd_unlock(&device.lane.side[dir].lock);
}

static void open_pair(enum pd_vhost_dialect dialect, uint64_t features)
{
	broken_runs = 0;
	broken_work = (struct pd_progress_work){.fn = on_broken};
	table.n = 0;
	lane_make(&device, PD_VHOST_DEVICE, dialect);
	lane_make(&driver, PD_VHOST_DRIVER, dialect);
	for (int dir = 0; dir < PD_DIRS; dir++) {
		struct ring *r = &ring[dir];

		r->layout = (struct pd_vq_layout){.size = SIZE,
						  .hdr_bytes = dialect == PD_VHOST_AVIP ? 48 : 12,
						  .features = features,
						  .buf_bytes = 2048,
						  .receive = dir == PD_TX};
		r->bytes = pd_vq_driver_area_bytes(SIZE, 2048);
		r->area = guarded_map(r->bytes);
		r->kick = eventfd(0, EFD_NONBLOCK);
		r->call = eventfd(0, EFD_NONBLOCK);
		assert_int_equal(
			pd_mem_add(&table,
				   &(struct pd_mem_region){GPA + dir * 0x1000000ULL, r->bytes,
							   (uintptr_t)r->area, r->area}),
			0);
		pd_vq_driver_place(&r->layout, r->area, GPA + dir * 0x1000000ULL);
		up(dir);
	}
}

static void close_pair(void)
{
	for (int dir = 0; dir < PD_DIRS; dir++) {
		pd_lock(&device.lane.side[dir].lock);
		pd_vhost_lane_down(&device, dir);
		pd_unlock(&device.lane.side[dir].lock);
		pd_lock(&driver.lane.side[dir].lock);
		pd_vhost_lane_down(&driver, dir);
		pd_unlock(&driver.lane.side[dir].lock);
		guarded_unmap(ring[dir].area, ring[dir].bytes);
		close(ring[dir].kick);
		close(ring[dir].call);
	}
	pd_ctr_free(device.lane.side[0].ctr);
	pd_ctr_free(driver.lane.side[0].ctr);
	pd_vhost_lane_fini(&device);
	pd_vhost_lane_fini(&driver);
}

/* Send frames `from`.. through `tx`, receive them at `rx`, all checked. */
static void move(struct pd_lane *tx, struct pd_lane *rx, uint32_t from, unsigned n, bool avip)
{
	struct pd_buffer *b[32], *in[32];
	int got;

	for (unsigned i = 0; i < n; i++)
		b[i] = frame_make(&frames[i], from + i, 60 + 7 * i, 2);
	pd_lock(&tx->side[PD_TX].lock);
	assert_int_equal(tx->ops->tx(tx, b, n), n);
	tx->ops->tx_flush(tx);
	pd_unlock(&tx->side[PD_TX].lock);
	pd_lock(&rx->side[PD_RX].lock);
	assert_int_equal(pd_lane_ready(rx, PD_RX), n);
	got = rx->ops->rx(rx, in, 32);
	assert_int_equal(got, n);
	for (unsigned i = 0; i < n; i++)
		frame_check(in[i], from + i, 60 + 7 * i, avip);
	rx->ops->rx_done(rx, n);
	assert_int_equal(pd_lane_ready(rx, PD_RX), 0);
	pd_unlock(&rx->side[PD_RX].lock);
}

static int setup(void **state)
{
	if (headers_setup(state))
		return -1;
	for (unsigned i = 0; i < 32; i++)
		for (unsigned k = 0; k < 4; k++)
			frames[i].bufs[k] = header_bufs[4 * i + k];
	return 0;
}

static void test_frames_both_ways(void **state)
{
	static const uint64_t features[] = {
		1ULL << VIRTIO_NET_F_MRG_RXBUF | 1ULL << VIRTIO_F_VERSION_1,
		1ULL << VIRTIO_NET_F_MRG_RXBUF | 1ULL << VIRTIO_F_VERSION_1 |
			1ULL << VIRTIO_RING_F_EVENT_IDX,
		1ULL << VIRTIO_F_VERSION_1,
	};

	for (unsigned k = 0; k < 6; k++) {
		bool avip = k < 3;

		open_pair(avip ? PD_VHOST_AVIP : PD_VHOST_VIRTIO, features[k % 3]);
		for (unsigned i = 0; i < 20; i++) {
			move(&device.lane, &driver.lane, i, 1 + i, avip);
			move(&driver.lane, &device.lane, i + 100, 20 - i, avip);
		}
		assert_int_equal(pd_ctr_get(device.lane.side[0].ctr, PD_CTR_LANE_RX_FRAMES), 210);
		assert_int_equal(pd_ctr_get(device.lane.side[0].ctr, PD_CTR_LANE_TX_FRAMES), 210);
		assert_int_equal(pd_ctr_get(driver.lane.side[0].ctr, PD_CTR_LANE_RX_BYTES),
				 pd_ctr_get(device.lane.side[0].ctr, PD_CTR_LANE_TX_BYTES));
		assert_int_equal(pd_ctr_get(device.lane.side[0].ctr, PD_CTR_LANE_TX_BATCHES), 20);
		assert_int_equal(pd_ctr_get(device.lane.side[0].ctr, PD_CTR_LANE_TX_KICKS) +
					 pd_ctr_get(device.lane.side[0].ctr,
						    PD_CTR_LANE_TX_KICKS_SUPPRESSED),
				 20);
		close_pair();
	}
}

/* A sleeper is told once, through its eventfd; nobody is told when nobody asked. */
static void test_sleep_and_wake(void **state)
{
	for (unsigned k = 0; k < 2; k++) {
		struct pd_lane_side *side = &device.lane.side[PD_RX];
		struct pd_lane_waiter w = {.wake_fd = eventfd(0, EFD_NONBLOCK)};
		uint64_t one;

		open_pair(PD_VHOST_AVIP,
			  1ULL << VIRTIO_F_VERSION_1 | (uint64_t)k << VIRTIO_RING_F_EVENT_IDX);
		assert_int_equal(side->event_fd, ring[PD_RX].kick);
		pd_lock(&side->lock);
		device.lane.ops->drain(&device.lane, PD_RX);
		device.lane.ops->disarm(&device.lane, PD_RX);
		pd_unlock(&side->lock);
		move(&driver.lane, &device.lane, 0, 3, true); /* the first always tells */
		read(ring[PD_RX].kick, &one, sizeof(one));
		move(&driver.lane, &device.lane, 0, 3, true);
		assert_false(readable(ring[PD_RX].kick));
		pd_lock(&side->lock);
		w.seen = device.lane.ops->position(&device.lane, PD_RX);
		assert_true(pd_lane_sleep(&device.lane, PD_RX, &w));
		pd_unlock(&side->lock);
		move(&driver.lane, &device.lane, 0, 3, true);
		assert_true(readable(ring[PD_RX].kick));
		pd_lock(&side->lock);
		pd_lane_wake(&device.lane, PD_RX, &w, true);
		assert_false(readable(ring[PD_RX].kick));
		/* A new descriptor wakes; going down wakes; and comes with the base. */
		w.seen = device.lane.ops->position(&device.lane, PD_RX);
		assert_true(pd_lane_sleep(&device.lane, PD_RX, &w));
		pd_vhost_lane_set_notify(&device, PD_RX, ring[PD_RX].call);
		assert_int_equal(read(w.wake_fd, &one, sizeof(one)), sizeof(one));
		assert_int_equal(pd_vhost_lane_down(&device, PD_RX), 9);
		assert_int_equal(read(w.wake_fd, &one, sizeof(one)), sizeof(one));
		pd_list_del(&w.node);
		pd_unlock(&side->lock);
		/* Another call descriptor: rung at once, and told of the next batch whatever was
		 * agreed. */
		pd_lock(&device.lane.side[PD_TX].lock);
		while (readable(ring[PD_RX].call))
			read(ring[PD_RX].call, &one, sizeof(one));
		pd_vhost_lane_set_signal(&device, PD_TX, ring[PD_RX].call);
		assert_true(readable(ring[PD_RX].call));
		read(ring[PD_RX].call, &one, sizeof(one));
		pd_unlock(&device.lane.side[PD_TX].lock);
		move(&device.lane, &driver.lane, 0, 3, true);
		assert_true(readable(ring[PD_RX].call));
		close_pair();
		close(w.wake_fd);
	}
}

/* The memory moves under a lane that is up: the same ring at another address. */
static void test_remap(void **state)
{
	struct ring *r = &ring[PD_RX];
	struct pd_vq_layout at;
	static struct pd_mem_table moved;
	uint8_t *copy;

	open_pair(PD_VHOST_AVIP, 1ULL << VIRTIO_F_VERSION_1);
	move(&driver.lane, &device.lane, 0, 5, true);
	/* A second mapping of the same pages. */
	copy = mremap((void *)((uintptr_t)r->area & ~4095UL), 0, (r->bytes + 4095) & ~4095UL,
		      MREMAP_MAYMOVE);
	assert_ptr_not_equal(copy, MAP_FAILED);
	copy += (uintptr_t)r->area & 4095;
	moved.n = 0;
	pd_mem_add(&moved, &(struct pd_mem_region){GPA, r->bytes, (uintptr_t)r->area, copy});
	at = r->layout;
	at.desc = copy + ((uint8_t *)at.desc - r->area);
	at.avail = copy + ((uint8_t *)at.avail - r->area);
	at.used = copy + ((uint8_t *)at.used - r->area);
	pd_lock(&device.lane.side[PD_RX].lock);
	assert_int_equal(pd_vhost_lane_remap(&device, PD_RX, &at, &moved), 0);
	pd_unlock(&device.lane.side[PD_RX].lock);
	move(&driver.lane, &device.lane, 0, 32, true);
	at.size = 2 * SIZE;
	pd_lock(&device.lane.side[PD_RX].lock);
	assert_int_equal(pd_vhost_lane_remap(&device, PD_RX, &at, &moved), -EINVAL);
	pd_unlock(&device.lane.side[PD_RX].lock);
	close_pair();
}

static void test_broken_ring_is_reported_once(void **state)
{
	struct pd_buffer *in[4];
	struct pd_lane *lane = &device.lane;

	open_pair(PD_VHOST_AVIP, 1ULL << VIRTIO_F_VERSION_1);
	pd_lock(&lane->side[PD_RX].lock);
	((uint16_t *)ring[PD_RX].layout.avail)[1] = SIZE + 1;
	assert_int_equal(pd_lane_ready(lane, PD_RX), 0);
	assert_int_equal(lane->ops->rx(lane, in, 4), -ENETDOWN);
	assert_int_equal(lane->ops->rx(lane, in, 4), -ENETDOWN);
	pd_unlock(&lane->side[PD_RX].lock);
	assert_int_equal(broken_runs, 0);
	assert_int_equal(broken_work.posted, 1);
	assert_string_equal(pd_vhost_lane_broken(&device, PD_RX), "the peer's index jumped");
	assert_null(pd_vhost_lane_broken(&device, PD_TX));
	/* Up again: a fresh start. */
	pd_lock(&lane->side[PD_RX].lock);
	pd_vhost_lane_down(&device, PD_RX);
	pd_unlock(&lane->side[PD_RX].lock);
	pd_lock(&driver.lane.side[PD_TX].lock);
	pd_vhost_lane_down(&driver, PD_TX);
	pd_unlock(&driver.lane.side[PD_TX].lock);
	up(PD_RX);
	assert_null(pd_vhost_lane_broken(&device, PD_RX));
	move(&driver.lane, &device.lane, 0, 5, true);
	close_pair();
}

/* What is fetched ahead, by role and direction. */
static void test_prefetch_is_what_the_variables_say(void **state)
{
	const struct pd_vars before = pd_vars;
	struct pd_vhost_lane *lanes[] = {&device, &driver};

	pd_vars.rx_prefetch_bytes = 300;
	pd_vars.tx_prefetch_bytes = 100;
	pd_vars.rx_prefetch_bytes_before_poll = 64;
	open_pair(PD_VHOST_AVIP, 1ULL << VIRTIO_F_VERSION_1);
	for (unsigned i = 0; i < PD_ARRAY_SIZE(lanes); i++) {
		assert_int_equal(lanes[i]->vq[PD_RX].prefetch_bytes, 300);
		assert_int_equal(lanes[i]->vq[PD_RX].prefetch_early_bytes, 64);
		assert_int_equal(lanes[i]->vq[PD_TX].prefetch_bytes, 100);
	}
	close_pair();
	pd_vars = before;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames_both_ways),
		cmocka_unit_test(test_sleep_and_wake),
		cmocka_unit_test(test_remap),
		cmocka_unit_test(test_broken_ring_is_reported_once),
		cmocka_unit_test(test_prefetch_is_what_the_variables_say),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
