/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Somebody who may write the folder of a socket puts something else in the place of its file, just
 * as it is made: nothing but that file is given another mode.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/atomic.h"
#include "base/log.h"
#include "config/path.h"

#define TRIES 20000

static char folder[32], path[64], precious[64], other[64];
static uint32_t over;

/* The file that is to stay as it is: a link to it comes and goes where the socket is made. */
static void *swap(void *arg)
{
	int (*put)(const char *, const char *) = *(int (**)(const char *, const char *))arg;

	while (!pd_load_relaxed(&over)) {
		put(precious, other);
		rename(other, path); /* in place of what is there */
		unlink(path);
	}
	unlink(other);
	return NULL;
}

/* What must never be opened up: a socket of ours that is private, or a file. */
static void make_precious(bool is_socket)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd;

	if (!is_socket) {
		FILE *f = fopen(precious, "we");

		assert_non_null(f);
		fclose(f);
	} else {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		strcpy(at.sun_path, precious);
		assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
		close(fd);
	}
	assert_int_equal(chmod(precious, 0600), 0);
}

/* Listen again and again beside that. Returns how often it worked, and was found out. */
static void race(int (*put)(const char *, const char *), bool is_socket, unsigned *good,
		 unsigned *found)
{
	struct pd_conf_access access = {.mode = 0666};
	struct pd_path_id id;
	pthread_t thread;
	struct stat st;

	strcpy(folder, "/tmp/pd-path-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/socket", folder);
	snprintf(other, sizeof(other), "%s/other", folder);
	snprintf(precious, sizeof(precious), "%s/precious", folder);
	make_precious(is_socket);
	*good = *found = 0;
	pd_store_relaxed(&over, 0);
	assert_int_equal(pthread_create(&thread, NULL, swap, (void *)&put), 0);
	for (unsigned i = 0; i < TRIES; i++) {
		int fd = pd_path_listen(path, &access, &id);

		if (fd >= 0) {
			++*good;
			pd_path_remove(path, &id);
			close(fd);
		} else if (!strcmp(pd_path_strerror(fd),
				   "somebody put something else in its place")) {
			++*found;
		}
	}
	pd_store_relaxed(&over, 1);
	pthread_join(thread, NULL);
	assert_int_equal(stat(precious, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	unlink(precious);
	unlink(path);
	assert_int_equal(rmdir(folder), 0);
}

static void a_symbolic_link(void **state)
{
	unsigned good, found;

	race(symlink, false, &good, &found);
	assert_true(good && found);
}

static void a_link_to_another_socket(void **state)
{
	unsigned good, found;

	race(link, true, &good, &found);
	assert_true(good && found);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_symbolic_link),
		cmocka_unit_test(a_link_to_another_socket),
	};

	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
