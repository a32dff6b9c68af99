/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end role against a scripted front-end: the sequences that QEMU and DPDK send, and that
 * no descriptor is left behind. What is refused: test_refusals.c.
 */
#include "backend_peer.h"

/* --- sequences ------------------------------------------------------------------------------- */

/* QEMU 7.2: enables before features, kicks and calls twice, status around it all. */
static void as_qemu_starts_and_stops(void **state)
{
	uint64_t offered = peer_ask(sock, PD_VHOST_GET_FEATURES) & ~PACKED, num;
	uint64_t protocol = peer_ask(sock, PD_VHOST_GET_PROTOCOL_FEATURES);
	struct pd_vhost_vring_state base;
	struct pd_vhost_header hdr;

	(void)state;
	peer_u64(sock, PD_VHOST_SET_PROTOCOL_FEATURES, protocol);
	num = peer_ask(sock, PD_VHOST_GET_QUEUE_NUM);
	assert_int_equal(num, 1);
	peer_send(sock, PD_VHOST_SET_OWNER, 0, "", 0, NULL, 0);
	peer_ask(sock, PD_VHOST_GET_FEATURES);
	for (int i = 0; i < 2; i++) {
		peer_fd(sock, PD_VHOST_SET_VRING_KICK, (uint32_t)i, kick[i]);
		peer_fd(sock, PD_VHOST_SET_VRING_CALL, (uint32_t)i, call[i]);
	}
	for (uint32_t round = 0; round < 2; round++)
		for (uint32_t i = 0; i < 2; i++)
			peer_state(sock, PD_VHOST_SET_VRING_ENABLE, i, 1);
	turn();
	assert_int_not_equal(port->state, PD_PORT_UP);
	for (int round = 0; round < 3; round++) {
		peer_u64(sock, PD_VHOST_SET_FEATURES, offered);
		peer_ask(sock, PD_VHOST_GET_STATUS);
		peer_u64(sock, PD_VHOST_SET_STATUS, 8);
		send_memory(whole, PD_VHOST_NEED_REPLY, mem_fd);
		assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 0);
		for (uint32_t i = 0; i < 2; i++) {
			send_ring(i, 0);
			peer_fd(sock, PD_VHOST_SET_VRING_CALL, i, call[i]);
		}
		peer_u64(sock, PD_VHOST_SET_STATUS, 0xf);
		assert_int_equal(peer_ask(sock, PD_VHOST_GET_STATUS), 0xf);
		assert_int_equal(port->state, PD_PORT_UP);
		peer_transmit();
		assert_int_equal(frames_there(), 1);
		peer_u64(sock, PD_VHOST_SET_STATUS, 0);
		for (uint32_t i = 0; i < 2; i++) {
			peer_state(sock, PD_VHOST_GET_VRING_BASE, i, 0);
			assert_int_equal(peer_recv(sock, &hdr, &base, sizeof(base)), sizeof(base));
			assert_int_equal(base.index, i);
			assert_int_equal(base.num, i ? round + 1 : 0);
		}
		assert_int_equal(port->state, PD_PORT_DOWN);
	}
}

