# SPDX-License-Identifier: BSD-2-Clause
VIRTIO_TESTS = tests/unit/virtio/test_device tests/unit/virtio/test_driver \
	tests/unit/virtio/test_lane tests/unit/virtio/test_rings
if HAVE_CMOCKA
check_PROGRAMS += $(VIRTIO_TESTS)
TESTS += $(VIRTIO_TESTS)
endif
tests_unit_virtio_test_device_SOURCES = tests/unit/virtio/test_device.c tests/unit/virtio/ring_util.h
tests_unit_virtio_test_device_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_device_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_rings_SOURCES = tests/unit/virtio/test_rings.c tests/unit/virtio/ring_util.h
tests_unit_virtio_test_rings_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_rings_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_driver_SOURCES = tests/unit/virtio/test_driver.c tests/unit/virtio/ring_util.h
tests_unit_virtio_test_driver_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_driver_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_lane_SOURCES = tests/unit/virtio/test_lane.c tests/unit/virtio/ring_util.h
tests_unit_virtio_test_lane_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_lane_LDADD = $(PD_UNIT_LIBS)

# A benchmark to call by hand: make tests/bench/ring
EXTRA_PROGRAMS += tests/bench/ring
tests_bench_ring_SOURCES = tests/bench/ring.c
tests_bench_ring_LDADD = libpd.la
