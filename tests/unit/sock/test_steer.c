/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which lane a message goes by: lanes for keys, hashes of flows, numbers of sockets, keys of
 * messages.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "config/vars.h"
#include "palladium_extra.h"
#include "sock/packet.h"
#include "sock/steer.h"

#define SPREAD PD_STEER_SPREAD

/* --- lanes for keys ------------------------------------------------------------------------ */

static void test_a_class_goes_by_the_lane_of_its_number(void **state)
{
	(void)state;
	for (unsigned n = 1; n <= 10; n++)
		for (uint32_t class = 0; class < 8; class ++)
			assert_int_equal(pd_steer_pick((1u << n) - 1, class, true),
					 class % pd_min(n, 8u));
}

static void test_a_lane_that_is_down_moves_its_own_keys_only(void **state)
{
	(void)state;
	for (unsigned n = 2; n <= 10; n++) {
		uint32_t all = (1u << n) - 1;

		/* Not the last one: without it there are fewer. */
		for (unsigned down = 0; down + 1 < n; down++)
			for (uint32_t key = 0; key < 200; key++) {
				unsigned before = pd_steer_pick(all, key | SPREAD, false);
				unsigned after =
					pd_steer_pick(all & ~(1u << down), key | SPREAD, false);

				if (before != down)
					assert_int_equal(after, before);
				else
					assert_int_not_equal(after, down);
			}
	}
	/* Class 3 finds another lane, the others stay. */
	for (uint32_t class = 0; class < 8; class ++) {
		unsigned lane = pd_steer_pick(0xff & ~(1u << 3), class, true);

		assert_true(class == 3 ? lane != 3 && lane < 8 : lane == class);
	}
	assert_int_equal(pd_steer_pick(1u << 6, 2, true), 6);
}

static void test_what_has_no_class_keeps_to_the_lanes_without_one(void **state)
{
	(void)state;
	for (uint32_t key = 0; key < 100; key++) {
		assert_int_equal(pd_steer_pick(0x3ff, key | SPREAD, true), 8 + key % 2);
		assert_int_equal(pd_steer_pick(0x1ff, key | SPREAD, true), 8);
		assert_int_equal(pd_steer_pick(0xff, key | SPREAD, true), key % 8);
		assert_int_equal(pd_steer_pick(0x3ff, key | SPREAD, false), key % 10);
		/* Classes take them only when nothing else is up. */
		assert_int_equal(pd_steer_pick(0x300, key % 8, true), 8 + key % 2);
		assert_int_equal(pd_steer_pick(0x301, key % 8, true), 0);
	}
}

static void test_hashes_spread_over_what_is_up(void **state)
{
	static const uint32_t sets[] = {0x3, 0xff, 0x3ff, 0xd5, 0x155, 0x3fe};
	uint32_t rnd = 1;

	(void)state;
	for (unsigned i = 0; i < PD_ARRAY_SIZE(sets); i++) {
		unsigned hits[10] = {0}, lanes = (unsigned)__builtin_popcount(sets[i]);

		for (unsigned k = 0; k < 10000; k++) {
			rnd = rnd * 1664525 + 1013904223;
			hits[pd_steer_pick(sets[i], (rnd >> 3) | SPREAD, false)]++;
		}
		for (unsigned lane = 0; lane < 10; lane++) {
			if (!(sets[i] >> lane & 1))
				assert_int_equal(hits[lane], 0);
			else
				assert_in_range(hits[lane], 10000 / lanes / 2, 10000 / lanes * 2);
		}
	}
}

/* --- flows --------------------------------------------------------------------------------- */

/* A frame of UDP between two hosts and ports, with `tags` VLAN tags; returns its length. */
static size_t udp(uint8_t *f, unsigned tags, bool v6, uint8_t host, uint16_t port)
{
	uint8_t *p = f + 12;

	memset(f, 0, 128);
	memcpy(f, "\2\0\0\0\0\1\2\0\0\0\0\2", 12);
	for (unsigned i = 0; i < tags; i++, p += 4)
		memcpy(p, "\x81\x00\x00\x05", 4);
	memcpy(p, v6 ? "\x86\xdd" : "\x08\x00", 2);
	p += 2;
	if (v6) {
		p[0] = 0x60;
		p[6] = IPPROTO_UDP;
		p[8 + 15] = host;
		p[24 + 15] = 9;
		p += 40;
	} else {
		p[0] = 0x45;
		p[9] = IPPROTO_UDP;
		p[12 + 3] = host;
		p[16 + 3] = 9;
		p += 20;
	}
	p[0] = (uint8_t)(port >> 8);
	p[1] = (uint8_t)port;
	return (size_t)(p + 8 - f);
}

