/* SPDX-License-Identifier: BSD-2-Clause */
/* Framing: however the bytes and descriptors arrive, messages come out whole or the peer goes. */
#include <sys/resource.h>

#include "peer.h"
#include "tests/unit/base/linger.h"
#include "transport/vhost/conn.h"

static struct pd_vhost_conn conn;
static int peer;     /* the other end */
static int messages; /* that came out */
static int fds_seen;
static struct pd_vhost_msg last;
static char ended[128];    /* why, or "" */
static const char *answer; /* what the message callback returns */
static int fds_before;
static bool told_early;

static const char *on_message(struct pd_vhost_conn *c, struct pd_vhost_msg *msg)
{
	(void)c;
	messages++;
	fds_seen += (int)msg->n_fds;
	last = *msg;
	return answer;
}

static void on_ended(struct pd_vhost_conn *c, const char *reason)
{
	struct pollfd p = {.fd = peer};

	assert_false(pd_vhost_conn_is_open(c));
	/* The other end is not told before this is done. */
	told_early |= poll(&p, 1, 0) < 0 || (p.revents & (POLLHUP | POLLERR));
	snprintf(ended, sizeof(ended), "%s", reason);
}

static const struct pd_vhost_conn_ops ops = {.message = on_message, .ended = on_ended};

static int setup(void **state)
{
	int pair[2];

	(void)state;
	messages = fds_seen = 0;
	told_early = false;
	ended[0] = 0;
	answer = NULL;
	pd_progress_set_manual(true);
	pd_lock(&pd_control);
	assert_int_equal(pd_progress_start(), 0);
	pd_unlock(&pd_control);
	fds_before = fd_count();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	peer = pair[1];
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	pd_vhost_conn_init(&conn, &ops, false);
	pd_lock(&pd_control);
	assert_int_equal(pd_vhost_conn_open(&conn, pair[0]), 0);
	pd_unlock(&pd_control);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pd_lock(&pd_control);
	pd_vhost_conn_close(&conn);
	pd_unlock(&pd_control);
	close(peer);
	assert_int_equal(fd_count(), fds_before);
	assert_false(told_early);
	return 0;
}

/* A SET_VRING_ADDR whose bytes are all different. */
static void make_addr(uint8_t *bytes)
{
	struct pd_vhost_header hdr = {PD_VHOST_SET_VRING_ADDR, PD_VHOST_VERSION, 40};

	memcpy(bytes, &hdr, sizeof(hdr));
	for (int i = 0; i < 40; i++)
		bytes[12 + i] = (uint8_t)(i * 5 + 1);
}

static void split_at_every_byte(void **state)
{
	uint8_t bytes[52];

	(void)state;
	make_addr(bytes);
	for (unsigned at = 1; at < sizeof(bytes); at++) {
		peer_send_bytes(peer, bytes, at, NULL, 0);
		turn();
		assert_int_equal(messages, at - 1);
		peer_send_bytes(peer, bytes + at, sizeof(bytes) - at, NULL, 0);
		turn();
		assert_int_equal(messages, at);
		assert_memory_equal(last.payload.bytes, bytes + 12, 40);
	}
	assert_string_equal(ended, "");
}

static void one_byte_at_a_time_with_a_descriptor(void **state)
{
	struct {
		struct pd_vhost_header hdr;
		uint64_t u64;
	} PD_PACKED m = {{PD_VHOST_SET_VRING_KICK, PD_VHOST_VERSION, 8}, 1};
	int fd = eventfd(0, EFD_CLOEXEC);

	(void)state;
	for (unsigned i = 0; i < sizeof(m); i++) {
		peer_send_bytes(peer, (char *)&m + i, 1, &fd, i == 0);
		turn();
	}
	close(fd);
	assert_int_equal(messages, 1);
	assert_int_equal(fds_seen, 1);
	assert_string_equal(ended, "");
}

