/* SPDX-License-Identifier: BSD-2-Clause */
/* The contract: what is carried, and in which order. */
#include "contract.h"

#include <linux/virtio_net.h>

static uint32_t len_each_size(uint32_t seq)
{
	return seq < PD_FRAME_MIN_BYTES ? 0 : seq;
}

static uint32_t len_mixed(uint32_t seq)
{
	static const uint32_t lens[] = {
		60, 0, 64, 1514, 14, 576, 9014, 60, 15, 0, PD_FRAME_MAX_BYTES};

	return lens[seq % PD_ARRAY_SIZE(lens)];
}

void test_every_size(void **state)
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

void test_batches_of_every_size_and_sums_of_counters(void **state)
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

void test_both_directions_at_once(void **state)
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

void test_shown_frames_stay_until_they_are_consumed(void **state)
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

void test_nothing_is_published_before_flush(void **state)
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

void test_a_full_ring_holds_back_and_loses_nothing(void **state)
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
		assert_false(from->ops->arm(from, PD_TX, seen, 1));
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
		assert_true(from->ops->arm(from, PD_TX, seen, 1));
		assert_true(pd_lane_ready(from, PD_TX) > 0);
		from->ops->disarm(from, PD_TX);
		pd_unlock(&from->side[PD_TX].lock);
	}
}

void test_too_long_is_refused_and_what_stands_before_it_goes(void **state)
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

/* Consume `n` frames on `to`, numbered from `seq` on and of `len` bytes each. */
static void take(struct pd_lane *to, uint32_t seq, uint32_t len, unsigned n)
{
	struct pd_buffer *got;

	pd_lock(&to->side[PD_RX].lock);
	for (; n; n--) {
		assert_int_equal(to->ops->rx(to, &got, 1), 1);
		check_frame(got, seq++, len);
		to->ops->rx_done(to, 1);
	}
	pd_unlock(&to->side[PD_RX].lock);
}

/* lane->ops->tx_all with the lock, and the flush. */
static int send_together(struct pd_lane *from, struct pd_buffer **bufs, unsigned n)
{
	int ret;

	pd_lock(&from->side[PD_TX].lock);
	ret = from->ops->tx_all(from, bufs, n);
	from->ops->tx_flush(from);
	pd_unlock(&from->side[PD_TX].lock);
	return ret;
}

void test_frames_that_go_together_all_go_or_none(void **state)
{
	const unsigned n = pd_min(current->ring, 8u);
	struct pd_buffer *b[8], *one;

	for (int i = 0; i < 2; i++) {
		struct pd_lane *from = lane_of(i), *to = lane_of(!i);
		unsigned sent = 0;
		int ret;

		for (unsigned k = 0; k < n; k++)
			b[k] = frame(5000 + k, 333, 1 + k % 3);
		for (;;) {
			one = frame(sent, 60, 1);
			pd_lock(&from->side[PD_TX].lock);
			ret = from->ops->tx(from, &one, 1);
			from->ops->tx_flush(from);
			pd_unlock(&from->side[PD_TX].lock);
			frames_free(&one, 1);
			if (!ret)
				break;
			sent++;
		}
		assert_int_equal(send_together(from, b, n), 0);
		take(to, 0, 60, n - 1);
		assert_int_equal(send_together(from, b, n), 0);
		take(to, n - 1, 60, sent - (n - 1));
		assert_int_equal(send_together(from, b, n), n);
		take(to, 5000, 333, n);
		if (current->ring < 8) {
			struct pd_buffer *many[3] = {b[0], b[1], b[0]};

			assert_int_equal(send_together(from, many, 3), -EMSGSIZE);
		}
		frames_free(b, n);
		send_one(from, 7, 61);
		take(to, 7, 61, 1);
	}
}

void test_an_open_checksum_is_completed_or_passed_on(void **state)
{
	/*
	 * Two words, the second in place of the sum of the pseudo header: the checksum is theirs,
	 * complemented.
	 */
	static uint8_t bytes[60] = {[20] = 0x12, 0x34, 0x00, 0x01};
	static const struct virtio_net_hdr h = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 20, .csum_offset = 2};
	struct pd_buffer *b, *got;

	for (int i = 0; current->offloads && i < 4; i++) {
		struct pd_lane *from = lane_of(i & 1), *to = lane_of(!(i & 1));
		const bool whole = i / 2;
		uint8_t sum[2];

		b = frame(1, sizeof(bytes), 1);
		b->data = bytes;
		b->flags |= PD_BUFFER_VNET;
		memcpy(b->vnet, &h, sizeof(h));
		pd_ports[to->port].rx_vnet = whole;
		assert_int_equal(send_together(from, &b, 1), 1);
		frames_free(&b, 1);
		pd_lock(&to->side[PD_RX].lock);
		for (int again = 0; again < 2; again++) {
			assert_int_equal(to->ops->rx(to, &got, 1), 1);
			assert_int_equal(pd_buffer_copy_out(got, 22, sum, 2), 2);
			assert_memory_equal(sum, whole ? "\0\1" : "\xed\xca", 2);
			assert_int_equal(!!(got->flags & PD_BUFFER_VNET), whole);
			if (whole)
				assert_memory_equal(got->vnet, &h, sizeof(h));
		}
		to->ops->rx_done(to, 1);
		pd_unlock(&to->side[PD_RX].lock);
		pd_ports[to->port].rx_vnet = false;
	}
}

void test_a_frame_without_sidecar_arrives_with_zeroes(void **state)
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
