# SPDX-License-Identifier: BSD-2-Clause
VIRTIO_TESTS = tests/unit/virtio/test_mem tests/unit/virtio/test_device_ring tests/unit/virtio/test_device_rx \
	tests/unit/virtio/test_device_tx tests/unit/virtio/test_device_hostile tests/unit/virtio/test_driver \
	tests/unit/virtio/test_packed_device tests/unit/virtio/test_packed_driver tests/unit/virtio/test_inflight \
	tests/unit/virtio/test_dirty tests/unit/virtio/test_lane tests/unit/virtio/test_prefetch tests/unit/virtio/test_rings
VIRTIO_UTIL = tests/unit/virtio/ring_util.c tests/unit/virtio/ring_util.h
VIRTIO_DRIVER = $(VIRTIO_UTIL) tests/unit/virtio/driver_rig.h
VIRTIO_RIG = $(VIRTIO_UTIL) tests/unit/virtio/device_rig.c tests/unit/virtio/device_rig.h
if HAVE_CMOCKA
check_PROGRAMS += $(VIRTIO_TESTS)
TESTS += $(VIRTIO_TESTS)
endif
tests_unit_virtio_test_prefetch_SOURCES = tests/unit/virtio/test_prefetch.c $(VIRTIO_UTIL)
tests_unit_virtio_test_prefetch_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_prefetch_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_mem_SOURCES = tests/unit/virtio/test_mem.c $(VIRTIO_UTIL)
tests_unit_virtio_test_mem_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_mem_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_device_ring_SOURCES = tests/unit/virtio/test_device_ring.c $(VIRTIO_RIG)
tests_unit_virtio_test_device_ring_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_device_ring_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_device_rx_SOURCES = tests/unit/virtio/test_device_rx.c $(VIRTIO_RIG)
tests_unit_virtio_test_device_rx_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_device_rx_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_device_tx_SOURCES = tests/unit/virtio/test_device_tx.c $(VIRTIO_RIG)
tests_unit_virtio_test_device_tx_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_device_tx_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_device_hostile_SOURCES = tests/unit/virtio/test_device_hostile.c $(VIRTIO_RIG)
tests_unit_virtio_test_device_hostile_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_device_hostile_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_packed_device_SOURCES = tests/unit/virtio/test_packed_device.c $(VIRTIO_RIG)
tests_unit_virtio_test_packed_device_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_packed_device_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_packed_driver_SOURCES = tests/unit/virtio/test_packed_driver.c $(VIRTIO_DRIVER)
tests_unit_virtio_test_packed_driver_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_packed_driver_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_driver_SOURCES = tests/unit/virtio/test_driver.c $(VIRTIO_DRIVER)
tests_unit_virtio_test_driver_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_driver_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_lane_SOURCES = tests/unit/virtio/test_lane.c $(VIRTIO_UTIL)
tests_unit_virtio_test_lane_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_lane_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_rings_SOURCES = tests/unit/virtio/test_rings.c $(VIRTIO_UTIL)
tests_unit_virtio_test_rings_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_rings_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_dirty_SOURCES = tests/unit/virtio/test_dirty.c $(VIRTIO_RIG)
tests_unit_virtio_test_dirty_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_dirty_LDADD = $(PD_UNIT_LIBS)
tests_unit_virtio_test_inflight_SOURCES = tests/unit/virtio/test_inflight.c $(VIRTIO_RIG)
tests_unit_virtio_test_inflight_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_virtio_test_inflight_LDADD = $(PD_UNIT_LIBS)
