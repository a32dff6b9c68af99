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

TESTS += tests/queues/test_queues.py tests/queues/test_stop.py tests/interop/test_queues.py
EXTRA_DIST += tests/queues/test_queues.py tests/queues/test_stop.py tests/queues/remote.py tests/queues/__init__.py tests/interop/test_queues.py

# Threads on several queues, linked to the library for the sanitizers.
check_PROGRAMS += tests/queues/threads
TESTS += tests/queues/threads
tests_queues_threads_SOURCES = tests/queues/threads.c tests/sock/direct.h tests/sock/raw.h
tests_queues_threads_CFLAGS = $(AM_CFLAGS) -Wno-unused-parameter -Wno-unused-value
tests_queues_threads_LDADD = libpd.la -lpthread
