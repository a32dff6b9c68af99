/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end role against a scripted front-end: every refusal, what is told of it, and that no
 * descriptor is left behind.
 */
#include "backend_peer.h"

struct bad_region {
	const char *name;
	struct pd_vhost_region region;
};

static const struct bad_region bad_regions[] = {
	{"size 0", {GPA, 0, UVA, 0}},
	{"longer than the file", {GPA, SIZE + 1, UVA, 0}},
	{"behind the file", {GPA, 4096, UVA, SIZE}},
	{"guest address wraps", {UINT64_MAX - 4095, SIZE, UVA, 0}},
	{"front-end address wraps", {GPA, SIZE, UINT64_MAX - 4095, 0}},
	{"file offset wraps", {GPA, SIZE, UVA, UINT64_MAX - 4095}},
	{"everything is all ones", {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}},
};

static void a_region_is_refused(void **state)
{
	const struct bad_region *bad = *state;

	negotiate();
	send_memory(bad->region, PD_VHOST_NEED_REPLY, mem_fd);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	/* And without an answer asked for, the connection ends. */
	send_memory(bad->region, 0, mem_fd);
	assert_true(peer_closed(sock));
}

static void regions_that_are_no_files_or_overlap(void **state)
{
	struct pd_vhost_memory m = {.n_regions = 2, .regions = {whole, whole}};
	int pipe_fds[2], fds[2] = {mem_fd, mem_fd};
	int read_only, strange, pair[2];
	char path[64];

	(void)state;
	negotiate();
	strange = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	assert_true(strange >= 0);
	send_memory(whole, PD_VHOST_NEED_REPLY, strange);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	close(strange);
	assert_non_null(strstr(port->ctr->last_error, "memory in a file of proc, not tmpfs"));
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	send_memory(whole, PD_VHOST_NEED_REPLY, pipe_fds[0]);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	send_memory(whole, PD_VHOST_NEED_REPLY, pair[0]);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	close(pair[0]);
	close(pair[1]);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", mem_fd);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(read_only >= 0);
	send_memory(whole, PD_VHOST_NEED_REPLY, read_only);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	close(read_only);
	for (int which = 0; which < 2; which++) {
		m.regions[1] = whole;
		if (which)
			m.regions[1].gpa += SIZE;
		else
			m.regions[1].uaddr += SIZE;
		peer_send(sock, PD_VHOST_SET_MEM_TABLE, 8, &m, 72, fds, 2);
		assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	}
	m.n_regions = 0;
	peer_send(sock, PD_VHOST_SET_MEM_TABLE, 8, &m, 8, NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
}

/* Files that hold nothing, of the largest size that is taken, and one byte of another. */
static void memory_has_a_bound(void **state)
{
	const uint64_t most = 32ull << 40;
	struct pd_vhost_memory m = {.n_regions = 2,
				    .regions = {whole, {1ull << 50, most, 1ull << 60, 0}}};
	int fds[2] = {mem_fd, memfd_create("nothing", MFD_CLOEXEC)};

	(void)state;
	negotiate();
	assert_int_equal(ftruncate(fds[1], (off_t)most), 0);
	peer_send(sock, PD_VHOST_SET_MEM_TABLE, 8, &m, 72, fds, 2);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	close(fds[1]);
}

/* A peer that asks and leaves has been refused nothing. */
static void who_leaves_before_the_answer_is_not_refused(void **state)
{
	(void)state;
	peer_send(sock, PD_VHOST_GET_FEATURES, 0, "", 0, NULL, 0);
	close(sock);
	sock = -1;
	turn();
	assert_int_equal(pd_ctr_get(port->ctr, PD_CTR_PORT_PROTOCOL_ERRORS), 0);
}

/* What the port says of what went wrong last. */
static void assert_last_error(const char *text)
{
	assert_string_equal(port->ctr->last_error, text);
}

/* Who is told by an answer that something is refused is not the only one who is told. */
static void what_is_refused_is_named(void **state)
{
	static const char refused[] =
		"SET_FEATURES refused: features that were not offered: 0x2000000";
	uint64_t features = BIT(25);
	char left[128];

	(void)state;
	negotiate();
	peer_send(sock, PD_VHOST_SET_FEATURES, PD_VHOST_NEED_REPLY, &features, sizeof(features),
		  NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 1);
	assert_last_error(refused);
	/* Other messages, and the end, are not in its way. */
	peer_ask(sock, PD_VHOST_GET_FEATURES);
	close(sock);
	turn();
	snprintf(left, sizeof(left), "%s, and the peer left", refused);
	assert_last_error(left);
	/* With the link up it is forgotten. */
	sock = peer_connect(peer_path);
	negotiate();
	peer_send(sock, PD_VHOST_SET_FEATURES, PD_VHOST_NEED_REPLY, &features, sizeof(features),
		  NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 1);
	bring_up();
	close(sock);
	sock = -1;
	turn();
	assert_last_error("the peer closed the connection");
	assert_int_equal(pd_ctr_get(port->ctr, PD_CTR_PORT_PROTOCOL_ERRORS), 0);
}

/* Rings that a message has left as they cannot be are that message's doing, not the next one's. */
static void the_message_that_did_it_is_named(void **state)
{
	static const char refused[] =
		"SET_VRING_KICK refused: ring 0: a part of the ring is misaligned";
	uint64_t ring = 0;

	(void)state;
	negotiate();
	send_memory(whole, 0, mem_fd);
	peer_state(sock, PD_VHOST_SET_VRING_ENABLE, 0, 1);
	peer_state(sock, PD_VHOST_SET_VRING_NUM, 0, RING);
	send_addr(0, UVA + 8);
	peer_send(sock, PD_VHOST_SET_VRING_KICK, PD_VHOST_NEED_REPLY, &ring, sizeof(ring), kick, 1);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_VRING_KICK), 1);
	assert_last_error(refused);
	/* Another refusal in between changes nothing in that. */
	ring = BIT(25);
	peer_send(sock, PD_VHOST_SET_FEATURES, PD_VHOST_NEED_REPLY, &ring, sizeof(ring), NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 1);
	peer_state(sock, PD_VHOST_SET_VRING_NUM, 1, RING);
	assert_true(peer_closed(sock));
	assert_last_error(refused);
	assert_string_equal(port->ctr->reason, refused);
}

