/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finding the peer: paths that are not there yet, stale, taken, shared by several ports; and who is
 * let in.
 */
#include <sys/file.h>

#include "config/vars.h"
#include "counters/counters.h"
#include "dial_rig.h"

static int fds_before;

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

static void the_next_try_waits_as_long_as_was_asked_for(void **state)
{
	int l, fd;

	(void)state;
	pd_vars.reconnect_min_ms = pd_vars.reconnect_max_ms = 60000;
	peer_ports(1, PD_CONF_MODE_CONNECT, PD_CONF_BACKEND, 1);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	turn();
	assert_int_equal(pd_ports[0].state, PD_PORT_DOWN);
	l = listener();
	for (int i = 0; i < 4; i++)
		pd_progress_run_once(30);
	assert_int_equal(accept(l, NULL, NULL), -1);
	pd_port_close(&pd_ports[0]);
	pd_vars.reconnect_min_ms = pd_vars.reconnect_max_ms = 1;
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	turn_until((fd = accept(l, NULL, NULL)) >= 0);
	close(fd);
	close(l);
	pd_vars.reconnect_min_ms = 20;
	pd_vars.reconnect_max_ms = 1000;
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

/* What `port` counts of tries that came to nothing. */
static uint64_t connect_errors(const struct pd_port *port)
{
	return pd_ctr_get(port->ctr, PD_CTR_PORT_CONNECT_ERRORS);
}

/* A listening port whose access is `access`; its file's mode, 0 when there is none. */
static mode_t listen_with(const struct pd_conf_access *access, mode_t mask)
{
	mode_t before = umask(mask);
	struct stat st;

	peer_ports(1, PD_CONF_MODE_LISTEN, PD_CONF_BACKEND, 1);
	peer_config.ports[0].access = *access;
	assert_int_equal(pd_ports_init(&peer_config), 0);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	turn();
	umask(before);
	return lstat(peer_path, &st) ? 0 : st.st_mode;
}

static void the_file_has_the_mode_asked_for(void **state)
{
	static const mode_t modes[] = {0, 0600, 0660, 0666, 0200, 0777}, masks[] = {0, 022, 0777};

	(void)state;
	for (size_t i = 0; i < PD_ARRAY_SIZE(modes); i++)
		for (size_t k = 0; k < PD_ARRAY_SIZE(masks); k++) {
			struct pd_conf_access access = {.mode = (uint16_t)modes[i]};

			assert_int_equal(listen_with(&access, masks[k]),
					 S_IFSOCK | (modes[i] ? modes[i] : 0600));
			if (modes[i] != 0200)
				assert_true(can_connect());
			pd_port_close(&pd_ports[0]);
		}
}

static void the_file_has_the_group_asked_for(void **state)
{
	gid_t groups[64];
	int n = getgroups(64, groups);
	struct pd_conf_access access = {.mode = 0660, .has_group = true};
	struct stat st;

	(void)state;
	access.group = n > 0 ? groups[n - 1] : getegid();
	listen_with(&access, 022);
	assert_int_equal(lstat(peer_path, &st), 0);
	assert_int_equal(st.st_gid, access.group);
	assert_int_equal(st.st_mode, S_IFSOCK | 0660);
	assert_true(can_connect());
}

static void who_cannot_give_the_file_away_does_not_listen(void **state)
{
	struct pd_conf_access access = {.mode = 0666, .has_owner = true, .owner = 54321};
	struct stat st;

	(void)state;
	if (!geteuid()) { /* may do so; the next finds its own dead file there */
		for (int i = 0; i < 2; i++) {
			listen_with(&access, 0);
			assert_int_equal(lstat(peer_path, &st), 0);
			assert_int_equal(st.st_uid, 54321);
			assert_true(can_connect());
			pd_port_close(&pd_ports[0]);
			assert_int_equal(at_path(), 0);
			close(listener());
			assert_int_equal(lchown(peer_path, 54321, (gid_t)-1), 0);
		}
		listen_with(&(struct pd_conf_access){0}, 0);
		assert_int_equal(pd_ports[0].state, PD_PORT_DOWN);
		return;
	}
	assert_int_equal(listen_with(&access, 0), 0);
	assert_int_equal(pd_ports[0].state, PD_PORT_DOWN);
}

static void links_are_left_alone(void **state)
{
	static const char *const targets[] = {"missing", "real"};
	char real[200];

	(void)state;
	snprintf(real, sizeof(real), "%.*sreal", (int)(strrchr(peer_path, '/') + 1 - peer_path),
		 peer_path);
	for (int i = 0; i < 2; i++) {
		struct stat st;
		int fd = open(real, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

		close(fd);
		assert_int_equal(symlink(targets[i], peer_path), 0);
		listen_with(&(struct pd_conf_access){.mode = 0666}, 0);
		assert_int_equal(pd_ports[0].state, PD_PORT_DOWN);
		assert_int_equal(lstat(peer_path, &st), 0);
		assert_true(S_ISLNK(st.st_mode));
		assert_int_equal(stat(real, &st), 0);
		assert_int_equal(st.st_mode, S_IFREG | 0600);
		pd_port_close(&pd_ports[0]);
		unlink(peer_path);
	}
	unlink(real);
}

/* Only who removes a file takes the lock, and no longer than that. */
static void a_lock_on_the_directory_holds_up_no_free_path(void **state)
{
	char dir[200];
	int fd;

	(void)state;
	snprintf(dir, sizeof(dir), "%.*s", (int)(strrchr(peer_path, '/') - peer_path), peer_path);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	listen_with(&(struct pd_conf_access){0}, 0);
	assert_true(can_connect());
	pd_port_close(&pd_ports[0]);
	close(listener()); /* a dead file */
	listen_with(&(struct pd_conf_access){0}, 0);
	assert_false(can_connect());
	close(fd);
	turn_until(can_connect());
}

static void only_the_users_named_get_in(void **state)
{
	const struct pd_conf_access others = {.peer_count = 2,
					      .peers = {geteuid() + 1, geteuid() + 2}},
				    self = {.peer_self = true},
				    us = {.peer_count = 2, .peers = {12345, geteuid()}};
	int sock;

	(void)state;
	listen_with(&others, 0);
	sock = peer_connect(peer_path);
	turn_until(peer_closed(sock));
	close(sock);
	assert_int_equal(connect_errors(&pd_ports[0]), 1);
	pd_port_close(&pd_ports[0]);
	for (int i = 0; i < 2; i++) {
		listen_with(i ? &us : &self, 0);
		sock = peer_connect(peer_path);
		assert_int_equal(queues_of(sock), 1);
		close(sock);
		pd_port_close(&pd_ports[0]);
	}
}

static void a_connection_goes_to_the_port_that_admits_it(void **state)
{
	int sock[2];

	(void)state;
	peer_ports(2, PD_CONF_MODE_LISTEN, PD_CONF_BACKEND, 1);
	peer_config.ports[0].access =
		(struct pd_conf_access){.peer_count = 1, .peers = {geteuid() + 1}};
	peer_config.ports[1].queues = 2;
	assert_int_equal(pd_ports_init(&peer_config), 0);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	assert_int_equal(pd_port_open(&pd_ports[1]), 0);
	turn();
	sock[0] = peer_connect(peer_path);
	assert_int_equal(queues_of(sock[0]), 2);
	sock[1] = peer_connect(peer_path);
	turn_until(peer_closed(sock[1]));
	close(sock[0]);
	close(sock[1]);
}

static void who_listens_is_asked_for_too(void **state)
{
	int l = listener(), fd;

	(void)state;
	peer_ports(1, PD_CONF_MODE_CONNECT, PD_CONF_BACKEND, 1);
	peer_config.ports[0].access =
		(struct pd_conf_access){.peer_count = 1, .peers = {geteuid() + 1}};
	assert_int_equal(pd_ports_init(&peer_config), 0);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	turn();
	assert_int_equal(pd_ports[0].state, PD_PORT_DOWN);
	turn_until((fd = accept(l, NULL, NULL)) >= 0); /* it looked, and hung up */
	assert_true(peer_closed(fd));
	close(fd);
	pd_port_close(&pd_ports[0]);
	peer_config.ports[0].access.peer_self = true;
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	do
		turn_until((fd = accept(l, NULL, NULL)) >= 0);
	while (peer_closed(fd));
	assert_int_equal(queues_of(fd), 1);
	close(fd);
	close(l);
}

/* Who reads the statistics sees state, reason and error of one moment: they change at once. */
static void what_a_reader_sees_belongs_together(void **state)
{
	struct pd_port *port = &pd_ports[0];
	uint64_t seq;
	int sock;

	(void)state;
	listen_plainly();
	sock = begin();
	seq = port->ctr->text_seq;
	close(sock);
	turn();
	assert_string_equal(port->ctr->state, "waiting");
	assert_string_equal(reason_of(port), PD_PORT_NO_PEER_YET);
	assert_string_not_equal(port->ctr->last_error, "");
	assert_int_equal(port->ctr->text_seq, seq + 2);
	for (int i = 0; i < 2; i++) {
		seq = port->ctr->text_seq;
		pd_lock(&pd_control);
		pd_port_set_state(port, i ? PD_PORT_DOWN : PD_PORT_UP, i ? "it went" : NULL);
		pd_unlock(&pd_control);
		assert_string_equal(port->ctr->state, i ? "down" : "up");
		assert_string_equal(reason_of(port), i ? "it went" : "");
		assert_int_equal(port->ctr->text_seq, seq + 2);
	}
	assert_string_equal(port->ctr->last_error, "it went");
}

/* The port's log, of a file of the test's own; its lines that hold `what`, and the last of them. */
static unsigned log_lines(FILE *log, const char *what, char last[static 300])
{
	char line[300];
	unsigned n = 0;

	rewind(log);
	while (fgets(line, sizeof(line), log)) {
		if (!strstr(line, what))
			continue;
		memcpy(last, line, sizeof(line));
		n++;
	}
	return n;
}

/* However often the link goes up and down, the log can bear it, and ends with what is so. */
static void a_link_that_flaps_does_not_fill_the_log(void **state)
{
	char path[120], last[300] = "";
	struct pd_port *port;
	FILE *log;

	(void)state;
	snprintf(path, sizeof(path), "%s/log", peer_dir);
	pd_log_set_level(PD_LOG_INFO);
	assert_int_equal(pd_log_set_file(path), 0);
	log = fopen(path, "r");
	assert_non_null(log);
	listen_plainly();
	port = &pd_ports[0];
	for (int i = 0; i < 500; i++) {
		pd_lock(&pd_control);
		pd_port_set_state(port, PD_PORT_UP, NULL);
		pd_port_set_state(port, PD_PORT_DOWN, "it went");
		pd_unlock(&pd_control);
	}
	assert_int_equal(port->state, PD_PORT_DOWN);
	assert_string_equal(reason_of(port), "it went");
	assert_int_equal(pd_ctr_get(port->ctr, PD_CTR_PORT_CONNECTS), 500);
	assert_int_equal(log_lines(log, "pd0 is", last), 10);
	later(10000);
	assert_int_equal(log_lines(log, "pd0 is", last), 11);
	assert_non_null(
		strstr(last, "pd0 is down: it went (989 changes before that were left out here)"));
	later(10000);
	assert_int_equal(log_lines(log, "pd0 is", last), 11);
	/* After a while without, each change has its line again. */
	later(200000);
	for (unsigned i = 0; i < 4; i++) {
		pd_lock(&pd_control);
		pd_port_set_state(port, i % 2 ? PD_PORT_DOWN : PD_PORT_UP, i % 2 ? "again" : NULL);
		pd_unlock(&pd_control);
		assert_int_equal(log_lines(log, "pd0 is", last), 12 + i);
	}
	assert_non_null(strstr(last, "pd0 is down: again\n"));
	fclose(log);
	assert_int_equal(pd_log_set_file(NULL), 0);
	pd_log_set_level(PD_LOG_NONE);
	unlink(path);
}

/* What is in the way is said in words that tell what to do. */
static void trouble_has_words(void **state)
{
	int l = listener(), waiting[6], fd, n = 0;

	(void)state;
	do { /* until the backlog is full */
		struct sockaddr_un addr = {.sun_family = AF_UNIX};

		waiting[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		memcpy(addr.sun_path, peer_path, strlen(peer_path));
		fd = connect(waiting[n], (struct sockaddr *)&addr, sizeof(addr));
	} while (++n < 6 && !fd);
	assert_int_equal(fd, -1);
	peer_ports(1, PD_CONF_MODE_CONNECT, PD_CONF_BACKEND, 1);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	turn();
	assert_non_null(strstr(pd_ports[0].ctr->last_error, "takes no connections"));
	assert_int_equal(pd_ctr_get(pd_ports[0].ctr, PD_CTR_PORT_LAST_ERROR), EAGAIN);
	while (n)
		close(waiting[--n]);
	close(l);
	if (geteuid()) { /* to whom everything is allowed */
		chmod(peer_path, 0);
		turn_until(strstr(pd_ports[0].ctr->last_error, "write the socket's file"));
		assert_int_equal(pd_ctr_get(pd_ports[0].ctr, PD_CTR_PORT_LAST_ERROR), EACCES);
		unlink(peer_path);
		pd_port_close(&pd_ports[0]);
		chmod(peer_dir, 0500);
		listen_plainly();
		assert_non_null(strstr(pd_ports[0].ctr->last_error, "write the socket's folder"));
		chmod(peer_dir, 0700);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(connecting_goes_on_until_there_is_a_peer),
		T(the_next_try_waits_as_long_as_was_asked_for),
		T(the_socket_is_private_and_goes_with_the_port),
		T(a_dead_socket_file_is_replaced),
		T(a_living_listener_is_left_alone),
		T(what_is_not_a_socket_is_left_alone),
		T(what_replaced_our_socket_is_left_alone),
		T(several_ports_on_one_path),
		T(a_child_leaves_the_socket_to_its_parent),
		T(the_file_has_the_mode_asked_for),
		T(the_file_has_the_group_asked_for),
		T(who_cannot_give_the_file_away_does_not_listen),
		T(links_are_left_alone),
		T(a_lock_on_the_directory_holds_up_no_free_path),
		T(only_the_users_named_get_in),
		T(a_connection_goes_to_the_port_that_admits_it),
		T(who_listens_is_asked_for_too),
		T(what_a_reader_sees_belongs_together),
		T(a_link_that_flaps_does_not_fill_the_log),
		T(trouble_has_words),
	};

	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
