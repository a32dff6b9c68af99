/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Those who wait at a path whose ports are taken: who is served first, who has to give way, and
 * crowds, also without descriptors.
 */
#include <sys/resource.h>

#include "counters/counters.h"
#include "dial_rig.h"

/* A guest in its firmware says nothing for minutes. */
static void silence_alone_ends_nobody(void **state)
{
	int sock;

	(void)state;
	listen_plainly();
	sock = begin();
	assert_string_equal(reason_of(&pd_ports[0]),
			    "connected, negotiating: last message GET_FEATURES");
	for (int i = 0; i < 60; i++)
		later(10000);
	assert_false(peer_closed(sock));
	peer_ask(sock, PD_VHOST_GET_PROTOCOL_FEATURES);
	assert_string_equal(reason_of(&pd_ports[0]),
			    "connected, negotiating: last message GET_PROTOCOL_FEATURES");
	close(sock);
	turn();
	assert_string_equal(reason_of(&pd_ports[0]), PD_PORT_NO_PEER_YET);
}

/* But another one that wants the place gets it, after a time in which the first may still speak. */
static void who_is_silent_gives_way_to_who_wants_the_place(void **state)
{
	int first, second, third;

	(void)state;
	listen_plainly();
	first = begin();
	second = peer_connect(peer_path);
	peer_send(second, PD_VHOST_GET_FEATURES, 0, "", 0, NULL, 0);
	turn();
	later(1500);
	assert_false(peer_closed(first));
	assert_false(peer_closed(second));
	later(700);
	assert_true(peer_closed(first));
	peer_reply(second, PD_VHOST_GET_FEATURES);
	assert_int_equal(pd_ctr_get(pd_ports[0].ctr, PD_CTR_PORT_PROTOCOL_ERRORS), 0);
	/* The one that gave way comes back, and the same holds for the one that has its place. */
	third = peer_connect(peer_path);
	peer_send(third, PD_VHOST_GET_FEATURES, 0, "", 0, NULL, 0);
	turn();
	later(1500);
	later(1500);
	assert_true(peer_closed(second));
	peer_reply(third, PD_VHOST_GET_FEATURES);
	close(first);
	close(second);
	close(third);
}

/* One that goes on talking stays, and so do those that only look in, or say nothing themselves. */
static void who_talks_keeps_the_place(void **state)
{
	int first, second, mute, gone;

	(void)state;
	listen_plainly();
	first = begin();
	second = peer_connect(peer_path);
	peer_send(second, PD_VHOST_GET_FEATURES, 0, "", 0, NULL, 0);
	for (int i = 0; i < 4; i++) {
		turn();
		later(900);
		peer_ask(first, PD_VHOST_GET_FEATURES);
	}
	later(900);
	assert_true(peer_closed(second));
	assert_false(peer_closed(first));
	assert_int_equal(pd_ctr_get(pd_ports[0].ctr, PD_CTR_PORT_TURNED_AWAY), 1);
	assert_string_equal(reason_of(&pd_ports[0]),
			    "connected, negotiating: last message GET_FEATURES; others turned away "
			    "meanwhile: 1");
	later(5000);
	mute = peer_connect(peer_path);
	gone = peer_connect(peer_path);
	peer_send(gone, PD_VHOST_GET_FEATURES, 0, "", 0, NULL, 0);
	close(gone);
	turn();
	later(1500);
	assert_true(peer_closed(mute));
	assert_false(peer_closed(first));
	assert_int_equal(pd_ctr_get(pd_ports[0].ctr, PD_CTR_PORT_TURNED_AWAY), 3);
	close(first);
	close(second);
	close(mute);
}

/* Connections wait for ports that admit them; nobody waits for those of others. */
static void who_waits_holds_up_nobody_else(void **state)
{
	int sock[3];

	(void)state;
	if (geteuid()) /* who else comes is another user, which takes root */
		skip();
	peer_ports(2, PD_CONF_MODE_LISTEN, PD_CONF_BACKEND, 1);
	for (unsigned i = 0; i < 2; i++)
		peer_config.ports[i].access = (struct pd_conf_access){
			.mode = 0666, .peer_count = 1, .peers = {i ? 54321 : 0}};
	peer_config.ports[1].queues = 2;
	assert_int_equal(pd_ports_init(&peer_config), 0);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	assert_int_equal(pd_port_open(&pd_ports[1]), 0);
	turn();
	chmod(peer_dir, 0711);
	sock[0] = begin();
	sock[1] = peer_connect(peer_path); /* waits for port 0 */
	turn();
	assert_int_equal(seteuid(54321), 0);
	sock[2] = peer_connect(peer_path);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(queues_of(sock[2]), 2);
	assert_false(peer_closed(sock[1]));
	for (int i = 0; i < 3; i++)
		close(sock[i]);
}

/* One that has said something, and waits. */
static int speak(void)
{
	int sock = peer_connect(peer_path);

	peer_send(sock, PD_VHOST_GET_FEATURES, 0, "", 0, NULL, 0);
	return sock;
}

/* How many are in the crowd: more than wait for a port at once, fewer than a backlog holds. */
#define CROWD 40

/* So many connections that say nothing. */
static void gather(int sock[], unsigned n)
{
	while (n--)
		*sock++ = peer_connect(peer_path);
}