/* A ring that only throws away what comes runs too: by the features that it was started with. */
static void features_stay_while_a_ring_discards(void **state)
{
	uint64_t offered = peer_ask(sock, PD_VHOST_GET_FEATURES) & ~PACKED;
	const uint64_t others[] = {offered & ~BIT(VIRTIO_RING_F_EVENT_IDX), offered | PACKED};
	uint64_t one = 1;

	(void)state;
	negotiate();
	send_memory(whole, 0, mem_fd);
	send_ring(1, 0);
	peer_state(sock, PD_VHOST_SET_VRING_ENABLE, 1, 0);
	for (unsigned i = 0; i < 2; i++) {
		peer_send(sock, PD_VHOST_SET_FEATURES, PD_VHOST_NEED_REPLY, &others[i], 8, NULL, 0);
		assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 1);
		peer_transmit();
		assert_int_equal(write(kick[1], &one, sizeof(one)), sizeof(one));
		turn();
		assert_int_equal(used_of(1)->idx, i + 1);
	}
	/* A migration may begin at any time, and what has stopped may have any. */
	offered |= BIT(VHOST_F_LOG_ALL);
	peer_send(sock, PD_VHOST_SET_FEATURES, PD_VHOST_NEED_REPLY, &offered, 8, NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 0);
	peer_state(sock, PD_VHOST_GET_VRING_BASE, 1, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_GET_VRING_BASE) >> 32, 2);
	peer_send(sock, PD_VHOST_SET_FEATURES, PD_VHOST_NEED_REPLY, &others[0], 8, NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 0);
}

/* The channel is gone, and the connection is not: that is what is told. */
static void a_channel_that_is_closed_when_something_is_to_be_asked(void **state)
{
	int channel;

	(void)state;
	close(sock);
	turn();
	pd_port_close(port);
	peer_config.ports[0].iommu = true;
	assert_int_equal(pd_port_open(port), 0);
	turn();
	sock = peer_connect(peer_path);
	negotiate();
	channel = send_channel();
	send_memory(whole, 0, mem_fd);
	peer_state(sock, PD_VHOST_SET_VRING_ENABLE, 0, 1);
	peer_state(sock, PD_VHOST_SET_VRING_NUM, 0, RING);
	send_addr(0, UVA);
	assert_false(peer_closed(sock));
	peer_fd(sock, PD_VHOST_SET_VRING_KICK, 0, kick[0]);
	close(channel);
	assert_true(peer_closed(sock));
	assert_last_error(
		"SET_VRING_KICK refused: a translation is needed, and the peer has closed "
		"the channel to ask for it");
	assert_int_equal(pd_ctr_get(port->ctr, PD_CTR_PORT_PROTOCOL_ERRORS), 1);
}

