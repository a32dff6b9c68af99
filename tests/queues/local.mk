# SPDX-License-Identifier: BSD-2-Clause
# Ports of several queues: which one a frame goes by.
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/sock/test_steer tests/unit/transport/test_lanes
TESTS += tests/unit/sock/test_steer tests/unit/transport/test_lanes
endif
tests_unit_sock_test_steer_SOURCES = tests/unit/sock/test_steer.c
tests_unit_sock_test_steer_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_sock_test_steer_LDADD = $(PD_UNIT_LIBS) -lpthread
tests_unit_transport_test_lanes_SOURCES = tests/unit/transport/test_lanes.c
tests_unit_transport_test_lanes_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_transport_test_lanes_LDADD = $(PD_UNIT_LIBS)

TESTS += tests/queues/test_queues.py
EXTRA_DIST += tests/queues/test_queues.py
