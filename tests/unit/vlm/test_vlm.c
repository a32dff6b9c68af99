/* SPDX-License-Identifier: BSD-2-Clause */
/* palladium_vlm's parts that decide: contents, accounts, percentiles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vlm/flow.h"
#include "tools/hist.h"
#include "vlm/pattern.h"

static const struct vlm_plan plan = {.seed = 42, .size_low = VLM_FRAME_MIN, .size_high = 700};

/* --- pattern ------------------------------------------------------------------------------- */

/* Each byte of a frame counts: with any one altered, the comparison names its offset. */
static void every_byte_is_compared(void **state)
{
	uint8_t frame[VLM_FRAME_MAX];

	for (uint64_t n = 0; n < 40; n++) {
		struct vlm_name name = {.port = 3, .queue = 1, .number = n}, who;
		uint32_t len = vlm_frame_make(&plan, &name, frame);

		assert_int_equal(len, vlm_frame_bytes(&plan, &name));
		assert_int_equal(vlm_frame_compare(&plan, &name, frame, len, false),
				 VLM_NO_DIFFERENCE);
		assert_true(vlm_frame_identify(&plan, frame, len, &who));
		assert_memory_equal(&who, &name, sizeof(who));
		for (uint32_t i = 0; i < len; i++) {
			frame[i] ^= 0x10;
			assert_int_equal(vlm_frame_compare(&plan, &name, frame, len, false), i);
			assert_int_equal(vlm_frame_compare(&plan, &name, frame, len, true),
					 i < VLM_HEADER_BYTES ? i : VLM_NO_DIFFERENCE);
			frame[i] ^= 0x10;
		}
	}
}