static void notification_descriptors_must_be_eventfds(void **state)
{
	int pipe_fds[2], pair[2];
	uint64_t ring = 0;

	(void)state;
	negotiate();
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	for (uint32_t r = PD_VHOST_SET_VRING_KICK; r <= PD_VHOST_SET_VRING_CALL; r++) {
		const int fds[] = {pipe_fds[0], pipe_fds[1], pair[0], mem_fd};

		for (unsigned i = 0; i < 4; i++) {
			peer_send(sock, r, 8, &ring, sizeof(ring), &fds[i], 1);
			assert_int_equal(peer_reply(sock, r), 1);
		}
	}
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close(pair[0]);
	close(pair[1]);
	/* A blocking eventfd becomes a non-blocking one. */
	peer_fd(sock, PD_VHOST_SET_VRING_CALL, 0, call[0]);
	turn();
	assert_true(fcntl(call[0], F_GETFL) & O_NONBLOCK);
}

/* One message with an answer asked for, refused; the connection lives. */
struct bad_message {
	const char *name;
	uint32_t request;
	uint32_t size;
	union {
		uint64_t u64;
		struct pd_vhost_vring_state state;
		struct pd_vhost_vring_addr addr;
	} payload;
};

static const struct bad_message bad_messages[] = {
	{"features not offered", PD_VHOST_SET_FEATURES, 8, {.u64 = BIT(25)}},
	{"protocol features not offered", PD_VHOST_SET_PROTOCOL_FEATURES, 8, {.u64 = BIT(9)}},
	{"ring size 0", PD_VHOST_SET_VRING_NUM, 8, {.state = {0, 0}}},
	{"ring size 1", PD_VHOST_SET_VRING_NUM, 8, {.state = {0, 1}}},
	{"ring size 65536", PD_VHOST_SET_VRING_NUM, 8, {.state = {0, 65536}}},
	{"ring size 100", PD_VHOST_SET_VRING_NUM, 8, {.state = {0, 100}}},
	{"ring 2", PD_VHOST_SET_VRING_NUM, 8, {.state = {2, 256}}},
	{"ring 2^32-1", PD_VHOST_SET_VRING_ENABLE, 8, {.state = {UINT32_MAX, 1}}},
	{"enable 2", PD_VHOST_SET_VRING_ENABLE, 8, {.state = {0, 2}}},
	{"base 65536", PD_VHOST_SET_VRING_BASE, 8, {.state = {0, 65536}}},
	{"addresses of ring 9", PD_VHOST_SET_VRING_ADDR, 40, {.addr = {.index = 9}}},
	{"call of ring 255", PD_VHOST_SET_VRING_CALL, 8, {.u64 = 0x1ff}},
	{"status of nine bits", PD_VHOST_SET_STATUS, 8, {.u64 = 256}},
	{"MTU 0", PD_VHOST_NET_SET_MTU, 8, {.u64 = 0}},
	{"RARP of nobody", PD_VHOST_SEND_RARP, 8, {.u64 = 0}},
	{"RARP of a group", PD_VHOST_SEND_RARP, 8, {.u64 = 1}},
	{"endianness, not offered", PD_VHOST_SET_VRING_ENDIAN, 8, {.state = {0, 1}}},
	{"a kick in band, not offered", PD_VHOST_VRING_KICK, 8, {.state = {0, 0}}},
};

static void a_message_is_refused(void **state)
{
	const struct bad_message *bad = *state;

	negotiate();
	peer_send(sock, bad->request, PD_VHOST_NEED_REPLY, &bad->payload, bad->size, NULL, 0);
	assert_int_equal(peer_reply(sock, bad->request), 1);
	assert_false(peer_closed(sock));
	bring_up();
	/* The same without asking for an answer. */
	peer_send(sock, bad->request, 0, &bad->payload, bad->size, NULL, 0);
	assert_true(peer_closed(sock));
	assert_int_equal(port->state, PD_PORT_DOWN);
}

