/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end role: against a scripted back-end for the start sequence and for what it must not
 * stand, and over the death of one for what it must keep.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <pthread.h>

#include "peer.h"
#include "vlib/buffer.h"

#define BIT(n) (1ull << (n))

static struct pd_port *port;
static int sock;

/* What the front-end told us. */
static struct {
	int fds[3 + 4];
	unsigned n_fds;
	uint8_t *mem;
	uint64_t bytes;
	struct pd_vhost_vring_addr addr[2];
	uint32_t num[2], base[2];
	uint64_t features; /* that it asked for */
	unsigned seen[PD_VHOST_REQUESTS];
} told;

static int setup(void **state)
{
	(void)state;
	peer_dir_make();
	memset(&told, 0, sizeof(told));
	peer_ports(1, PD_CONF_MODE_LISTEN, PD_CONF_FRONTEND, 1);
	port = &pd_ports[0];
	assert_int_equal(pd_port_open(port), 0);
	turn();
	sock = peer_connect(peer_path);
	return 0;
}

/* Forget the memory and the descriptors, as a process that ends does. */
static void back_end_ends(void)
{
	if (told.mem)
		munmap(told.mem, told.bytes);
	while (told.n_fds)
		close(told.fds[--told.n_fds]);
	memset(&told, 0, sizeof(told));
	close(sock);
	turn();
}

/* The port again, with a plain header and rings of `ring`. */
static void reopen(uint32_t ring)
{
	back_end_ends();
	pd_ports_close_all();
	peer_config.ports[0].dialect = PD_CONF_DIALECT_VIRTIO;
	peer_config.ports[0].ring = ring;
	assert_int_equal(pd_port_open(port), 0);
	turn();
	sock = peer_connect(peer_path);
}

static int teardown(void **state)
{
	(void)state;
	back_end_ends();
	pd_ports_close_all();
	pd_progress_stop();
	peer_dir_remove();
	return 0;
}

static void answer(uint32_t request, uint64_t value)
{
	peer_send(sock, request, PD_VHOST_REPLY, &value, sizeof(value), NULL, 0);
}