/* DPDK's virtio-user: calls before features, enables last; reconnecting it says no owner and 0. */
static void as_dpdk_starts_and_comes_back(void **state)
{
	(void)state;
	for (int round = 0; round < 3; round++) {
		uint64_t offered;

		if (!round)
			peer_send(sock, PD_VHOST_SET_OWNER, 0, "", 0, NULL, 0);
		offered = peer_ask(sock, PD_VHOST_GET_FEATURES) & ~PACKED;
		peer_ask(sock, PD_VHOST_GET_PROTOCOL_FEATURES);
		peer_u64(sock, PD_VHOST_SET_PROTOCOL_FEATURES,
			 BIT(PD_VHOST_PF_MQ) | BIT(PD_VHOST_PF_REPLY_ACK) |
				 BIT(PD_VHOST_PF_STATUS));
		for (int i = 0; i < 2; i++)
			peer_fd(sock, PD_VHOST_SET_VRING_CALL, (uint32_t)i, call[i]);
		peer_u64(sock, PD_VHOST_SET_FEATURES, offered & ~BIT(VIRTIO_RING_F_EVENT_IDX));
		peer_u64(sock, PD_VHOST_SET_STATUS, 11);
		send_memory(whole, 0, mem_fd);
		for (uint32_t i = 0; i < 2; i++)
			send_ring(i, 0);
		/* Frames that wait while the ring is started but not enabled yet are kept. */
		peer_transmit();
		turn();
		assert_int_equal(used_of(1)->idx, round);
		for (uint32_t i = 0; i < 2; i++)
			peer_state(sock, PD_VHOST_SET_VRING_ENABLE, i, 1);
		peer_u64(sock, PD_VHOST_SET_STATUS, 15);
		turn();
		assert_int_equal(port->state, PD_PORT_UP);
		/* Base 0, but used->idx says how far we were. */
		assert_int_equal(frames_there(), 1);
		assert_int_equal(used_of(1)->idx, round + 1);
		close(sock);
		turn();
		assert_int_equal(port->state, PD_PORT_DOWN);
		sock = peer_connect(peer_path);
		turn();
	}
}

/* Without protocol features a ring is enabled from the start. */
static void an_old_peer_without_protocol_features(void **state)
{
	uint64_t offered = peer_ask(sock, PD_VHOST_GET_FEATURES) & ~PACKED;

	(void)state;
	peer_u64(sock, PD_VHOST_SET_FEATURES, offered & ~BIT(PD_VHOST_F_PROTOCOL_FEATURES));
	send_memory(whole, 0, mem_fd);
	send_ring(0, 0);
	send_ring(1, 0);
	turn();
	assert_int_equal(port->state, PD_PORT_UP);
}

static void call_may_be_swapped_while_running_and_is_rung(void **state)
{
	int other = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t count = 0;

	(void)state;
	bring_up();
	peer_fd(sock, PD_VHOST_SET_VRING_CALL, 1, other);
	turn();
	assert_int_equal(read(other, &count, sizeof(count)), sizeof(count));
	assert_int_equal(count, 1);
	close(other);
	peer_fd(sock, PD_VHOST_SET_VRING_CALL, 1, -1);
	peer_fd(sock, PD_VHOST_SET_VRING_KICK, 1, -1);
	turn();
	assert_int_equal(port->state, PD_PORT_UP);
}

static void memory_may_be_replaced_while_running(void **state)
{
	struct pd_vhost_region moved = {GPA, SIZE / 2, UVA, 0};

	(void)state;
	bring_up();
	peer_transmit();
	send_memory(moved, PD_VHOST_NEED_REPLY, mem_fd);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 0);
	assert_int_equal(port->state, PD_PORT_UP);
	assert_int_equal(frames_there(), 1);
	/* A table without the rings: they cannot run, and the peer is told. */
	moved = (struct pd_vhost_region){GPA + SIZE / 2, SIZE / 2, UVA + SIZE / 2, SIZE / 2};
	send_memory(moved, PD_VHOST_NEED_REPLY, mem_fd);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
}

