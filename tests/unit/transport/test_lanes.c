/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * transport/lanes: which lanes are sent by while a peer brings its queues up and takes them down.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "config/vars.h"
#include "transport/transport.h"

#define QUEUES 4

static struct pd_config *config;
static struct pd_lane lanes[QUEUES];
static unsigned told;
static struct pd_port *const port = &pd_ports[0];

static uint32_t no_position(struct pd_lane *lane, enum pd_dir dir)
{
	(void)lane;
	(void)dir;
	return 0;
}

static const struct pd_lane_ops ops = {.position = no_position};

static void on_lanes(struct pd_port *p)
{
	assert_ptr_equal(p, port);
	told++;
}

static int setup(void **state)
{
	(void)state;
	pd_vars_load();
	pd_progress_set_manual(true);
	config = calloc(1, sizeof(*config));
	config->port_count = 1;
	strcpy(config->ports[0].name, "pd0");
	strcpy(config->ports[0].transport, "loop");
	config->ports[0].queues = QUEUES;
	assert_int_equal(pd_ports_init(config), 0);
	pd_port_on_lanes = on_lanes;
	pd_lock(&pd_control);
	assert_int_equal(pd_progress_start(), 0);
	for (uint16_t q = 0; q < port->n_lanes; q++)
		pd_port_lane_init(port, &lanes[q], &ops, q);
	pd_unlock(&pd_control);
	told = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pd_lock(&pd_control);
	pd_port_lanes_forget(port);
	pd_unlock(&pd_control);
	pd_port_on_lanes = NULL;
	pd_progress_stop();
	free(config);
	return 0;
}

/* One side of a queue goes up or down. */
static void move(unsigned q, enum pd_dir dir, bool up)
{
	struct pd_lane_side *side = &lanes[q].side[dir];

	pd_lock(&pd_control);
	pd_lock(&side->lock);
	pd_lane_set_link(&lanes[q], dir, up, -1, 0);
	pd_unlock(&side->lock);
	pd_unlock(&pd_control);
}

/* Let time pass until the set is `expected`; it must come about, however slow the machine is. */
static void wait_for(uint32_t expected)
{
	while (port->tx_lanes != expected)
		pd_progress_run_once(100);
}

static void test_all_are_sent_by_at_once_when_the_last_comes_up(void **state)
{
	(void)state;
	for (unsigned q = 0; q < QUEUES; q++) {
		assert_int_equal(port->tx_lanes, 0);
		assert_int_equal(port->up[PD_TX], (1u << q) - 1);
		assert_int_equal(told, 0);
		move(q, PD_TX, true);
	}
	assert_int_equal(port->tx_lanes, 0xf);
	assert_int_equal(told, 1);
	assert_int_equal(port->up[PD_RX], 0);
	move(2, PD_RX, true);
	assert_int_equal(port->up[PD_RX], 4);
	assert_int_equal(told, 1);
	move(2, PD_RX, true); /* another descriptor for notifications only */
	move(2, PD_TX, true);
	assert_int_equal(told, 1);
}

static void test_some_are_sent_by_when_no_more_come(void **state)
{
	(void)state;
	move(0, PD_TX, true);
	move(2, PD_TX, true);
	assert_int_equal(port->tx_lanes, 0);
	wait_for(0x5);
	assert_int_equal(told, 1);
	/* Those that come later join after a while, those that go leave at once. */
	move(1, PD_TX, true);
	assert_int_equal(port->tx_lanes, 0x5);
	move(2, PD_TX, false);
	assert_int_equal(port->tx_lanes, 0x1);
	assert_int_equal(told, 2);
	wait_for(0x3);
	assert_int_equal(told, 3);
	move(0, PD_TX, false);
	move(1, PD_TX, false);
	assert_int_equal(port->tx_lanes, 0);
	assert_int_equal(port->up[PD_TX], 0);
}

static void test_a_transport_may_know_that_no_more_come(void **state)
{
	(void)state;
	move(0, PD_TX, true);
	move(1, PD_TX, true);
	pd_lock(&pd_control);
	pd_port_lanes_settled(port);
	pd_unlock(&pd_control);
	assert_int_equal(port->tx_lanes, 0x3);
	assert_int_equal(told, 1);
}

static void test_what_went_before_the_time_was_over_is_not_sent_by(void **state)
{
	(void)state;
	move(0, PD_TX, true);
	move(1, PD_TX, true);
	move(0, PD_TX, false);
	wait_for(0x2);
	move(3, PD_TX, true);
	move(3, PD_TX, false);
	move(1, PD_TX, false);
	assert_int_equal(port->tx_lanes, 0);
}

static void test_the_limit_is_a_number_of_queues(void **state)
{
	static const unsigned n[][2] = {{0, QUEUES}, {1, 1}, {3, 3}, {4, 4}, {9, QUEUES}};

	(void)state;
	for (unsigned i = 0; i < PD_ARRAY_SIZE(n); i++) {
		pd_vars.ring_limit_per_interface = (int)n[i][0];
		assert_int_equal(pd_ports_init(config), 0);
		assert_int_equal(port->n_lanes, n[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(test_all_are_sent_by_at_once_when_the_last_comes_up),
		TEST(test_some_are_sent_by_when_no_more_come),
		TEST(test_a_transport_may_know_that_no_more_come),
		TEST(test_what_went_before_the_time_was_over_is_not_sent_by),
		TEST(test_the_limit_is_a_number_of_queues),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