static void many_in_one_piece(void **state)
{
	uint8_t bytes[52 * 100];

	(void)state;
	for (int i = 0; i < 100; i++)
		make_addr(bytes + 52 * i);
	peer_send_bytes(peer, bytes, sizeof(bytes), NULL, 0);
	turn();
	assert_int_equal(messages, 100);
}

static void descriptors_stay_with_their_message(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC);

	(void)state;
	/* Both are in the socket before the first is read. */
	peer_state(peer, PD_VHOST_SET_VRING_NUM, 0, 256);
	peer_fd(peer, PD_VHOST_SET_VRING_CALL, 1, fd);
	peer_state(peer, PD_VHOST_SET_VRING_NUM, 0, 256);
	close(fd);
	answer = NULL;
	turn();
	assert_int_equal(messages, 3);
	assert_int_equal(fds_seen, 1);
	assert_int_equal(last.n_fds, 0);
}

/* Those that stand far behind are taken out of the socket once, not at every message before them. */
static void descriptors_far_behind(void **state)
{
	uint8_t bytes[52];
	int fds[8], held[8], before = fd_count();

	(void)state;
	make_addr(bytes);
	for (int i = 0; i < 8; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC);
	for (int i = 0; i < 100; i++)
		peer_send_bytes(peer, bytes, sizeof(bytes), NULL, 0);
	peer_send_bytes(peer, bytes, sizeof(bytes), fds, 8);
	peer_send_bytes(peer, bytes, sizeof(bytes), fds, 1);
	for (int i = 0; i < 8; i++)
		close(fds[i]);
	pd_progress_run_once(0);
	assert_in_range(messages, 1, 99);
	assert_int_equal(fds_seen, 0);
	assert_int_equal(conn.n_ahead, 8);
	memcpy(held, conn.ahead, sizeof(held));
	assert_int_equal(fd_count(), before + 8);
	pd_progress_run_once(0);
	assert_in_range(messages, 2, 99);
	assert_memory_equal(held, conn.ahead, sizeof(held));
	while (messages < 101)
		pd_progress_run_once(0);
	assert_int_equal(fds_seen, 8 + (messages == 102));
	turn();
	assert_int_equal(messages, 102);
	assert_int_equal(last.n_fds, 1);
	assert_int_equal(fds_seen, 9);
	assert_int_equal(fd_count(), before);
}

/* They go with the connection, of which they are not read. */
static void descriptors_that_are_never_reached(void **state)
{
	uint8_t bytes[52];
	int fd = eventfd(0, EFD_CLOEXEC);

	(void)state;
	make_addr(bytes);
	peer_send_bytes(peer, bytes, sizeof(bytes), NULL, 0);
	peer_send_bytes(peer, bytes, sizeof(bytes), &fd, 1);
	close(fd);
	answer = "no more";
	turn();
	assert_int_equal(messages, 1);
	assert_int_equal(conn.n_ahead, 0);
	assert_string_equal(ended, "no more");
}

static void descriptors_inside_a_payload(void **state)
{
	uint8_t bytes[52];
	int fd = eventfd(0, EFD_CLOEXEC);

	(void)state;
	make_addr(bytes);
	peer_send_bytes(peer, bytes, 20, NULL, 0);
	peer_send_bytes(peer, bytes + 20, 32, &fd, 1);
	close(fd);
	turn();
	assert_int_equal(messages, 0);
	assert_string_equal(ended, "file descriptors inside a message");
}

static void more_descriptors_than_any_message_has(void **state)
{
	uint8_t bytes[52];
	int fds[253];

	(void)state;
	make_addr(bytes);
	for (int i = 0; i < 253; i++)
		fds[i] = peer;
	peer_send_bytes(peer, bytes, sizeof(bytes), fds, *(unsigned *)*state);
	turn();
	assert_int_equal(messages, 0);
	assert_string_equal(ended, "too many file descriptors");
}

static void descriptors_over_two_pieces_of_a_header(void **state)
{
	uint8_t bytes[52];
	int fds[8];

	(void)state;
	make_addr(bytes);
	for (int i = 0; i < 8; i++)
		fds[i] = peer;
	peer_send_bytes(peer, bytes, 4, fds, 8);
	peer_send_bytes(peer, bytes + 4, 4, fds, 1);
	turn();
	assert_string_equal(ended, "too many file descriptors");
}