static void memory_slots_come_and_go(void **state)
{
	struct pd_vhost_single_region r = {.region = whole};

	(void)state;
	negotiate();
	assert_int_equal(peer_ask(sock, PD_VHOST_GET_MAX_MEM_SLOTS), 509);
	peer_send(sock, PD_VHOST_ADD_MEM_REG, 8, &r, sizeof(r), &mem_fd, 1);
	assert_int_equal(peer_reply(sock, PD_VHOST_ADD_MEM_REG), 0);
	peer_send(sock, PD_VHOST_ADD_MEM_REG, 8, &r, sizeof(r), &mem_fd, 1);
	assert_int_equal(peer_reply(sock, PD_VHOST_ADD_MEM_REG), 1);
	for (uint32_t i = 0; i < 2; i++) {
		peer_state(sock, PD_VHOST_SET_VRING_ENABLE, i, 1);
		send_ring(i, 0);
	}
	turn();
	assert_int_equal(port->state, PD_PORT_UP);
	r.region = (struct pd_vhost_region){GPA + SIZE, 4096, UVA + SIZE, 0};
	peer_send(sock, PD_VHOST_ADD_MEM_REG, 8, &r, sizeof(r), &mem_fd, 1);
	assert_int_equal(peer_reply(sock, PD_VHOST_ADD_MEM_REG), 0);
	peer_transmit();
	assert_int_equal(frames_there(), 1);
	peer_send(sock, PD_VHOST_REM_MEM_REG, 8, &r, sizeof(r), &mem_fd, 1);
	assert_int_equal(peer_reply(sock, PD_VHOST_REM_MEM_REG), 0);
	peer_send(sock, PD_VHOST_REM_MEM_REG, 8, &r, sizeof(r), NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_REM_MEM_REG), 1);
	assert_int_equal(port->state, PD_PORT_UP);
}

static void a_disabled_ring_discards(void **state)
{
	uint64_t one = 1;

	(void)state;
	bring_up();
	peer_transmit();
	peer_state(sock, PD_VHOST_SET_VRING_ENABLE, 1, 0);
	turn();
	assert_int_equal(used_of(1)->idx, 1);
	peer_transmit();
	peer_transmit();
	assert_int_equal(write(kick[1], &one, sizeof(one)), sizeof(one));
	turn();
	assert_int_equal(used_of(1)->idx, 3);
	assert_int_equal(frames_there(), 0);
	assert_int_equal(port->state, PD_PORT_DOWN);
	peer_state(sock, PD_VHOST_SET_VRING_ENABLE, 1, 1);
	peer_transmit();
	turn();
	assert_int_equal(port->state, PD_PORT_UP);
	assert_int_equal(frames_there(), 1);
}

static void reset_device_begins_anew(void **state)
{
	(void)state;
	bring_up();
	peer_send(sock, PD_VHOST_RESET_DEVICE, 0, "", 0, NULL, 0);
	turn();
	assert_int_equal(port->state, PD_PORT_DOWN);
	bring_up();
}

static void a_broken_ring_ends_the_connection(void **state)
{
	(void)state;
	bring_up();
	avail_of(1)->idx = RING + 1;
	frames_there();
	turn();
	assert_true(peer_closed(sock));
	assert_int_equal(port->state, PD_PORT_DOWN);
}

static int downs, too_early;

/* The port goes down: the rings are let go, and the peer cannot know of it yet. */
static void rings_go_before_the_socket(struct pd_port *which, enum pd_port_state state)
{
	struct pollfd p = {.fd = sock};

	if (state != PD_PORT_DOWN)
		return;
	downs++;
	too_early += which->lanes[0]->side[PD_RX].up || which->lanes[0]->side[PD_TX].up ||
		     poll(&p, 1, 0) != 0;
}

/* Who sees us hang up may use its memory for something else at once. */
static void who_sees_us_hang_up_has_its_memory(void **state)
{
	void (*before)(struct pd_port *, enum pd_port_state) = pd_port_on_state;

	(void)state;
	downs = too_early = 0;
	pd_port_on_state = rings_go_before_the_socket;
	for (int how = 0; how < 3; how++) {
		bring_up();
		if (how == 0) {
			shutdown(sock, SHUT_WR);
		} else if (how == 1) {
			avail_of(1)->idx = RING + 1;
			frames_there();
		} else {
			peer_state(sock, 4711, 0, 0);
		}
		assert_true(peer_closed(sock));
		assert_int_equal(downs, how + 1);
		close(sock);
		memset(mem, 0, SIZE);
		sock = peer_connect(peer_path);
		turn();
	}
	pd_port_on_state = before;
	assert_int_equal(too_early, 0);
}