static uint32_t hash(const uint8_t *f, size_t len, bool source_only)
{
	return pd_steer_hash(f + 14, len - 14, (uint16_t)(f[12] << 8 | f[13]), f, source_only);
}

static void test_a_flow_is_addresses_and_ports(void **state)
{
	uint8_t a[128], b[128];

	(void)state;
	for (int v6 = 0; v6 < 2; v6++)
		for (unsigned tags = 0; tags < 3; tags++) {
			size_t len = udp(a, tags, v6, 1, 1000), payload = len - 8;

			/*
			 * What does not belong to the flow does not count: MACs, priority of a tag,
			 * lengths, payload.
			 */
			memcpy(b, a, sizeof(b));
			b[5] = 77;
			b[len - 1] ^= 1;
			b[14 + 4 * tags + (v6 ? 7 : 8)] = 3; /* hops */
			if (tags)
				b[14] |= 0xe0;
			assert_int_equal(hash(a, len, false), hash(b, len, false));
			udp(b, tags, v6, 1, 1001);
			assert_int_not_equal(hash(a, len, false), hash(b, len, false));
			assert_int_equal(hash(a, len, true), hash(b, len, true));
			udp(b, tags, v6, 2, 1000);
			assert_int_not_equal(hash(a, len, false), hash(b, len, false));
			assert_int_not_equal(hash(a, len, true), hash(b, len, true));
			if (tags) {
				udp(b, tags, v6, 1, 1000);
				b[15] = 6; /* another VLAN */
				assert_int_not_equal(hash(a, len, false), hash(b, len, false));
			}
			/*
			 * Cut anywhere: no byte beyond is read (the sanitizer looks), and there is
			 * a hash.
			 */
			for (size_t cut = 14; cut <= payload; cut++) {
				uint8_t exact[128];

				memcpy(exact + sizeof(exact) - cut, a, cut);
				hash(exact + sizeof(exact) - cut, cut, false);
				hash(exact + sizeof(exact) - cut, cut, true);
			}
		}
}

static void test_flows_spread_whatever_they_differ_in(void **state)
{
	uint8_t f[128];

	(void)state;
	for (unsigned at = 0; at < 54 + 4; at++) {
		unsigned hits[8] = {0}, zero = 0;
		size_t len = udp(f, 0, true, 1, 1000);
		uint32_t first = hash(f, len, false);

		if (at < 14 + 8) /* before the addresses */
			continue;
		for (unsigned v = 0; v < 256; v++) {
			f[at] = (uint8_t)v;
			hits[pd_steer_pick(0xff, hash(f, len, false) | SPREAD, false)]++;
			zero += hash(f, len, false) == first;
		}
		assert_int_equal(zero, 1);
		for (unsigned lane = 0; lane < 8; lane++)
			assert_in_range(hits[lane], 12, 60);
	}
}

static void test_fragments_of_a_datagram_stay_together(void **state)
{
	uint8_t first[128], next[128];
	size_t len = udp(first, 0, false, 1, 1000);

	(void)state;
	first[14 + 6] = 0x20; /* more fragments */
	udp(next, 0, false, 1, 4711);
	next[14 + 6] = 0x20;
	next[14 + 7] = 0xb9;
	assert_int_equal(hash(first, len, false), hash(next, len, false));
	next[14 + 6] = 0; /* the last one */
	assert_int_equal(hash(first, len, false), hash(next, len, false));
}

static void test_what_is_not_ip_goes_by_ethernet(void **state)
{
	uint8_t a[64] = {255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 0x88, 0xb5, 1}, b[64];

	(void)state;
	memcpy(b, a, sizeof(b));
	b[20] = 1;
	assert_int_equal(hash(a, sizeof(a), false), hash(b, sizeof(b), false));
	for (unsigned at = 0; at < 14; at += 3) {
		memcpy(b, a, sizeof(b));
		b[at] ^= 1;
		assert_int_not_equal(hash(a, sizeof(a), false), hash(b, sizeof(b), false));
	}
	memcpy(b, a, sizeof(b));
	b[0] = 2;
	assert_int_equal(hash(a, sizeof(a), true), hash(b, sizeof(b), true));
	b[7] = 2;
	assert_int_not_equal(hash(a, sizeof(a), true), hash(b, sizeof(b), true));
	/* It says IP and is too short for it. */
	b[12] = 8;
	b[13] = 0;
	hash(b, 14, false);
	hash(b, 20, false);
}

