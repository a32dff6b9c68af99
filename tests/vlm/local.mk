# SPDX-License-Identifier: BSD-2-Clause
check_PROGRAMS += tests/vlm/peer
tests_vlm_peer_SOURCES = tests/vlm/peer.c
tests_vlm_peer_LDADD = libpd.la
TESTS += tests/vlm/test_vlm.py tests/vlm/test_examples.py tests/vlm/test_independent.py
EXTRA_DIST += tests/vlm/test_vlm.py tests/vlm/test_examples.py tests/vlm/test_independent.py

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/vlm/test_vlm
TESTS += tests/unit/vlm/test_vlm
endif
tests_unit_vlm_test_vlm_SOURCES = tests/unit/vlm/test_vlm.c
tests_unit_vlm_test_vlm_CFLAGS = $(PD_UNIT_CFLAGS) -I$(top_srcdir)/src
tests_unit_vlm_test_vlm_LDADD = libvlm.la $(PD_UNIT_LIBS) $(JANSSON_LIBS)