/* Answer everything that the back-end says on its channel. */
static void acknowledge(int channel)
{
	struct pd_vhost_vring_state told;
	struct pd_vhost_header hdr;
	uint64_t good = 0;

	for (turn(); recv(channel, &hdr, sizeof(hdr), MSG_DONTWAIT) == sizeof(hdr); turn()) {
		assert_int_equal(recv(channel, &told, sizeof(told), 0), sizeof(told));
		assert_int_equal(hdr.flags, PD_VHOST_VERSION | PD_VHOST_NEED_REPLY);
		peer_send(channel, hdr.request, PD_VHOST_REPLY, &good, sizeof(good), NULL, 0);
	}
}

/* It is not known yet to have been closed; the notification is made by the next. */
static void a_channel_that_breaks_while_a_notification_is_sent(void **state)
{
	struct pd_vhost_vring_state told;
	struct pd_vhost_header hdr;
	int channel;

	(void)state;
	peer_config.ports[0].inband = true;
	negotiate();
	channel = send_channel();
	send_memory(whole, 0, mem_fd);
	for (uint32_t i = 0; i < 2; i++) {
		send_ring(i, 0);
		peer_fd(sock, PD_VHOST_SET_VRING_CALL, i, -1);
		peer_state(sock, PD_VHOST_SET_VRING_ENABLE, i, 1);
	}
	acknowledge(channel);
	assert_int_equal(port->state, PD_PORT_UP);
	peer_transmit();
	assert_int_equal(frames_there(), 1);
	close(channel);
	turn();
	assert_false(peer_closed(sock));
	assert_int_equal(port->state, PD_PORT_UP);
	channel = send_channel();
	assert_int_equal(peer_recv(channel, &hdr, &told, sizeof(told)), sizeof(told));
	assert_int_equal(hdr.request, PD_VHOST_BACKEND_VRING_CALL);
	assert_int_equal(told.index, 1);
	close(channel);
}

/* --- formats --------------------------------------------------------------------------------- */

/*
 * A packed ring of 5, by hand: bases in both spellings, stopped and carried on in the second lap.
 */
static void packed_rings_start_and_stop(void **state)
{
	struct vring_packed_desc *d = (struct vring_packed_desc *)(void *)(mem + 0x10000);
	struct pd_vhost_vring_state base = {1, 0};

	(void)state;
	peer_u64(sock, PD_VHOST_SET_FEATURES,
		 BIT(VIRTIO_F_VERSION_1) | PACKED | BIT(PD_VHOST_F_PROTOCOL_FEATURES));
	send_memory(whole, 0, mem_fd);
	for (uint32_t i = 0; i < 2; i++) {
		peer_state(sock, PD_VHOST_SET_VRING_ENABLE, i, 1);
		peer_state(sock, PD_VHOST_SET_VRING_NUM, i, 5);
		peer_state(sock, PD_VHOST_SET_VRING_BASE, i, 1u << 15); /* as DPDK says it */
		send_addr(i, UVA + 0x10000 * i);
		peer_fd(sock, PD_VHOST_SET_VRING_KICK, i, kick[i]);
	}
	turn();
	assert_int_equal(port->state, PD_PORT_UP);
	for (uint16_t at = 0, lap = 1; at < 8; at++, lap = at < 5) {
		d[at % 5] = (struct vring_packed_desc){GPA + 0x40000, 72, 0x900,
						       lap ? 1 << 7 : 1 << 15};
		assert_int_equal(frames_there(), 1);
		assert_int_equal(d[at % 5].flags, lap ? 1 << 7 | 1 << 15 : 0);
		assert_int_equal(d[at % 5].id, 0x900);
		if (at != 2 && at != 6)
			continue;
		peer_send(sock, PD_VHOST_GET_VRING_BASE, 0, &base, sizeof(base), NULL, 0);
		/* Both halves alike: slot 3 of the first lap, slot 2 of the second. */
		assert_int_equal(peer_reply(sock, PD_VHOST_GET_VRING_BASE) >> 32,
				 at == 2 ? 0x80038003 : 0x00020002);
		peer_state(sock, PD_VHOST_SET_VRING_BASE, 1, at == 2 ? 0x80038003 : 0x00020002);
		peer_fd(sock, PD_VHOST_SET_VRING_KICK, 1, kick[1]);
		turn();
	}
	/* A base that is no slot, found when the ring starts. */
	peer_send(sock, PD_VHOST_GET_VRING_BASE, 0, &base, sizeof(base), NULL, 0);
	peer_reply(sock, PD_VHOST_GET_VRING_BASE);
	peer_state(sock, PD_VHOST_SET_VRING_BASE, 1, 5);
	assert_false(peer_closed(sock));
	peer_fd(sock, PD_VHOST_SET_VRING_KICK, 1, kick[1]);
	assert_true(peer_closed(sock));
}