/* --- numbers of sockets -------------------------------------------------------------------- */

static void test_each_socket_has_a_number(void **state)
{
	struct pd_steer_own a, b;

	(void)state;
	pd_steer_own_init(&a, PD_STEER_SOCKET);
	pd_steer_own_init(&b, PD_STEER_SOCKET);
	assert_int_equal(b.number, a.number + 1);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(pd_steer_own_number(&a, PD_STEER_SOCKET, 1), a.number);
}

struct user {
	struct pd_steer_own *own;
	int ratio;
	unsigned uses;
	uint32_t own_number, first, last;
};

/* Use a socket of another thread's. */
static void *use(void *arg)
{
	struct user *u = arg;
	struct pd_steer_own mine;

	pd_steer_own_init(&mine, PD_STEER_THREAD);
	u->own_number = mine.number;
	for (unsigned i = 0; i < u->uses; i++) {
		u->last = pd_steer_own_number(u->own, PD_STEER_THREAD, u->ratio);
		if (!i)
			u->first = u->last;
	}
	return NULL;
}

static void use_elsewhere(struct user *u)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, use, u), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

static void test_a_socket_follows_the_thread_that_uses_it(void **state)
{
	struct pd_steer_own own;
	struct user u = {.own = &own, .ratio = 100, .uses = 199};
	uint32_t here;

	(void)state;
	pd_steer_own_init(&own, PD_STEER_THREAD);
	here = own.number;
	use_elsewhere(&u);
	assert_int_not_equal(u.own_number, here);
	assert_int_equal(u.first, here);
	assert_int_equal(u.last, here); /* seen once there, not yet twice */
	u.uses = 1;
	use_elsewhere(&u); /* a third thread: it is not the one that was seen */
	assert_int_equal(u.last, here);
	u.uses = 300;
	use_elsewhere(&u);
	assert_int_equal(u.last, u.own_number);
	/* Now and then somebody else: it stays. */
	here = own.number;
	for (int i = 0; i < 50; i++) {
		for (int k = 0; k < 99; k++)
			pd_steer_own_number(&own, PD_STEER_THREAD, 1000);
		u.uses = 1;
		u.ratio = 1000;
		use_elsewhere(&u);
		assert_int_equal(own.number, here);
	}
	u.uses = 10000;
	u.ratio = -1;
	use_elsewhere(&u);
	assert_int_equal(u.last, here);
}

static void *stand(void *arg)
{
	struct pd_steer_own own;
	cpu_set_t set;

	(void)arg;
	pd_steer_own_init(&own, PD_STEER_CORE_ATTACH);
	assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
	assert_int_equal(CPU_COUNT(&set), 1);
	assert_true(CPU_ISSET(own.number, &set));
	return (void *)(uintptr_t)own.number;
}

static void test_threads_are_attached_to_different_cores(void **state)
{
	unsigned seen = 0, cores;
	cpu_set_t may;
	pthread_t thread;
	void *core;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(may), &may), 0);
	cores = (unsigned)CPU_COUNT(&may);
	/* The first one is this thread, whose mask the others inherit. */
	seen = 1u << (uintptr_t)stand(NULL) % 32;
	for (unsigned i = 1; i < cores && i < 32; i++) {
		assert_int_equal(pthread_create(&thread, NULL, stand, NULL), 0);
		assert_int_equal(pthread_join(thread, &core), 0);
		assert_true(CPU_ISSET((uintptr_t)core, &may));
		seen |= 1u << (uintptr_t)core % 32;
	}
	assert_int_equal(__builtin_popcount(seen), pd_min(cores, 32u));
	sched_setaffinity(0, sizeof(may), &may);
}

/* --- keys of messages ---------------------------------------------------------------------- */