/* Read one message and its descriptors. Returns its request, 0 when none is there. */
static uint32_t listen_once(union pd_vhost_payload *payload, uint32_t *flags)
{
	char control[CMSG_SPACE(8 * sizeof(int))];
	struct pd_vhost_header hdr;
	struct iovec iov = {&hdr, sizeof(hdr)};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	turn();
	mh.msg_control = control;
	mh.msg_controllen = sizeof(control);
	if (recvmsg(sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof(hdr))
		return 0;
	c = CMSG_FIRSTHDR(&mh);
	if (c) {
		assert_int_equal(c->cmsg_len, CMSG_LEN(sizeof(int)));
		memcpy(&told.fds[told.n_fds++], CMSG_DATA(c), sizeof(int));
	}
	assert_int_equal(hdr.flags & 3, 1);
	if (hdr.size)
		assert_int_equal(recv(sock, payload, hdr.size, MSG_DONTWAIT), hdr.size);
	told.seen[hdr.request]++;
	*flags = hdr.flags;
	return hdr.request;
}

/* Play the back-end until it is quiet. */
static void serve(uint64_t features, uint64_t protocol)
{
	union pd_vhost_payload p;
	uint32_t request, flags;

	while ((request = listen_once(&p, &flags))) {
		switch (request) {
		case PD_VHOST_GET_FEATURES:
			answer(request, features);
			break;
		case PD_VHOST_GET_PROTOCOL_FEATURES:
			answer(request, protocol);
			break;
		case PD_VHOST_GET_QUEUE_NUM:
			answer(request, 1);
			break;
		case PD_VHOST_SET_FEATURES:
			assert_false(p.u64 & ~features);
			told.features = p.u64;
			break;
		case PD_VHOST_SET_PROTOCOL_FEATURES:
			assert_false(p.u64 & ~protocol);
			break;
		case PD_VHOST_SET_MEM_TABLE:
			assert_int_equal(p.memory.n_regions, 1);
			told.bytes = p.memory.regions[0].size;
			told.mem = mmap(NULL, told.bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
					told.fds[told.n_fds - 1], 0);
			assert_ptr_not_equal(told.mem, MAP_FAILED);
			for (int i = 0; i < 2; i++)
				told.addr[i].log = p.memory.regions[0].uaddr;
			if (flags & PD_VHOST_NEED_REPLY)
				answer(request, 0);
			break;
		case PD_VHOST_SET_VRING_NUM:
			told.num[p.state.index] = p.state.num;
			break;
		case PD_VHOST_SET_VRING_BASE:
			told.base[p.state.index] = p.state.num;
			break;
		case PD_VHOST_SET_VRING_ADDR:
			p.addr.log = told.addr[p.addr.index].log;
			told.addr[p.addr.index] = p.addr;
			break;
		default:
			break;
		}
	}
}

#define PACKED BIT(VIRTIO_F_RING_PACKED)
#define ALL \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(PD_VHOST_F_PROTOCOL_FEATURES))
#define ALL_PROTOCOL (BIT(PD_VHOST_PF_MQ) | BIT(PD_VHOST_PF_REPLY_ACK) | BIT(PD_VHOST_PF_STATUS))

/* Our pointer for an address that the front-end told. */
static void *at(uint64_t addr)
{
	uint64_t off = addr - told.addr[0].log;

	assert_true(off < told.bytes);
	return told.mem + off;
}

static void the_start_sequence(void **state)
{
	(void)state;
	serve(ALL, ALL_PROTOCOL);
	assert_int_equal(port->state, PD_PORT_UP);
	assert_int_equal(told.seen[PD_VHOST_SET_OWNER], 1);
	assert_int_equal(told.seen[PD_VHOST_SET_VRING_NUM], 2);
	assert_int_equal(told.seen[PD_VHOST_SET_VRING_CALL], 2);
	assert_int_equal(told.seen[PD_VHOST_SET_VRING_KICK], 2);
	assert_int_equal(told.seen[PD_VHOST_SET_VRING_ENABLE], 2);
	assert_int_equal(told.seen[PD_VHOST_SET_STATUS], 2);
	/* The memory cannot be cut off under us. */
	assert_int_equal(ftruncate(told.fds[0], 4096), -1);
}

/* A device is served until it leaves: another that comes to the same path, and speaks, waits in vain. */
static void it_gives_way_to_nobody(void **state)
{
	int other;

	(void)state;
	serve(ALL, ALL_PROTOCOL);
	other = peer_connect(peer_path);
	assert_int_equal(write(other, "", 1), 1);
	turn_until(peer_closed(other));
	assert_int_equal(port->state, PD_PORT_UP);
	assert_false(peer_closed(sock));
	close(other);
}

static void an_old_back_end(void **state)
{
	(void)state;
	serve(0, 0);
	assert_int_equal(port->state, PD_PORT_UP);
	assert_int_equal(told.seen[PD_VHOST_GET_PROTOCOL_FEATURES], 0);
	assert_int_equal(told.seen[PD_VHOST_SET_VRING_ENABLE], 0);
	assert_int_equal(told.seen[PD_VHOST_GET_QUEUE_NUM], 0);
}

/* Packed rings may have any number of descriptors; split ones take the power of two below it. */
static void sizes_that_are_no_power_of_two(void **state)
{
	static const struct {
		uint64_t offer;
		uint32_t asked, got;
	} rows[] = {
		{ALL | PACKED, 3, 3},
		{ALL, 3, 2},
		{ALL | PACKED, 1000, 1000},
		{ALL, 1000, 512},
		{ALL | PACKED, 32767, 32767},
		{ALL, 32767, 16384},
		{ALL | PACKED, 100, 100},
		/* The memory is large enough for what the next peer makes of it. */
		{ALL, 100, 64},
		{ALL | PACKED, 100, 100},
	};

	(void)state;
	for (unsigned i = 0; i < PD_ARRAY_SIZE(rows); i++) {
		if (rows[i].asked != peer_config.ports[0].ring)
			reopen(rows[i].asked);
		serve(rows[i].offer, ALL_PROTOCOL);
		assert_int_equal(port->state, PD_PORT_UP);
		assert_int_equal(told.num[0], rows[i].got);
		assert_int_equal(told.num[1], rows[i].got);
		back_end_ends();
		sock = peer_connect(peer_path);
	}
}

/*
 * Packed rings are version 1's: an offer of them without it is passed over, or ends it where there
 * can be no others.
 */
static void packed_rings_without_version_1(void **state)
{
	const uint64_t offer = (ALL | PACKED) & ~BIT(VIRTIO_F_VERSION_1);
	union pd_vhost_payload p;
	uint32_t flags;

	(void)state;
	reopen(64);
	serve(offer, ALL_PROTOCOL);
	assert_int_equal(port->state, PD_PORT_UP);
	assert_false(told.features & PACKED);
	back_end_ends();
	peer_config.ports[0].format = PD_CONF_FORMAT_PACKED;
	sock = peer_connect(peer_path);
	assert_int_equal(listen_once(&p, &flags), PD_VHOST_GET_FEATURES);
	answer(PD_VHOST_GET_FEATURES, offer);
	assert_true(peer_closed(sock));
	assert_int_not_equal(port->state, PD_PORT_UP);
}

/* What in_order= says is what is agreed. */
static void in_order_or_not(void **state)
{
	(void)state;
	for (int on = 0; on < 2; on++) {
		peer_config.ports[0].in_order = on;
		serve(ALL | BIT(VIRTIO_F_IN_ORDER), ALL_PROTOCOL);
		assert_int_equal(port->state, PD_PORT_UP);
		assert_int_equal(!!(told.features & BIT(VIRTIO_F_IN_ORDER)), on);
		back_end_ends();
		sock = peer_connect(peer_path);
	}
}

/* A program's thread: true when frames could come before any could be sent. */
static void *receives_first(void *arg)
{
	struct pd_lane *lane = port->lanes[0];
	bool up = false, can_send = false;

	(void)arg;
	while (!up) {
		pd_lock(&lane->side[PD_RX].lock);
		up = lane->side[PD_RX].up;
		if (up) {
			pd_lock(&lane->side[PD_TX].lock);
			can_send = lane->side[PD_TX].up;
			pd_unlock(&lane->side[PD_TX].lock);
		}
		pd_unlock(&lane->side[PD_RX].lock);
	}
	return can_send ? NULL : lane;
}

/* Who answers what it receives at once never hears that the link is down. */
static void sending_is_up_first(void **state)
{
	(void)state;
	for (int round = 0; round < 30; round++) {
		pthread_t thread;
		void *first;

		assert_int_equal(pthread_create(&thread, NULL, receives_first, NULL), 0);
		serve(ALL, ALL_PROTOCOL);
		assert_int_equal(port->state, PD_PORT_UP);
		pthread_join(thread, &first);
		assert_null(first);
		back_end_ends();
		sock = peer_connect(peer_path);
	}
}

/* A reply that is none of those due: `*state` says which. */
static void bad_answers(void **state)
{
	union pd_vhost_payload p;
	uint32_t flags;
	uint64_t v = ALL;

	assert_int_equal(listen_once(&p, &flags), PD_VHOST_GET_FEATURES);
	switch (*(const int *)*state) {
	case 0: /* to another request */
		answer(PD_VHOST_GET_STATUS, v);
		break;
	case 1: /* not a reply */
		peer_send(sock, PD_VHOST_GET_FEATURES, 0, &v, 8, NULL, 0);
		break;
	case 2: /* too short */
		peer_send(sock, PD_VHOST_GET_FEATURES, PD_VHOST_REPLY, &v, 4, NULL, 0);
		break;
	case 3: /* with a descriptor */
		peer_send(sock, PD_VHOST_GET_FEATURES, PD_VHOST_REPLY, &v, 8, &sock, 1);
		break;
	case 4: /* twice: the second was not asked for */
		answer(PD_VHOST_GET_FEATURES, v);
		answer(PD_VHOST_GET_FEATURES, v);
		break;
	}
	assert_true(peer_closed(sock));
	assert_int_not_equal(port->state, PD_PORT_UP);
}

static void refused_memory_ends_it(void **state)
{
	union pd_vhost_payload p;
	uint32_t request, flags;

	(void)state;
	while ((request = listen_once(&p, &flags)) != PD_VHOST_SET_MEM_TABLE) {
		if (request == PD_VHOST_GET_FEATURES)
			answer(request, ALL);
		if (request == PD_VHOST_GET_PROTOCOL_FEATURES)
			answer(request, BIT(PD_VHOST_PF_REPLY_ACK));
		assert_int_not_equal(request, 0);
	}
	assert_true(flags & PD_VHOST_NEED_REPLY);
	answer(request, 1);
	assert_true(peer_closed(sock));
}

/* Send frame number `seq`; true when it was taken. */
static bool transmit(uint32_t seq)
{
	struct pd_lane *lane = port->lanes[0];
	struct pd_buffer *b;
	uint8_t bytes[60] = {0};
	static struct pd_buffer_pool *pool;
	uint32_t index;
	int err, taken;

	if (!pool)
		pool = pd_buffer_pool_create("test", 4, 0, &err);
	assert_int_equal(pd_buffer_alloc(pool, &index, 1), 1);
	b = pd_buffer_get(index);
	memcpy(bytes, &seq, sizeof(seq));
	b->data = bytes;
	b->len = b->total_len = sizeof(bytes);
	b->flags |= PD_BUFFER_EXTERNAL;
	pd_lock(&lane->side[PD_TX].lock);
	taken = lane->side[PD_TX].up ? lane->ops->tx(lane, &b, 1) : -ENETDOWN;
	if (taken == 1)
		lane->ops->tx_flush(lane);
	pd_unlock(&lane->side[PD_TX].lock);
	pd_buffer_free(&index, 1);
	return taken == 1;
}

/* The number of the frame at entry `i` of the transmit ring's available ones. */
static uint32_t frame_at(uint16_t i)
{
	struct vring_desc *desc = at(told.addr[1].desc);
	struct vring_avail *avail = at(told.addr[1].avail);
	uint32_t seq;

	memcpy(&seq, (uint8_t *)at(desc[avail->ring[i % 64]].addr) + 48, sizeof(seq));
	return seq;
}

/* Use `n` of the transmit ring's entries from `from` on, out of order when told. */
static void use(uint16_t from, uint16_t n, bool backwards)
{
	struct vring_avail *avail = at(told.addr[1].avail);
	struct vring_used *used = at(told.addr[1].used);

	for (uint16_t k = 0; k < n; k++) {
		uint16_t i = (uint16_t)(backwards ? from + n - 1 - k : from + k);

		used->ring[(uint16_t)(used->idx + k) % 64].id = avail->ring[i % 64];
	}
	__atomic_store_n(&used->idx, (uint16_t)(used->idx + n), __ATOMIC_RELEASE);
}

/* Frames that a back-end took from us but did not use before it died go to the next, in order. */
static void frames_survive_the_back_end(void **state)
{
	uint32_t next = 0, taken = 0;

	(void)state;
	for (int round = 0; round < 5; round++) {
		struct vring_avail *avail;
		uint16_t have;

		serve(ALL, ALL_PROTOCOL);
		assert_int_equal(port->state, PD_PORT_UP);
		avail = at(told.addr[1].avail);
		/* What was left over comes first, from the base on. */
		have = (uint16_t)(avail->idx - told.base[1]);
		assert_int_equal(have, next - taken);
		for (uint16_t i = 0; i < have; i++)
			assert_int_equal(frame_at((uint16_t)(told.base[1] + i)), taken + i);
		for (int i = 0; i < 10; i++)
			assert_true(transmit(next++));
		have = (uint16_t)(avail->idx - told.base[1]);
		assert_int_equal(have, next - taken);
		use((uint16_t)told.base[1], 7, round & 1);
		taken += 7;
		back_end_ends();
		assert_int_equal(port->state, PD_PORT_DOWN);
		assert_false(transmit(12345));
		sock = peer_connect(peer_path);
	}
}

int main(void)
{
	static const int which[] = {0, 1, 2, 3, 4};
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define P(f, p) cmocka_unit_test_prestate_setup_teardown(f, setup, teardown, (void *)(uintptr_t)(p))
	const struct CMUnitTest tests[] = {
		T(the_start_sequence),
		T(it_gives_way_to_nobody),
		T(an_old_back_end),
		T(sending_is_up_first),
		P(bad_answers, &which[0]),
		P(bad_answers, &which[1]),
		P(bad_answers, &which[2]),
		P(bad_answers, &which[3]),
		P(bad_answers, &which[4]),
		T(refused_memory_ends_it),
		T(frames_survive_the_back_end),
		T(sizes_that_are_no_power_of_two),
		T(packed_rings_without_version_1),
		T(in_order_or_not),
	};

	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