static void rings_that_cannot_be(void **state)
{
	const uint64_t *at = *state;

	negotiate();
	send_memory(whole, 0, mem_fd);
	peer_state(sock, PD_VHOST_SET_VRING_ENABLE, 0, 1);
	peer_state(sock, PD_VHOST_SET_VRING_NUM, 0, RING);
	send_addr(0, *at);
	assert_false(peer_closed(sock));
	peer_fd(sock, PD_VHOST_SET_VRING_KICK, 0, kick[0]);
	assert_true(peer_closed(sock));
}

static void changes_while_running(void **state)
{
	struct pd_vhost_vring_state other = {0, RING * 2};
	uint64_t features = BIT(VIRTIO_F_VERSION_1);

	(void)state;
	bring_up();
	peer_send(sock, PD_VHOST_SET_VRING_NUM, 8, &other, sizeof(other), NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_VRING_NUM), 1);
	peer_send(sock, PD_VHOST_SET_FEATURES, 8, &features, sizeof(features), NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 1);
	assert_int_equal(port->state, PD_PORT_UP);
}

/* Requests of features we do not have, with the descriptors they would bring. */
static void what_is_never_offered(void **state)
{
	static const uint32_t requests[] = {PD_VHOST_SET_BACKEND_REQ_FD, PD_VHOST_GPU_SET_SOCKET};

	(void)state;
	for (unsigned i = 0; i < PD_ARRAY_SIZE(requests); i++) {
		negotiate();
		peer_send(sock, requests[i], 8, NULL, 0, &mem_fd, 1);
		assert_int_equal(peer_reply(sock, requests[i]), 1);
		peer_send(sock, requests[i], 0, NULL, 0, &mem_fd, 1);
		assert_true(peer_closed(sock));
		close(sock);
		sock = peer_connect(peer_path);
		turn();
	}
}

static void who_never_reads_is_cut_off(void **state)
{
	struct pd_vhost_header ask = {PD_VHOST_GET_FEATURES, PD_VHOST_VERSION, 0};
	uint64_t until = pd_clock_ns() + 10 * PD_NS_PER_SEC;

	(void)state;
	for (;;) {
		ssize_t n = send(sock, &ask, sizeof(ask), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno != EAGAIN)
			break;
		pd_progress_run_once(0);
		assert_true(pd_clock_ns() < until);
	}
	assert_int_equal(errno, EPIPE);
}

int main(void)
{
	static const uint64_t bad_places[] = {
		UVA + SIZE - 0x8000, /* the used ring is outside */
		UVA - 0x4000,        /* the descriptors are */
		GPA,                 /* guest addresses where the front-end's are due */
		UVA + 8,             /* misaligned */
		UINT64_MAX - 15,
	};
	struct CMUnitTest tests[80];
	unsigned n = 0;

	tests[n++] = T(regions_that_are_no_files_or_overlap);
	tests[n++] = T(memory_has_a_bound);
	tests[n++] = T(who_leaves_before_the_answer_is_not_refused);
	tests[n++] = T(what_is_refused_is_named);
	tests[n++] = T(the_message_that_did_it_is_named);
	tests[n++] = T(features_stay_while_a_ring_discards);
	tests[n++] = T(a_channel_that_is_closed_when_something_is_to_be_asked);
	tests[n++] = T(notification_descriptors_must_be_eventfds);
	tests[n++] = T(changes_while_running);
	tests[n++] = T(what_is_never_offered);
	tests[n++] = T(who_never_reads_is_cut_off);
	for (unsigned i = 0; i < PD_ARRAY_SIZE(bad_regions); i++)
		tests[n++] = P(a_region_is_refused, bad_regions[i].name, &bad_regions[i]);
	for (unsigned i = 0; i < PD_ARRAY_SIZE(bad_messages); i++)
		tests[n++] = P(a_message_is_refused, bad_messages[i].name, &bad_messages[i]);
	for (unsigned i = 0; i < PD_ARRAY_SIZE(bad_places); i++)
		tests[n++] = P(rings_that_cannot_be, "a ring at a bad place", &bad_places[i]);
	pd_log_set_level(PD_LOG_NONE);
	return _cmocka_run_group_tests("refusals", tests, n, NULL, NULL);
}