static struct pd_packet_port pp;
static struct pd_port port = {.n_lanes = 8, .sock = &pp, .mac = {2, 0, 0, 0, 0, 2}};
static struct pd_packet s;

static int fresh(void **state)
{
	(void)state;
	pd_vars_load();
	memset(&s, 0, sizeof(s));
	s.type = SOCK_RAW;
	s.send_key = PD_STEER_NONE;
	pp.by_class = true;
	return 0;
}

/* What stands in front of the frame in the messages of the socket. */
static void set_front(bool inline_mode, bool vnet_hdr)
{
	s.inline_mode = inline_mode;
	s.vnet_hdr = vnet_hdr;
	pd_packet_note_control(&s);
}

/* The key of `len` bytes, in pieces of `piece`, with a sidecar as ancillary data or none. */
static uint32_t key_of(const void *bytes, size_t len, size_t piece, struct avip_mdata_t *md)
{
	union palladium_cmsg_buffer control;
	struct iovec iov[200];
	struct msghdr m = {.msg_iov = iov};

	for (size_t at = 0; at < len; at += piece)
		iov[m.msg_iovlen++] =
			(struct iovec){(uint8_t *)bytes + at, pd_min(piece, len - at)};
	if (md)
		palladium_cmsg_put(&m, &control, md);
	return pd_steer_message(&s, &port, &m);
}

static void test_a_sidecar_says_the_class(void **state)
{
	struct avip_mdata_t md = {0};
	uint8_t frame[128], whole[48 + 128];
	size_t len = udp(frame, 0, false, 1, 1000);

	(void)state;
	assert_true(key_of(frame, len, len, NULL) & SPREAD);
	for (uint8_t class = 0; class < 8; class ++) {
		md.pd.pfc_priority = class;
		assert_int_equal(key_of(frame, len, len, &md), class);
		set_front(true, false);
		memcpy(whole, &md, 48);
		memcpy(whole + 48, frame, len);
		assert_int_equal(key_of(whole, 48 + len, 48 + len, NULL), class);
		assert_int_equal(key_of(whole, 48 + len, 5, NULL), class);
		set_front(false, false);
	}
	md.pd.pfc_priority = 11;
	assert_int_equal(key_of(frame, len, len, &md), 3);
	/* What stands there in a control message is no class. */
	md.generic_flags = IXVERIFY_ONLY_CTRL_PKT;
	assert_int_equal(key_of(NULL, 0, 1, &md), 0);
	/* Half a sidecar: the send will say so. */
	set_front(true, false);
	key_of(whole, 20, 20, NULL);
	key_of(NULL, 0, 1, NULL);
	set_front(false, false);
	pp.by_class = false;
	assert_true(key_of(frame, len, len, &md) & SPREAD);
}

static void test_a_socket_has_a_class_once_it_was_given(void **state)
{
	struct avip_mdata_t md = {.pd.pfc_priority = 2};
	uint8_t frame[128];
	size_t len = udp(frame, 0, false, 1, 1000);

	(void)state;
	s.default_sidecar.avip.pd.pfc_priority = 5;
	assert_true(key_of(frame, len, len, NULL) & SPREAD);
	assert_true(pd_steer_writable(&s, &port) & SPREAD);
	s.has_class = true;
	assert_int_equal(key_of(frame, len, len, NULL), 5);
	assert_int_equal(key_of(frame, len, len, &md), 2);
	assert_int_equal(pd_steer_writable(&s, &port), 5);
	s.send_key = 7;
	assert_int_equal(pd_steer_writable(&s, &port), 7);
}

static void test_the_flow_is_found_in_any_pieces(void **state)
{
	uint8_t frame[128], whole[48 + 128] = {0};
	size_t len = udp(frame, 1, true, 1, 1000);
	uint32_t key = hash(frame, len, false) | SPREAD;
	struct sockaddr_ll ll = {.sll_halen = 6, .sll_protocol = htons(ETH_P_8021Q)};
	struct iovec iov = {frame + 14, len - 14};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_name = &ll};

	(void)state;
	pp.by_class = false;
	for (size_t piece = 1; piece <= len; piece++)
		assert_int_equal(key_of(frame, len, piece, NULL), key);
	memcpy(whole + 48, frame, len);
	set_front(true, false);
	assert_int_equal(key_of(whole, 48 + len, 7, NULL), key);
	memcpy(whole + 10, frame, len);
	set_front(false, true);
	assert_int_equal(key_of(whole, 10 + len, 7, NULL), key);
	set_front(false, false);
	/* Without its Ethernet header. */
	memcpy(ll.sll_addr, frame, 6);
	s.type = SOCK_DGRAM;
	assert_int_equal(pd_steer_message(&s, &port, &m), key);
	s.type = SOCK_RAW;
	pd_vars.ring_allocation_logic_tx = PD_STEER_IP;
	assert_int_equal(key_of(frame, len, len, NULL), hash(frame, len, true) | SPREAD);
	pd_vars.ring_allocation_logic_tx = PD_STEER_SOCKET;
	s.send_own.number = 6;
	assert_int_equal(key_of(frame, len, len, NULL), 6 | SPREAD);
}

