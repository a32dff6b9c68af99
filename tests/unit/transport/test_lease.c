/* SPDX-License-Identifier: BSD-2-Clause */
/* transport/registry: who owns a port after fork. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "transport/transport.h"
#include "vlib/progress.h"

static struct pd_config *config;
static int to_parent[2], to_child[2];

static int setup(void **state)
{
	config = calloc(1, sizeof(*config));
	config->port_count = 2;
	for (unsigned i = 0; i < 2; i++) {
		struct pd_port_config *pc = &config->ports[i];

		snprintf(pc->name, sizeof(pc->name), "pd%u", i);
		snprintf(pc->peer, sizeof(pc->peer), "pd%u", i ^ 1);
		strcpy(pc->transport, "loop");
		pc->queues = 1;
		pc->ring = 16;
		pc->mergeable = true;
	}
	assert_int_equal(pd_ports_init(config), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pd_port_open(&pd_ports[i]), 0);
	assert_int_equal(pipe(to_parent), 0);
	assert_int_equal(pipe(to_child), 0);
	return 0;
}

static int teardown(void **state)
{
	pd_ports_close_all();
	pd_progress_stop();
	for (int i = 0; i < 2; i++) {
		close(to_parent[i]);
		close(to_child[i]);
	}
	free(config);
	return 0;
}

static void say(int fd)
{
	if (write(fd, "x", 1) != 1)
		abort();
}

static void hear(int fd)
{
	char c;

	if (read(fd, &c, 1) != 1)
		abort();
}

static uint32_t ran;

static void note_run(struct pd_progress_work *work)
{
	(void)work;
	pd_store_release(&ran, 1); /* pairs with progress_runs */
}

/*
 * Wait until the progress thread is past its start. AddressSanitizer allocates for a thread that
 * starts, and a child that is forked in that moment finds the allocator locked for ever.
 */
static void progress_runs(void)
{
	static struct pd_progress_work work = {.fn = note_run};

	pd_store_relaxed(&ran, 0);
	pd_progress_post(&work);
	while (!pd_load_acquire(&ran))
		sched_yield();
}

/* fork as preload does it: control state is whole in the child. */
static pid_t fork_family(void)
{
	pid_t pid;

	progress_runs();
	pd_lock(&pd_control);
	pid = fork();
	if (pid == 0)
		pd_ports_after_fork();
	pd_unlock(&pd_control);
	return pid;
}

static void test_the_first_to_use_a_port_owns_it(void **state)
{
	struct pd_port *port = &pd_ports[0];
	int status;
	pid_t pid;

	assert_true(pd_port_lease_take(port));
	pid = fork_family();
	if (pid == 0) {
		/* The parent lives and owns it. */
		bool ok = port->state == PD_PORT_CLOSED && !port->lanes[0] &&
			  !pd_port_lease_take(port);

		say(to_parent[1]);
		hear(to_child[0]); /* the parent has closed the pair, which moves whole */
		ok = ok && pd_port_lease_take(port) && port->state == PD_PORT_UP;
		pd_ports_close_all();
		pd_progress_stop();
		_exit(!ok);
	}
	hear(to_parent[0]);
	assert_int_equal(port->state, PD_PORT_UP);
	assert_true(pd_port_lease_take(port));
	pd_ports_close_all();
	say(to_child[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_true(pd_port_lease_take(port));
}

static void test_a_port_that_was_only_opened_goes_to_the_child_that_uses_it(void **state)
{
	struct pd_port *port = &pd_ports[0];
	int status;
	pid_t pid;

	pid = fork_family();
	if (pid == 0) {
		bool ok = pd_port_lease_take(port);

		hear(to_child[0]);
		_exit(!ok); /* without closing anything: it is gone all the same */
	}
	while (pd_load_acquire(&port->state) != PD_PORT_CLOSED)
		sched_yield();
	assert_false(pd_port_lease_take(port));
	say(to_child[1]);
	/* A zombie owns nothing. */
	while (!pd_port_lease_take(port))
		sched_yield();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(port->state, PD_PORT_UP);
}

static void test_a_port_that_cannot_be_opened_is_not_had_with_its_partner(void **state)
{
	struct pd_port *port = &pd_ports[0], *partner = &pd_ports[1];
	struct rlimit was, low;

	pd_ports_close_all();
	assert_int_equal(pd_port_open(port), 0);
	assert_true(pd_port_lease_take(port));
	assert_false(pd_port_lease_held(partner));

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	low = (struct rlimit){0, was.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_false(pd_port_lease_take(partner));
	assert_false(pd_port_lease_take(partner));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_null(partner->lanes[0]);
	assert_true(pd_port_lease_held(port));

	assert_true(pd_port_lease_take(partner));
	assert_true(pd_port_lease_held(partner));
	assert_int_equal(port->state, PD_PORT_UP);
}

static void test_a_port_that_was_kept_for_its_partner_is_had_once_it_is_open(void **state)
{
	pd_ports_close_all();
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	assert_true(pd_port_lease_take(&pd_ports[0]));
	assert_int_equal(pd_port_open(&pd_ports[1]), 0);
	assert_true(pd_port_lease_held(&pd_ports[1]));
	pd_port_close(&pd_ports[0]);
	assert_true(pd_port_lease_held(&pd_ports[1]));
	pd_port_close(&pd_ports[1]);
	assert_false(pd_port_lease_held(&pd_ports[1]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_the_first_to_use_a_port_owns_it, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			test_a_port_that_was_only_opened_goes_to_the_child_that_uses_it, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			test_a_port_that_cannot_be_opened_is_not_had_with_its_partner, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			test_a_port_that_was_kept_for_its_partner_is_had_once_it_is_open, setup,
			teardown),
	};

#ifdef PD_UNDER_TSAN
	puts("1..0 # SKIP ThreadSanitizer allows no thread in the child of a program with threads");
	return 0;
#endif
	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