static void disperse(const int sock[], unsigned n)
{
	while (n--)
		close(*sock++);
}

/* How many of them are still there. */
static unsigned left(const int sock[], unsigned n)
{
	unsigned there = 0;

	while (n--)
		there += !peer_closed(*sock++);
	return there;
}

/* The silent may come in any number: nobody is left in the backlog, and who speaks is served. */
static void a_crowd_keeps_nobody_out(void **state)
{
	int before[CROWD], behind[CROWD], sock;

	(void)state;
	listen_plainly();
	gather(before, CROWD);
	sock = speak();
	/* The first has the port; of the others those that came last wait. */
	assert_int_equal(left(before + 1, CROWD - 1), 15);
	gather(behind, CROWD);
	turn();
	assert_false(peer_closed(before[0]));
	assert_int_equal(left(before + 1, CROWD - 1), 0);
	assert_int_equal(left(behind, CROWD), 15);
	assert_int_equal(left(behind + CROWD - 15, 15), 15);
	assert_int_equal(pd_ctr_get(pd_ports[0].ctr, PD_CTR_PORT_TURNED_AWAY), 2 * CROWD - 1 - 15);
	later(1100);
	assert_true(peer_closed(before[0]));
	peer_reply(sock, PD_VHOST_GET_FEATURES);
	assert_int_equal(left(behind, CROWD), 0);
	disperse(before, CROWD);
	disperse(behind, CROWD);
	close(sock);
}

/* Of those that wait, one that has spoken gets the port, though others came before it. */
static void who_has_spoken_comes_first(void **state)
{
	int first, mute[3], sock;

	(void)state;
	listen_plainly();
	first = begin();
	gather(mute, 3);
	sock = speak();
	turn();
	close(first);
	turn();
	peer_reply(sock, PD_VHOST_GET_FEATURES);
	assert_int_equal(left(mute, 3), 3);
	/* And among those that have not, the first. */
	close(sock);
	turn();
	peer_ask(mute[0], PD_VHOST_GET_FEATURES);
	disperse(mute, 3);
}

/* Who leaves while it waits is let go of at the next look, not when its time is over. */
static void who_has_left_is_not_kept(void **state)
{
	int first, gone, sock, before;

	(void)state;
	listen_plainly();
	first = begin();
	before = fd_count();
	gone = speak();
	turn();
	assert_int_equal(fd_count(), before + 2);
	close(gone);
	sock = speak();
	turn();
	assert_int_equal(fd_count(), before + 2); /* both ends of the new one */
	assert_int_equal(pd_ctr_get(pd_ports[0].ctr, PD_CTR_PORT_TURNED_AWAY), 1);
	close(first);
	turn();
	peer_reply(sock, PD_VHOST_GET_FEATURES);
	close(sock);
}

/* When all that wait have spoken, they keep their places, and get the port in their order. */
static void who_has_spoken_is_not_pushed_out(void **state)
{
	int first, sock[16], more[3];

	(void)state;
	listen_plainly();
	first = begin();
	for (int i = 0; i < 16; i++)
		sock[i] = speak();
	turn();
	gather(more, 2);
	more[2] = speak();
	assert_int_equal(left(more, 3), 0);
	assert_int_equal(left(sock, 16), 16);
	close(first);
	for (int i = 0; i < 16; i++) {
		turn();
		peer_reply(sock[i], PD_VHOST_GET_FEATURES);
		close(sock[i]);
	}
	disperse(more, 3);
}

/* Of descriptors there are only so many more from here on; -1: as many as may be. */
static void limit_descriptors(int more)
{
	struct rlimit limit;
	int fd;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	if (more >= 0) {
		fd = dup(0);
		assert_true(fd >= 0);
		close(fd);
		limit.rlim_cur = (rlim_t)(fd + more);
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* The crowd may take all the descriptors that are left, and keeps none of them. */
static void a_crowd_without_descriptors_keeps_nobody_out(void **state)
{
	int crowd[CROWD], sock;

	(void)state;
	listen_plainly();
	gather(crowd, CROWD);
	sock = speak();
	limit_descriptors(3);
	turn();
	assert_false(peer_closed(crowd[0]));
	assert_false(peer_closed(sock));
	later(1100);
	peer_reply(sock, PD_VHOST_GET_FEATURES);
	limit_descriptors(-1);
	disperse(crowd, CROWD);
	close(sock);
}

/* With none at all, connections stay in the backlog, without a busy loop, until there are some. */
static void without_descriptors_it_pauses(void **state)
{
	int sock;

	(void)state;
	listen_plainly();
	sock = speak();
	limit_descriptors(0);
	turn(); /* comes to an end */
	later(1100);
	limit_descriptors(-1);
	later(1100);
	peer_reply(sock, PD_VHOST_GET_FEATURES);
	close(sock);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(silence_alone_ends_nobody),
		T(who_is_silent_gives_way_to_who_wants_the_place),
		T(who_talks_keeps_the_place),
		T(who_waits_holds_up_nobody_else),
		T(a_crowd_keeps_nobody_out),
		T(who_has_spoken_comes_first),
		T(who_has_left_is_not_kept),
		T(who_has_spoken_is_not_pushed_out),
		T(a_crowd_without_descriptors_keeps_nobody_out),
		T(without_descriptors_it_pauses),
	};

	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
