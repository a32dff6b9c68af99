/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The contract of lanes (vlib/lane.h) and ports (transport/transport.h), put to every transport in
 * every role: one row of `links` per way to join two ports within this process. Every test runs
 * over every row, and where it has a direction, both ways.
 */
#include "contract.h"

#include "base/log.h"

static const struct link links[] = {
	{.name = "loop", .transport = "loop", .mrg_is_one = true, .ring = 256},
	{.name = "loop, two slots", .transport = "loop", .mrg_is_one = true, .ring = 2},
	{.name = "loop, checksums left open",
	 .transport = "loop",
	 .mrg_is_one = true,
	 .offloads = true,
	 .ring = 256},
	{.name = "vhost: back-end connects, front-end listens",
	 .transport = "vhost-user",
	 .mode = {PD_CONF_MODE_CONNECT, PD_CONF_MODE_LISTEN},
	 .role = {PD_CONF_BACKEND, PD_CONF_FRONTEND},
	 .ring = 256},
	{.name = "vhost: back-end listens, front-end connects",
	 .transport = "vhost-user",
	 .mode = {PD_CONF_MODE_LISTEN, PD_CONF_MODE_CONNECT},
	 .role = {PD_CONF_BACKEND, PD_CONF_FRONTEND},
	 .ring = 256},
	{.name = "vhost, ring of 1024",
	 .transport = "vhost-user",
	 .mode = {PD_CONF_MODE_LISTEN, PD_CONF_MODE_CONNECT},
	 .role = {PD_CONF_BACKEND, PD_CONF_FRONTEND},
	 .ring = 1024},
	{.name = "vhost: each frame in one buffer",
	 .transport = "vhost-user",
	 .mode = {PD_CONF_MODE_CONNECT, PD_CONF_MODE_LISTEN},
	 .role = {PD_CONF_BACKEND, PD_CONF_FRONTEND},
	 .single = true,
	 .ring = 256},
	{.name = "vhost: packed",
	 .transport = "vhost-user",
	 .mode = {PD_CONF_MODE_CONNECT, PD_CONF_MODE_LISTEN},
	 .role = {PD_CONF_BACKEND, PD_CONF_FRONTEND},
	 .format = PD_CONF_FORMAT_PACKED,
	 .ring = 256},
	{.name = "vhost: packed, ring of 1024",
	 .transport = "vhost-user",
	 .mode = {PD_CONF_MODE_LISTEN, PD_CONF_MODE_CONNECT},
	 .role = {PD_CONF_BACKEND, PD_CONF_FRONTEND},
	 .format = PD_CONF_FORMAT_PACKED,
	 .ring = 1024},
	{.name = "vhost: in order",
	 .transport = "vhost-user",
	 .mode = {PD_CONF_MODE_CONNECT, PD_CONF_MODE_LISTEN},
	 .role = {PD_CONF_BACKEND, PD_CONF_FRONTEND},
	 .in_order = true,
	 .ring = 256},
	{.name = "vhost: packed, in order, two pairs",
	 .transport = "vhost-user",
	 .mode = {PD_CONF_MODE_LISTEN, PD_CONF_MODE_CONNECT},
	 .role = {PD_CONF_BACKEND, PD_CONF_FRONTEND},
	 .format = PD_CONF_FORMAT_PACKED,
	 .in_order = true,
	 .queues = 2,
	 .ring = 256},
};

int main(void)
{
#define ON_EVERY_LINK(f)                               \
	{                                              \
#		f, f, link_setup, link_teardown, NULL \
	}
	static const struct CMUnitTest suite[] = {
		ON_EVERY_LINK(test_every_size),
		ON_EVERY_LINK(test_batches_of_every_size_and_sums_of_counters),
		ON_EVERY_LINK(test_both_directions_at_once),
		ON_EVERY_LINK(test_shown_frames_stay_until_they_are_consumed),
		ON_EVERY_LINK(test_nothing_is_published_before_flush),
		ON_EVERY_LINK(test_a_full_ring_holds_back_and_loses_nothing),
		ON_EVERY_LINK(test_too_long_is_refused_and_what_stands_before_it_goes),
		ON_EVERY_LINK(test_frames_that_go_together_all_go_or_none),
		ON_EVERY_LINK(test_an_open_checksum_is_completed_or_passed_on),
		ON_EVERY_LINK(test_a_frame_without_sidecar_arrives_with_zeroes),
		ON_EVERY_LINK(test_arm_tells_what_is_new_and_the_event_comes_once),
		ON_EVERY_LINK(test_ping_pong_through_sleep_loses_no_wakeup),
		ON_EVERY_LINK(test_several_sleepers_on_one_side),
		ON_EVERY_LINK(test_a_change_of_the_link_wakes_who_sleeps),
		ON_EVERY_LINK(test_frames_flow_again_after_closing_and_opening),
	};
	static char names[PD_ARRAY_SIZE(links) * PD_ARRAY_SIZE(suite)][128];
	static struct CMUnitTest tests[PD_ARRAY_SIZE(links) * PD_ARRAY_SIZE(suite)];
	size_t n = 0;

	if (rig_init())
		return 1;
	pd_log_set_level(PD_LOG_ERROR);
	for (size_t l = 0; l < PD_ARRAY_SIZE(links); l++) {
		for (size_t t = 0; t < PD_ARRAY_SIZE(suite); t++, n++) {
			snprintf(names[n], sizeof(names[n]), "%s: %s", links[l].name,
				 suite[t].name + strlen("test_"));
			tests[n] = suite[t];
			tests[n].name = names[n];
			tests[n].initial_state = (void *)(uintptr_t)&links[l];
		}
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