/* What format= says is offered, and held to. */
static void the_format_that_was_asked_for(void **state)
{
	struct pd_port_config config = {.role = PD_CONF_FRONTEND, .dialect = PD_CONF_DIALECT_AVIP};
	uint64_t offered = peer_ask(sock, PD_VHOST_GET_FEATURES);

	(void)state;
	assert_true(offered & PACKED);
	assert_true(offered & BIT(VIRTIO_F_IN_ORDER));
	/* By default, only a front-end with sidecars stays with split rings. */
	assert_false(pd_vhost_format_features(&config) & PACKED);
	assert_false(pd_vhost_format_features(&config) & BIT(VIRTIO_NET_F_MRG_RXBUF));
	config.mergeable = true;
	assert_true(pd_vhost_format_features(&config) & BIT(VIRTIO_NET_F_MRG_RXBUF));
	config.format = PD_CONF_FORMAT_PACKED;
	assert_true(pd_vhost_format_features(&config) & PACKED);
	assert_null(pd_vhost_format_check(&config, offered));
	assert_non_null(pd_vhost_format_check(&config, offered & ~PACKED));
	assert_false(pd_vhost_format_features(&config) & BIT(VIRTIO_F_IN_ORDER));
	config.in_order = true;
	assert_true(pd_vhost_format_features(&config) & BIT(VIRTIO_F_IN_ORDER));
	config.format = PD_CONF_FORMAT_SPLIT;
	config.role = PD_CONF_BACKEND;
	assert_false(pd_vhost_format_features(&config) & PACKED);
	assert_null(pd_vhost_format_check(&config, offered & ~PACKED));
	peer_config.ports[0].format = PD_CONF_FORMAT_PACKED;
	offered &= ~PACKED;
	peer_send(sock, PD_VHOST_SET_FEATURES, 0, &offered, sizeof(offered), NULL, 0);
	assert_true(peer_closed(sock));
}

/* Packed rings are version 1's. A split driver may do without it. */
static void packed_rings_without_version_1(void **state)
{
	uint64_t features = BIT(PD_VHOST_F_PROTOCOL_FEATURES) | PACKED;

	(void)state;
	negotiate();
	peer_send(sock, PD_VHOST_SET_FEATURES, 8, &features, sizeof(features), NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 1);
	features &= ~PACKED;
	peer_send(sock, PD_VHOST_SET_FEATURES, 8, &features, sizeof(features), NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 0);
	features |= PACKED;
	peer_send(sock, PD_VHOST_SET_FEATURES, 0, &features, sizeof(features), NULL, 0);
	assert_true(peer_closed(sock));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(as_qemu_starts_and_stops),
		T(as_dpdk_starts_and_comes_back),
		T(an_old_peer_without_protocol_features),
		T(call_may_be_swapped_while_running_and_is_rung),
		T(memory_may_be_replaced_while_running),
		T(memory_slots_come_and_go),
		T(a_disabled_ring_discards),
		T(reset_device_begins_anew),
		T(a_broken_ring_ends_the_connection),
		T(who_sees_us_hang_up_has_its_memory),
		T(a_channel_that_breaks_while_a_notification_is_sent),
		T(packed_rings_start_and_stop),
		T(the_format_that_was_asked_for),
		T(packed_rings_without_version_1),
	};

	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests_name("backend", tests, NULL, NULL);
}