/*
 * Nobody waits for a descriptor that comes where none does, or that nobody wanted, though its last
 * close waits; nor for one inside of what is let in, nor for one that nobody has read.
 */
static void what_lingers(void **state)
{
	static const char *const why[] = {
		"too many file descriptors", "a socket that is no Unix stream socket",
		"too many file descriptors", "file descriptors inside a message",
		"unknown request",
	};
	struct pd_vhost_header refused = {0, PD_VHOST_VERSION, 0};
	uint8_t bytes[52];
	int fds[9], pair[2], other, n = 0;
	uint32_t how = *(uint32_t *)*state;

	alarm(30);
	make_addr(bytes);
	fds[8] = lingering(&other);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	for (n = 0; n < 8; n++)
		fds[n] = eventfd(0, EFD_CLOEXEC);
	switch (how) {
	case 0: /* the last of nine is a socket with it inside */
		send_away(pair[1], "x", 1, &fds[8], 1);
		fds[8] = dup(pair[0]);
		send_away(peer, bytes, sizeof(bytes), fds, 9);
		break;
	case 1: /* the last of nine */
		send_away(peer, bytes, sizeof(bytes), fds, 9);
		break;
	case 2: /* that socket stands at the beginning, and is kept until the ninth comes */
		send_away(pair[1], "x", 1, &fds[8], 1);
		close(fds[0]);
		fds[0] = dup(pair[0]);
		send_away(peer, bytes, 4, fds, 8);
		peer_send_bytes(peer, bytes + 4, 8, &pair[1], 1);
		break;
	case 3:
		send_away(pair[1], "x", 1, &fds[8], 1);
		fds[8] = dup(pair[0]);
		send_away(peer, bytes, 12, fds, 8);
		peer_send_bytes(peer, bytes + 12, 3, NULL, 0);
		send_away(peer, bytes + 15, 3, &fds[8], 1);
		break;
	case 4: /* behind what ends the connection, and behind others, where nobody looks */
		peer_send_bytes(peer, &refused, sizeof(refused), NULL, 0);
		send_away(peer, bytes, sizeof(bytes), fds, 8);
		send_away(peer, bytes, sizeof(bytes), &fds[8], 1);
		break;
	}
	close(pair[0]);
	close(pair[1]);
	turn();
	assert_int_equal(messages, 0);
	assert_string_equal(ended, why[how]);
	close(other);
	alarm(0);
}

/* Urgent bytes are bytes like others: none is stepped over, nor what comes with it. */
static void urgent_bytes(void **state)
{
	uint8_t bytes[52];

	(void)state;
	alarm(30);
	make_addr(bytes);
	if (send(peer, bytes, sizeof(bytes), MSG_OOB) < 0) {
		assert_int_equal(errno, EOPNOTSUPP);
		skip();
	}
	turn();
	assert_int_equal(messages, 1);
	for (unsigned i = 0; i < sizeof(bytes); i++)
		assert_int_equal(send(peer, bytes + i, 1, MSG_OOB), 1);
	turn();
	assert_int_equal(messages, 2);
	assert_memory_equal(last.payload.bytes, bytes + 12, 40);
	assert_string_equal(ended, "");
	alarm(0);
}

static void urgent_and_lingering(void **state)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {{0}};
	struct iovec iov = {"x", 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control.bytes)};
	int fd, other;

	(void)state;
	alarm(30);
	fd = lingering(&other);
	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	if (sendmsg(peer, &msg, MSG_OOB) < 0) {
		assert_int_equal(errno, EOPNOTSUPP);
		close(other);
		close(fd);
		skip();
	}
	close(fd);
	turn();
	assert_int_equal(messages, 0);
	assert_string_equal(ended, "a socket that is no Unix stream socket");
	close(other);
	alarm(0);
}

