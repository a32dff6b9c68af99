# SPDX-License-Identifier: BSD-2-Clause
# Unit tests are cmocka programs that speak TAP; each module's block stands by itself.
TEST_EXTENSIONS = .tap .sh .py
TAP_LOG_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
SH_LOG_DRIVER = $(TAP_LOG_DRIVER)
PY_LOG_DRIVER = $(TAP_LOG_DRIVER)
PY_LOG_COMPILER = $(SHELL) $(top_srcdir)/tests/lab/pytap
LOG_DRIVER = $(TAP_LOG_DRIVER)
LOG_COMPILER = $(SHELL) $(top_srcdir)/tests/lab/cmockatap
AM_TESTS_ENVIRONMENT = CMOCKA_MESSAGE_OUTPUT=TAP; export CMOCKA_MESSAGE_OUTPUT; \
	srcdir='$(abs_top_srcdir)'; export srcdir; builddir='$(abs_top_builddir)'; export builddir; \
	PD_BUILD='$(abs_top_builddir)'; export PD_BUILD; \
	PD_PROGRAMS='$(bin_PROGRAMS)'; export PD_PROGRAMS; \
	CC='$(CC)'; CXX='$(CXX)'; export CC CXX; \
	TSAN_OPTIONS="$(PD_TSAN_OPTIONS):$$TSAN_OPTIONS"; export TSAN_OPTIONS;
# ThreadSanitizer sleeps for a second at the end of every process; the tests start thousands.
PD_TSAN_OPTIONS = atexit_sleep_ms=0

PD_UNIT_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
PD_UNIT_LIBS = libpd.la $(CMOCKA_LIBS)

include tests/unit/config/local.mk
include tests/unit/counters/local.mk
include tests/stats/local.mk
include tests/ctl/local.mk
include tests/plugin/local.mk

# --- base ----------------------------------------------------------------------------------
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/base/test_base tests/unit/base/test_mem tests/unit/base/test_closer
TESTS += tests/unit/base/test_base tests/unit/base/test_mem tests/unit/base/test_closer
endif
tests_unit_base_test_base_SOURCES = tests/unit/base/test_base.c
tests_unit_base_test_base_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_base_test_base_LDADD = $(PD_UNIT_LIBS)
tests_unit_base_test_mem_SOURCES = tests/unit/base/test_mem.c tests/unit/base/huge.h
tests_unit_base_test_mem_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_base_test_mem_LDADD = $(PD_UNIT_LIBS)
tests_unit_base_test_closer_SOURCES = tests/unit/base/test_closer.c tests/unit/base/linger.h
tests_unit_base_test_closer_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_base_test_closer_LDADD = $(PD_UNIT_LIBS)

include tests/unit/vhost/local.mk
include tests/unit/cli/local.mk
include tests/unit/vlib/local.mk
include tests/unit/wait/local.mk
include tests/contract/local.mk
include tests/queues/local.mk
include tests/sock/local.mk
include tests/model/local.mk

# --- every header alone --------------------------------------------------------------------
TESTS += tests/check_headers.sh
EXTRA_DIST += tests/check_headers.sh

# --- man pages --------------------------------------------------------------------------------
TESTS += tests/check_man.sh
EXTRA_DIST += tests/check_man.sh

# --- what make install puts where ------------------------------------------------------------
TESTS += tests/check_install.sh
EXTRA_DIST += tests/check_install.sh

# --- metadata ------------------------------------------------------------------------------
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/metadata/test_metadata
TESTS += tests/unit/metadata/test_metadata
endif
tests_unit_metadata_test_metadata_SOURCES = tests/unit/metadata/test_metadata.c
tests_unit_metadata_test_metadata_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_metadata_test_metadata_LDADD = $(PD_UNIT_LIBS)

# --- palladium_decode ----------------------------------------------------------------------
TESTS += tests/decode/test_decode.py
EXTRA_DIST += tests/decode/test_decode.py tests/decode/golden.txt

# --- the tables, the layers, the preload ---------------------------------------------------
include tests/preload/local.mk

include tests/unit/virtio/local.mk
# --- the lab -------------------------------------------------------------------------------
include tests/lab/local.mk
include tests/hostile/local.mk
include tests/fuzz/local.mk
include tests/cross/local.mk

# --- measurements: built by `make bench`, never by check ------------------------------------
include tests/bench/local.mk
# --- palladium_vlm -------------------------------------------------------------------------
include tests/vlm/local.mk

# --- palladium_eval ------------------------------------------------------------------------
include tests/eval/local.mk

# --- the nodes of packet sockets, and how their layer starts ---------------------------------
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/sock/test_layer tests/unit/sock/test_packet_nodes
TESTS += tests/unit/sock/test_layer tests/unit/sock/test_packet_nodes
endif
tests_unit_sock_test_layer_SOURCES = tests/unit/sock/test_layer.c
tests_unit_sock_test_layer_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_sock_test_layer_LDADD = $(PD_UNIT_LIBS)
tests_unit_sock_test_packet_nodes_SOURCES = tests/unit/sock/test_packet_nodes.c
tests_unit_sock_test_packet_nodes_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_sock_test_packet_nodes_LDADD = $(PD_UNIT_LIBS)
