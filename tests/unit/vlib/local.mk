# SPDX-License-Identifier: BSD-2-Clause
pd_vlib_tests = tests/unit/vlib/test_buffer tests/unit/vlib/test_chain tests/unit/vlib/test_progress tests/unit/vlib/test_init \
	tests/unit/vlib/test_graph tests/unit/vlib/test_process tests/unit/vlib/test_lane_stress \
	tests/unit/vlib/test_moderation tests/unit/vlib/test_handoff tests/unit/vlib/test_trace \
	tests/unit/vlib/test_generator tests/unit/vlib/test_handoffdemo \
	tests/unit/vlib/test_timer_wheel tests/unit/vlib/test_fiber tests/unit/vlib/test_plugin \
	tests/unit/transport/test_lease
if HAVE_CMOCKA
check_PROGRAMS += $(pd_vlib_tests)
TESTS += $(pd_vlib_tests)
endif
tests_unit_vlib_test_buffer_SOURCES = tests/unit/vlib/test_buffer.c
tests_unit_vlib_test_buffer_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_buffer_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_chain_SOURCES = tests/unit/vlib/test_chain.c
tests_unit_vlib_test_chain_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_chain_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_progress_SOURCES = tests/unit/vlib/test_progress.c
tests_unit_vlib_test_progress_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_progress_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_init_SOURCES = tests/unit/vlib/test_init.c
tests_unit_vlib_test_init_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_init_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_graph_SOURCES = tests/unit/vlib/test_graph.c
tests_unit_vlib_test_graph_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_graph_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_process_SOURCES = tests/unit/vlib/test_process.c
tests_unit_vlib_test_process_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_process_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_lane_stress_SOURCES = tests/unit/vlib/test_lane_stress.c
tests_unit_vlib_test_lane_stress_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_lane_stress_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_moderation_SOURCES = tests/unit/vlib/test_moderation.c
tests_unit_vlib_test_moderation_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_moderation_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_timer_wheel_SOURCES = tests/unit/vlib/test_timer_wheel.c
tests_unit_vlib_test_timer_wheel_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_timer_wheel_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_fiber_SOURCES = tests/unit/vlib/test_fiber.c
tests_unit_vlib_test_fiber_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_fiber_LDADD = $(PD_UNIT_LIBS) -lm
tests_unit_transport_test_lease_SOURCES = tests/unit/transport/test_lease.c
tests_unit_transport_test_lease_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_transport_test_lease_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_handoff_SOURCES = tests/unit/vlib/test_handoff.c
tests_unit_vlib_test_handoff_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_handoff_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_trace_SOURCES = tests/unit/vlib/test_trace.c
tests_unit_vlib_test_trace_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_trace_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_generator_SOURCES = tests/unit/vlib/test_generator.c
tests_unit_vlib_test_generator_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_generator_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_handoffdemo_SOURCES = tests/unit/vlib/test_handoffdemo.c tests/unit/vlib/handoffdemo.h
tests_unit_vlib_test_handoffdemo_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_handoffdemo_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_plugin_SOURCES = tests/unit/vlib/test_plugin.c
tests_unit_vlib_test_plugin_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_plugin_LDADD = $(PD_UNIT_LIBS)
