/* SPDX-License-Identifier: BSD-2-Clause */
/* Finding the peer: paths that are not there yet, stale, taken, shared by several ports. */
#include "peer.h"

static int fds_before;

static int setup(void **state)
{
	(void)state;
	peer_dir_make();
	pd_progress_set_manual(true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pd_ports_close_all();
	pd_progress_stop();
	peer_dir_remove();
	return 0;
}

/* A listening socket at the path. */
static int listener(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	memcpy(addr.sun_path, peer_path, strlen(peer_path));
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 4), 0);
	return fd;
}

/* True when somebody listens at the path. */
static bool can_connect(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), err;

	memcpy(addr.sun_path, peer_path, strlen(peer_path));
	err = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	close(fd);
	return !err;
}

/* The identity of what stands at the path; 0: nothing. */
static ino_t at_path(void)
{
	struct stat st;

	return lstat(peer_path, &st) ? 0 : st.st_ino;
}

static void connecting_goes_on_until_there_is_a_peer(void **state)
{
	int l, fd;

	(void)state;
	peer_ports(1, PD_CONF_MODE_CONNECT, PD_CONF_BACKEND, 1);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	assert_int_equal(pd_ports[0].state, PD_PORT_CONNECTING);
	turn();
	assert_int_equal(pd_ports[0].state, PD_PORT_DOWN);
	fds_before = fd_count();
	for (int i = 0; i < 3; i++)
		pd_progress_run_once(30);
	assert_int_equal(fd_count(), fds_before);
	l = listener();
	for (int i = 0; i < 2; i++) {
		/* The second time after the first peer has gone. */
		turn_until((fd = accept(l, NULL, NULL)) >= 0);
		peer_ask(fd, PD_VHOST_GET_FEATURES);
		close(fd);
	}
	close(l);
}

static void the_socket_is_private_and_goes_with_the_port(void **state)
{
	struct stat st;

	(void)state;
	fds_before = fd_count();
	umask(0);
	peer_ports(1, PD_CONF_MODE_LISTEN, PD_CONF_BACKEND, 1);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	turn();
	assert_int_equal(lstat(peer_path, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0600);
	pd_port_close(&pd_ports[0]);
	assert_int_equal(at_path(), 0);
}

static void a_dead_socket_file_is_replaced(void **state)
{
	(void)state;
	close(listener());
	assert_int_not_equal(at_path(), 0);
	peer_ports(1, PD_CONF_MODE_LISTEN, PD_CONF_BACKEND, 1);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	turn();
	close(peer_connect(peer_path));
}

static void a_living_listener_is_left_alone(void **state)
{
	int l = listener();
	ino_t ino = at_path();

	(void)state;
	peer_ports(1, PD_CONF_MODE_LISTEN, PD_CONF_BACKEND, 1);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	turn();
	assert_int_equal(pd_ports[0].state, PD_PORT_DOWN);
	assert_int_equal(at_path(), ino);
	/* It was not even called. */
	assert_int_equal(accept(l, NULL, NULL), -1);
	assert_int_equal(errno, EAGAIN);
	close(l);
	/* When it is gone, the path is taken over. */
	turn_until(can_connect());
}

static void what_is_not_a_socket_is_left_alone(void **state)
{
	int fd = open(peer_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	ino_t ino = at_path();

	(void)state;
	assert_int_equal(write(fd, "precious", 8), 8);
	close(fd);
	peer_ports(1, PD_CONF_MODE_LISTEN, PD_CONF_BACKEND, 1);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	turn();
	pd_progress_run_once(30);
	assert_int_equal(pd_ports[0].state, PD_PORT_DOWN);
	assert_int_equal(at_path(), ino);
}

static void what_replaced_our_socket_is_left_alone(void **state)
{
	ino_t ino;
	int fd;

	(void)state;
	peer_ports(1, PD_CONF_MODE_LISTEN, PD_CONF_BACKEND, 1);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	turn();
	ino = at_path();
	assert_int_equal(unlink(peer_path), 0);
	/* Held open, so that the inode's number is not given out again. */
	fd = open(peer_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (at_path() != ino) {
		ino = at_path();
		pd_port_close(&pd_ports[0]);
		assert_int_equal(at_path(), ino);
	}
	close(fd);
}

/* Which port has the peer of `sock`: the one whose answer counts its queue pairs. */
static uint64_t queues_of(int sock)
{
	return peer_ask(sock, PD_VHOST_GET_QUEUE_NUM);
}

static void several_ports_on_one_path(void **state)
{
	int sock[4];

	(void)state;
	peer_ports(3, PD_CONF_MODE_LISTEN, PD_CONF_BACKEND, 1);
	for (unsigned i = 0; i < 3; i++)
		peer_config.ports[i].queues = i + 1;
	assert_int_equal(pd_ports_init(&peer_config), 0);
	/* Configuration order counts, not that of opening. */
	assert_int_equal(pd_port_open(&pd_ports[2]), 0);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	assert_int_equal(pd_port_open(&pd_ports[1]), 0);
	turn();
	for (int i = 0; i < 3; i++)
		sock[i] = peer_connect(peer_path);
	for (int i = 0; i < 3; i++)
		assert_int_equal(queues_of(sock[i]), i + 1);
	/* One that is freed goes to the next; one too many waits a moment for that. */
	sock[3] = peer_connect(peer_path);
	assert_false(peer_closed(sock[3]));
	close(sock[1]);
	turn();
	assert_int_equal(queues_of(sock[3]), 2);
	sock[1] = peer_connect(peer_path);
	turn_until(peer_closed(sock[1]));
	for (int i = 0; i < 4; i++)
		close(sock[i]);
	/* The path stays as long as a port is there. */
	pd_port_close(&pd_ports[0]);
	pd_port_close(&pd_ports[2]);
	assert_int_not_equal(at_path(), 0);
	pd_port_close(&pd_ports[1]);
	assert_int_equal(at_path(), 0);
}

static void a_child_leaves_the_socket_to_its_parent(void **state)
{
	ino_t ino;

	(void)state;
	peer_ports(1, PD_CONF_MODE_LISTEN, PD_CONF_BACKEND, 1);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	turn();
	ino = at_path();
	pd_lock(&pd_control);
	pd_ports_after_fork();
	pd_unlock(&pd_control);
	assert_int_equal(at_path(), ino);
	assert_int_equal(pd_ports[0].state, PD_PORT_CLOSED);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(connecting_goes_on_until_there_is_a_peer),
		T(the_socket_is_private_and_goes_with_the_port),
		T(a_dead_socket_file_is_replaced),
		T(a_living_listener_is_left_alone),
		T(what_is_not_a_socket_is_left_alone),
		T(what_replaced_our_socket_is_left_alone),
		T(several_ports_on_one_path),
		T(a_child_leaves_the_socket_to_its_parent),
	};

	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