/* --- receiving ----------------------------------------------------------------------------- */

static void test_lanes_take_turns(void **state)
{
	unsigned others;

	(void)state;
	for (unsigned i = 0; i < 200; i++) {
		unsigned first = pd_steer_receive(&s, &port, &others);

		assert_int_equal(first, i / 4 % 8);
		pd_steer_received(&s, &port, first, first);
	}
	pd_steer_looked(&s, 3);
	assert_int_equal(pd_steer_receive(&s, &port, &others), 3);
	assert_int_equal(pd_steer_receive(&s, &port, &others), 3);
	/* One that was found elsewhere begins its turn. */
	pd_steer_received(&s, &port, 6, 3);
	for (unsigned i = 1; i < 4; i++) {
		assert_int_equal(pd_steer_receive(&s, &port, &others), 6);
		pd_steer_received(&s, &port, 6, 6);
	}
	assert_int_equal(pd_steer_receive(&s, &port, &others), 7);
}

static void test_the_own_lane_comes_first_and_no_other_starves(void **state)
{
	unsigned hits[8] = {0};
	unsigned others;

	(void)state;
	pd_vars.ring_allocation_logic_rx = PD_STEER_SOCKET;
	s.receive_own.number = 2 + 8;
	/* All lanes are full: what is looked at first is found. */
	for (unsigned i = 0; i < 16 * 8 * 4; i++) {
		unsigned first = pd_steer_receive(&s, &port, &others);

		hits[first]++;
		pd_steer_received(&s, &port, first, first);
	}
	for (unsigned lane = 0; lane < 8; lane++)
		assert_in_range(hits[lane], lane == 2 ? 16 * 8 * 3 : 2, 16 * 8 * 4);
	/* With the own lane empty, one that has frames is the next to look at. */
	pd_steer_received(&s, &port, 6, 2);
	assert_int_equal(pd_steer_receive(&s, &port, &others), 2);
	assert_int_equal(others, 6);
	/* What was peeked at is taken next, wherever it stands. */
	pd_steer_looked(&s, 5);
	assert_int_equal(pd_steer_receive(&s, &port, &others), 5);
	pd_steer_received(&s, &port, 5, 5);
	assert_int_equal(pd_steer_receive(&s, &port, &others), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_class_goes_by_the_lane_of_its_number),
		cmocka_unit_test(test_a_lane_that_is_down_moves_its_own_keys_only),
		cmocka_unit_test(test_what_has_no_class_keeps_to_the_lanes_without_one),
		cmocka_unit_test(test_hashes_spread_over_what_is_up),
		cmocka_unit_test(test_a_flow_is_addresses_and_ports),
		cmocka_unit_test(test_flows_spread_whatever_they_differ_in),
		cmocka_unit_test(test_fragments_of_a_datagram_stay_together),
		cmocka_unit_test(test_what_is_not_ip_goes_by_ethernet),
		cmocka_unit_test(test_each_socket_has_a_number),
		cmocka_unit_test(test_a_socket_follows_the_thread_that_uses_it),
		cmocka_unit_test(test_threads_are_attached_to_different_cores),
		cmocka_unit_test_setup(test_a_sidecar_says_the_class, fresh),
		cmocka_unit_test_setup(test_a_socket_has_a_class_once_it_was_given, fresh),
		cmocka_unit_test_setup(test_the_flow_is_found_in_any_pieces, fresh),
		cmocka_unit_test_setup(test_lanes_take_turns, fresh),
		cmocka_unit_test_setup(test_the_own_lane_comes_first_and_no_other_starves, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