/* Where no number is free, the kernel would close what it cannot give us. */
static void what_lingers_and_finds_no_number(void **state)
{
	struct rlimit limit, none;
	uint8_t bytes[52];
	int fd, other;

	(void)state;
	alarm(30);
	make_addr(bytes);
	fd = lingering(&other);
	send_away(peer, bytes, sizeof(bytes), &fd, 1);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 3;
	setrlimit(RLIMIT_NOFILE, &none);
	pd_progress_run_once(0);
	setrlimit(RLIMIT_NOFILE, &limit);
	assert_int_equal(messages, 0);
	assert_string_equal(ended, "file descriptors were lost: none free here");
	close(other);
	alarm(0);
}

/*
 * On a socket that the peer has our end of, no descriptor is ever due: not with the bytes that are
 * there, and not with those that are there when it has read these itself.
 */
static void a_shared_connection(void **state)
{
	uint8_t bytes[52];
	int fd, other;

	(void)state;
	alarm(30);
	make_addr(bytes);
	conn.shared = true;
	peer_send_bytes(peer, bytes, sizeof(bytes), NULL, 0);
	turn();
	assert_int_equal(messages, 1);
	fd = lingering(&other);
	send_away(peer, bytes, sizeof(bytes), &fd, 1);
	turn();
	assert_int_equal(messages, 1);
	assert_string_equal(ended, "a socket that is no Unix stream socket");
	close(other);
	alarm(0);
}

static void a_harmless_one_on_a_shared_connection(void **state)
{
	uint8_t bytes[52];
	int fd = eventfd(0, EFD_CLOEXEC);

	(void)state;
	make_addr(bytes);
	conn.shared = true;
	send_away(peer, bytes, sizeof(bytes), &fd, 1);
	turn();
	assert_int_equal(messages, 0);
	assert_string_equal(ended, "file descriptors on a reply");
}

static void bad_headers(void **state)
{
	const struct pd_vhost_header *hdr = *state;

	peer_send_bytes(peer, hdr, sizeof(*hdr), NULL, 0);
	turn();
	assert_int_equal(messages, 0);
	assert_true(ended[0]);
	assert_true(peer_closed(peer));
}

static void the_peer_leaves(void **state)
{
	(void)state;
	shutdown(peer, SHUT_WR);
	turn();
	assert_string_equal(ended, "the peer closed the connection");
}

static void the_peer_leaves_inside_a_message(void **state)
{
	uint8_t bytes[52];
	int fd = eventfd(0, EFD_CLOEXEC);

	(void)state;
	make_addr(bytes);
	peer_send_bytes(peer, bytes, 30, &fd, 1);
	close(fd);
	shutdown(peer, SHUT_WR);
	turn();
	assert_string_equal(ended, "the peer closed the connection inside a message");
}

static void what_the_role_refuses_ends_it(void **state)
{
	(void)state;
	answer = "no";
	peer_state(peer, PD_VHOST_SET_VRING_NUM, 0, 256);
	peer_state(peer, PD_VHOST_SET_VRING_NUM, 0, 256);
	turn();
	assert_int_equal(messages, 1);
	assert_string_equal(ended, "no");
}

/* Send until the socket and the queue are full; then everything arrives, in order. */
static void replies_wait_for_a_slow_reader(void **state)
{
	struct pd_vhost_header hdr = {PD_VHOST_GET_FEATURES, 5, 8};
	uint64_t sent = 0, got = 0, value;
	struct pd_vhost_header h;
	int small = 1;

	(void)state;
	setsockopt(conn.io.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	pd_lock(&pd_control);
	while (pd_vhost_conn_room(&conn)) {
		assert_null(pd_vhost_conn_send(&conn, &hdr, &sent, NULL, 0));
		sent++;
	}
	assert_string_equal(pd_vhost_conn_send(&conn, &hdr, &sent, NULL, 0),
			    "the peer does not read its replies");
	pd_unlock(&pd_control);
	while (got < sent) {
		assert_int_equal(peer_recv(peer, &h, &value, sizeof(value)), 8);
		assert_int_equal(value, got);
		got++;
	}
	turn();
	assert_int_equal(conn.out_count, 0);
}

/* The descriptor that comes with the next message, which has a number as its payload; -1 none. */
static int recv_fd(void)
{
	union {
		struct cmsghdr c;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct {
		struct pd_vhost_header hdr;
		uint64_t value;
	} __attribute__((packed)) m;
	struct iovec iov = {&m, sizeof(m)};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control)};
	int fd = -1;

	turn();
	assert_int_equal(recvmsg(peer, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC), sizeof(m));
	if (CMSG_FIRSTHDR(&mh))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&mh)), sizeof(fd));
	return fd;
}

