# SPDX-License-Identifier: BSD-2-Clause
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/vhost/test_wire tests/unit/vhost/test_conn \
	tests/unit/vhost/test_backend tests/unit/vhost/test_dial tests/unit/vhost/test_waiting \
	tests/unit/vhost/test_frontend \
	tests/unit/vhost/test_guard tests/unit/vhost/test_area tests/unit/vhost/test_map \
	tests/unit/vhost/test_eventfd tests/unit/vhost/test_foreign tests/unit/vhost/test_refusals \
	tests/unit/vhost/test_fs
TESTS += tests/unit/vhost/test_wire tests/unit/vhost/test_conn \
	tests/unit/vhost/test_backend tests/unit/vhost/test_dial tests/unit/vhost/test_waiting \
	tests/unit/vhost/test_frontend \
	tests/unit/vhost/test_guard tests/unit/vhost/test_area tests/unit/vhost/test_map \
	tests/unit/vhost/test_eventfd tests/unit/vhost/test_foreign tests/unit/vhost/test_refusals \
	tests/unit/vhost/test_fs
endif
tests_unit_vhost_test_wire_SOURCES = tests/unit/vhost/test_wire.c
tests_unit_vhost_test_wire_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_wire_LDADD = $(PD_UNIT_LIBS)
tests_unit_vhost_test_conn_SOURCES = tests/unit/vhost/test_conn.c tests/unit/vhost/peer.h \
	tests/unit/base/linger.h
tests_unit_vhost_test_conn_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_conn_LDADD = $(PD_UNIT_LIBS)
tests_unit_vhost_test_backend_SOURCES = tests/unit/vhost/test_backend.c tests/unit/vhost/peer.h \
	tests/unit/vhost/backend_peer.h
tests_unit_vhost_test_backend_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_backend_LDADD = $(PD_UNIT_LIBS)
tests_unit_vhost_test_refusals_SOURCES = tests/unit/vhost/test_refusals.c tests/unit/vhost/peer.h \
	tests/unit/vhost/backend_peer.h
tests_unit_vhost_test_refusals_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_refusals_LDADD = $(PD_UNIT_LIBS)
tests_unit_vhost_test_fs_SOURCES = tests/unit/vhost/test_fs.c
tests_unit_vhost_test_fs_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_fs_LDADD = $(PD_UNIT_LIBS)
tests_unit_vhost_test_dial_SOURCES = tests/unit/vhost/test_dial.c tests/unit/vhost/dial_rig.h tests/unit/vhost/peer.h \
	tests/unit/base/ahead.h
tests_unit_vhost_test_dial_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_dial_LDADD = $(PD_UNIT_LIBS)
tests_unit_vhost_test_waiting_SOURCES = tests/unit/vhost/test_waiting.c tests/unit/vhost/dial_rig.h tests/unit/vhost/peer.h \
	tests/unit/base/ahead.h
tests_unit_vhost_test_waiting_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_waiting_LDADD = $(PD_UNIT_LIBS)
tests_unit_vhost_test_frontend_SOURCES = tests/unit/vhost/test_frontend.c tests/unit/vhost/peer.h
tests_unit_vhost_test_frontend_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_frontend_LDADD = $(PD_UNIT_LIBS)
tests_unit_vhost_test_guard_SOURCES = tests/unit/vhost/test_guard.c
tests_unit_vhost_test_guard_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_guard_LDADD = $(PD_UNIT_LIBS)
tests_unit_vhost_test_foreign_SOURCES = tests/unit/vhost/test_foreign.c
tests_unit_vhost_test_foreign_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_foreign_LDADD = $(PD_UNIT_LIBS)
tests_unit_vhost_test_eventfd_SOURCES = tests/unit/vhost/test_eventfd.c
tests_unit_vhost_test_eventfd_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_eventfd_LDADD = $(PD_UNIT_LIBS)
tests_unit_vhost_test_map_SOURCES = tests/unit/vhost/test_map.c
tests_unit_vhost_test_map_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_map_LDADD = $(PD_UNIT_LIBS)
tests_unit_vhost_test_area_SOURCES = tests/unit/vhost/test_area.c tests/unit/base/huge.h
tests_unit_vhost_test_area_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vhost_test_area_LDADD = $(PD_UNIT_LIBS)