/* No two frames have the same contents, whatever part of their name differs. */
static void frames_differ(void **state)
{
	const struct vlm_name names[] = {{0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {1, 0, 0}, {1, 1, 1}};
	struct vlm_plan fixed = plan;
	uint8_t a[VLM_FRAME_MAX], b[VLM_FRAME_MAX];

	fixed.size_low = fixed.size_high = 128;
	for (size_t i = 0; i < PD_ARRAY_SIZE(names); i++) {
		for (size_t j = 0; j < i; j++) {
			unsigned same = 0;

			vlm_frame_make(&fixed, &names[i], a);
			vlm_frame_make(&fixed, &names[j], b);
			for (unsigned k = VLM_HEADER_BYTES; k < 128; k++)
				same += a[k] == b[k];
			assert_in_range(same, 0, 8);
		}
	}
}

/* A frame that is short, cut or of another run is not ours; a longer one differs in length only. */
static void other_frames_are_told(void **state)
{
	struct vlm_plan other = plan;
	struct vlm_name name = {.number = 5}, who;
	uint8_t frame[VLM_FRAME_MAX] = {0};
	uint32_t len = vlm_frame_make(&plan, &name, frame);

	other.seed = 43;
	assert_false(vlm_frame_identify(&other, frame, len, &who));
	assert_false(vlm_frame_identify(&plan, frame, VLM_HEADER_BYTES - 1, &who));
	assert_true(vlm_frame_identify(&plan, frame, VLM_HEADER_BYTES, &who));
	assert_int_equal(vlm_frame_compare(&plan, &name, frame, len + 1, false), VLM_NO_DIFFERENCE);
	assert_int_equal(vlm_frame_compare(&plan, &name, frame, len - 1, false), VLM_NO_DIFFERENCE);
	frame[12] = 8;
	assert_false(vlm_frame_identify(&plan, frame, len, &who));
}

/* Sizes keep to their range and reach both ends; IMIX is 7 : 4 : 1. */
static void sizes_are_as_asked(void **state)
{
	struct vlm_plan p = {.seed = 1, .size_low = 60, .size_high = 64};
	struct vlm_name name = {0};
	unsigned by_size[1515] = {0};

	for (; name.number < 1000; name.number++) {
		uint32_t n = vlm_frame_bytes(&p, &name);

		assert_in_range(n, 60, 64);
		by_size[n]++;
	}
	for (unsigned n = 60; n <= 64; n++)
		assert_in_range(by_size[n], 150, 250);
	p.size_kind = VLM_SIZE_IMIX;
	memset(by_size, 0, sizeof(by_size));
	for (name.number = 0; name.number < 1200; name.number++)
		by_size[vlm_frame_bytes(&p, &name)]++;
	assert_int_equal(by_size[60], 700);
	assert_int_equal(by_size[566], 400);
	assert_int_equal(by_size[1514], 100);
}

/* Every field of the sidecar differs from frame to frame, unless it is fixed. */
static void sidecars_differ(void **state)
{
	struct vlm_plan p = plan;
	struct pd_sidecar a, b;
	struct vlm_name one = {.number = 1}, two = {.number = 2};

	vlm_sidecar_make(&p, &one, &a);
	vlm_sidecar_make(&p, &two, &b);
	assert_int_equal(a.avip.pd.metadata_type,
			 PALLADIUM_IFG | PALLADIUM_PREAMBLE | PALLADIUM_FCS);
	assert_int_not_equal(a.avip.pd.ifg, b.avip.pd.ifg);
	assert_int_not_equal(a.avip.pd.pfc_priority, b.avip.pd.pfc_priority);
	assert_int_not_equal(a.avip.pd.fcs, b.avip.pd.fcs);
	assert_memory_not_equal(a.avip.pd.preamble, b.avip.pd.preamble, 8);
	assert_memory_not_equal(a.avip.pd.reserved, b.avip.pd.reserved, 6);
	assert_int_equal(a.avip.generic_flags, 0);

	p.sidecar = (struct vlm_sidecar_plan){.ifg_fixed = true,
					      .ifg = 12,
					      .pfc_fixed = true,
					      .pfc = 5,
					      .fcs_fixed = true,
					      .fcs = 0x12345678,
					      .no_preamble = true,
					      .flags = PALLADIUM_CRC_ERROR | 1ull << 60};
	vlm_sidecar_make(&p, &one, &a);
	assert_int_equal(a.avip.pd.metadata_type,
			 PALLADIUM_IFG | PALLADIUM_FCS | PALLADIUM_CRC_ERROR | 1ull << 60);
	assert_int_equal(a.avip.pd.ifg, 12);
	assert_int_equal(a.avip.pd.pfc_priority, 5);
	assert_int_equal(a.avip.pd.fcs, 0x12345678);
	assert_int_equal(a.avip.pd.preamble_size, 0);
}

/* Each byte of a sidecar is compared but the ring's own two. */
static void every_sidecar_byte_is_compared(void **state)
{
	struct pd_sidecar a, b;
	struct vlm_name name = {.number = 9};

	vlm_sidecar_make(&plan, &name, &a);
	for (unsigned i = 0; i < PD_SIDECAR_BYTES; i++) {
		b = a;
		b.bytes[i] ^= 1;
		assert_int_equal(vlm_sidecar_compare(&b, &a), i < 2 ? VLM_NO_DIFFERENCE : i);
	}
}

/* --- flow ---------------------------------------------------------------------------------- */

#define WINDOW 8

static int make_flow(void **state)
{
	struct vlm_flow *flow = calloc(1, sizeof(*flow));

	*state = flow;
	return !flow || vlm_flow_init(flow, WINDOW);
}

static int free_flow(void **state)
{
	vlm_flow_fini(*state);
	free(*state);
	return 0;
}

static enum vlm_flow_verdict back(struct vlm_flow *flow, uint64_t number)
{
	uint64_t sent_ns;

	return vlm_flow_returned(flow, number, &sent_ns);
}

/* Frames that come back in order are settled, and the window moves on. */
static void flow_in_order(void **state)
{
	struct vlm_flow *flow = *state;

	for (uint64_t i = 0; i < 100; i++) {
		uint64_t sent_ns = 0;

		assert_int_equal(vlm_flow_room(flow, 2), 2);
		vlm_flow_sent(flow, 2, 1000 + i);
		assert_int_equal(vlm_flow_room(flow, 2), 0);
		assert_int_equal(vlm_flow_returned(flow, 2 * i, &sent_ns), VLM_FLOW_OK);
		assert_int_equal(sent_ns, 1000 + i);
		assert_int_equal(back(flow, 2 * i + 1), VLM_FLOW_OK);
	}
	assert_int_equal(flow->counts.sent, 200);
	assert_int_equal(flow->counts.returned, 200);
	assert_int_equal(flow->outstanding, 0);
	assert_int_equal(flow->counts.lost + flow->counts.duplicated + flow->counts.reordered, 0);
}

static void flow_tells_order_doubles_and_inventions(void **state)
{
	struct vlm_flow *flow = *state;

	vlm_flow_sent(flow, 4, 1);
	assert_int_equal(back(flow, 1), VLM_FLOW_OK);
	assert_int_equal(back(flow, 0), VLM_FLOW_REORDERED);
	assert_int_equal(back(flow, 0), VLM_FLOW_DUPLICATED);
	assert_int_equal(back(flow, 1), VLM_FLOW_DUPLICATED);
	assert_int_equal(back(flow, 4), VLM_FLOW_INVENTED);
	assert_int_equal(back(flow, UINT64_MAX), VLM_FLOW_INVENTED);
	assert_int_equal(flow->counts.returned, 2);
	assert_int_equal(flow->outstanding, 2);
}

/* A missing frame is lost when overdue; what comes later than that is one too many. */
static void flow_loses_what_is_overdue(void **state)
{
	struct vlm_flow *flow = *state;

	vlm_flow_sent(flow, 2, 100);
	vlm_flow_sent(flow, 1, 200);
	back(flow, 1);
	vlm_flow_expire(flow, 100);
	assert_int_equal(flow->counts.lost, 0);
	vlm_flow_expire(flow, 101);
	assert_int_equal(flow->counts.lost, 1);
	assert_int_equal(flow->outstanding, 1);
	assert_int_equal(back(flow, 0), VLM_FLOW_DUPLICATED);
	assert_int_equal(back(flow, 2), VLM_FLOW_OK);
}

/* One missing frame does not hold the others up: the ring comes round and gives it up. */
static void flow_goes_on_behind_a_gap(void **state)
{
	struct vlm_flow *flow = *state;

	vlm_flow_sent(flow, 1, 1); /* never comes back */
	for (uint64_t i = 1; i < 1000; i++) {
		vlm_flow_make_room(flow);
		assert_int_not_equal(vlm_flow_room(flow, WINDOW), 0);
		vlm_flow_sent(flow, 1, 1);
		assert_int_equal(back(flow, i), VLM_FLOW_OK);
	}
	assert_int_equal(flow->counts.lost, 1);
	assert_int_equal(flow->counts.returned, 999);
}

/* What was under way at a restart is accounted for by itself. */
static void flow_accounts_for_restarts(void **state)
{
	struct vlm_flow *flow = *state;
	uint64_t sent_ns = 1;

	vlm_flow_sent(flow, 6, 100);
	back(flow, 0);
	back(flow, 1);
	vlm_flow_restarted(flow, 5000);
	assert_int_equal(flow->counts.restart_outstanding, 4);
	vlm_flow_expire(flow, 4000); /* their clock began anew */
	assert_int_equal(flow->counts.restart_lost, 0);
	vlm_flow_sent(flow, 1, 5000);
	assert_int_equal(back(flow, 1), VLM_FLOW_REPEATED);
	assert_int_equal(vlm_flow_returned(flow, 4, &sent_ns), VLM_FLOW_OK);
	assert_int_equal(sent_ns, 0);
	assert_int_equal(back(flow, 5), VLM_FLOW_OK);
	assert_int_equal(back(flow, 6), VLM_FLOW_OK);
	vlm_flow_expire(flow, 6000);
	assert_int_equal(flow->counts.restart_answered, 2);
	assert_int_equal(flow->counts.restart_lost, 2);
	assert_int_equal(flow->counts.restart_repeated, 1);
	assert_int_equal(flow->counts.lost, 0);
	assert_int_equal(flow->counts.duplicated, 0);
	assert_int_equal(back(flow, 6), VLM_FLOW_DUPLICATED);
}

/* Time in which the worker did not run makes nothing late. */
static void flow_leaves_time_out(void **state)
{
	struct vlm_flow *flow = *state;
	uint64_t sent_ns;

	vlm_flow_sent(flow, 3, 100);
	back(flow, 1);
	vlm_flow_skip(flow, 5000);
	assert_int_equal(back(flow, 1), VLM_FLOW_DUPLICATED); /* what is settled stays so */
	vlm_flow_expire(flow, 5100);
	assert_int_equal(flow->counts.lost, 0);
	assert_int_equal(vlm_flow_returned(flow, 0, &sent_ns), VLM_FLOW_REORDERED);
	assert_int_equal(sent_ns, 5100);
	vlm_flow_expire(flow, 5101);
	assert_int_equal(flow->counts.lost, 1);
}

/* --- percentiles --------------------------------------------------------------------------- */

/* Every value falls into a bucket whose top is at most 0.8 % above it. */
static void buckets_are_close(void **state)
{
	for (uint64_t v = 0; v < 1ull << 62; v = v < 1000 ? v + 1 : v + v / 97) {
		unsigned i = tool_hist_index(v);

		assert_true(i < TOOL_HIST_BUCKETS);
		assert_true(tool_hist_top(i) >= v);
		assert_true(tool_hist_top(i) - v <= v / 128);
		assert_true(i == 0 || tool_hist_top(i - 1) < v);
	}
	assert_true(tool_hist_index(UINT64_MAX) < TOOL_HIST_BUCKETS);
}

static void quantiles_are_right(void **state)
{
	struct tool_hist *h = calloc(1, sizeof(*h));

	assert_int_equal(tool_hist_quantile(h, 0.5), 0);
	for (uint64_t v = 1; v <= 100; v++)
		tool_hist_add(h, v);
	assert_int_equal(tool_hist_quantile(h, 0.5), 50);
	assert_int_equal(tool_hist_quantile(h, 0.99), 99);
	assert_int_equal(tool_hist_quantile(h, 1), 100);
	tool_hist_add(h, 1000000);
	assert_int_equal(tool_hist_quantile(h, 1), 1000000);
	assert_int_equal(h->min, 1);
	assert_int_equal(h->max, 1000000);
	free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_is_compared),
		cmocka_unit_test(frames_differ),
		cmocka_unit_test(other_frames_are_told),
		cmocka_unit_test(sizes_are_as_asked),
		cmocka_unit_test(sidecars_differ),
		cmocka_unit_test(every_sidecar_byte_is_compared),
		cmocka_unit_test_setup_teardown(flow_in_order, make_flow, free_flow),
		cmocka_unit_test_setup_teardown(flow_tells_order_doubles_and_inventions, make_flow,
						free_flow),
		cmocka_unit_test_setup_teardown(flow_loses_what_is_overdue, make_flow, free_flow),
		cmocka_unit_test_setup_teardown(flow_goes_on_behind_a_gap, make_flow, free_flow),
		cmocka_unit_test_setup_teardown(flow_accounts_for_restarts, make_flow, free_flow),
		cmocka_unit_test_setup_teardown(flow_leaves_time_out, make_flow, free_flow),
		cmocka_unit_test(buckets_are_close),
		cmocka_unit_test(quantiles_are_right),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