/*
 * A message that waits goes with what its descriptors were when it was sent, though the sender has
 * closed them and something else has their numbers. One that never goes leaves none open.
 */
static void descriptors_wait_too(void **state)
{
	struct pd_vhost_header hdr = {PD_VHOST_GET_INFLIGHT_FD, 5, 8};
	int fd = memfd_create("first", 0), small = 1, came = -1;
	struct stat first, got;
	uint64_t value = 0;
	uint32_t waiting;

	(void)state;
	assert_int_equal(fstat(fd, &first), 0);
	setsockopt(conn.io.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	pd_lock(&pd_control);
	do
		assert_null(pd_vhost_conn_send(&conn, &hdr, &value, NULL, 0));
	while (!conn.out_count);
	waiting = conn.out_count;
	for (int i = 0; i < 2; i++)
		assert_null(pd_vhost_conn_send(&conn, &hdr, &value, &fd, 1));
	assert_int_equal(conn.out_count, waiting + 2);
	close(fd);
	assert_int_equal(memfd_create("second", 0), fd);
	pd_unlock(&pd_control);
	while (came < 0)
		came = recv_fd();
	assert_int_equal(fstat(came, &got), 0);
	assert_int_equal(got.st_ino, first.st_ino);
	close(came);
	close(fd);
}

int main(void)
{
	static unsigned nine = 9, most = 253;
	static uint32_t how[] = {0, 1, 2, 3, 4};
	static struct pd_vhost_header bad[] = {
		{0, 1, 0}, {41, 1, 0}, {UINT32_MAX, 1, 0}, {1, 0, 0},
		{1, 2, 0}, {1, 5, 0},  {5, 1, 513},        {5, 1, UINT32_MAX},
	};
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define P(f, p) cmocka_unit_test_prestate_setup_teardown(f, setup, teardown, p)
	const struct CMUnitTest tests[] = {
		T(split_at_every_byte),
		T(one_byte_at_a_time_with_a_descriptor),
		T(many_in_one_piece),
		T(descriptors_stay_with_their_message),
		T(descriptors_far_behind),
		T(descriptors_that_are_never_reached),
		T(descriptors_inside_a_payload),
		P(more_descriptors_than_any_message_has, &nine),
		P(more_descriptors_than_any_message_has, &most),
		T(descriptors_over_two_pieces_of_a_header),
		P(what_lingers, &how[0]),
		P(what_lingers, &how[1]),
		P(what_lingers, &how[2]),
		P(what_lingers, &how[3]),
		P(what_lingers, &how[4]),
		T(urgent_bytes),
		T(urgent_and_lingering),
		T(what_lingers_and_finds_no_number),
		T(a_shared_connection),
		T(a_harmless_one_on_a_shared_connection),
		P(bad_headers, &bad[0]),
		P(bad_headers, &bad[1]),
		P(bad_headers, &bad[2]),
		P(bad_headers, &bad[3]),
		P(bad_headers, &bad[4]),
		P(bad_headers, &bad[5]),
		P(bad_headers, &bad[6]),
		P(bad_headers, &bad[7]),
		T(the_peer_leaves),
		T(the_peer_leaves_inside_a_message),
		T(what_the_role_refuses_ends_it),
		T(replies_wait_for_a_slow_reader),
		T(descriptors_wait_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
