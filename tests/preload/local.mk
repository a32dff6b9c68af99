# SPDX-License-Identifier: BSD-2-Clause
# --- the tables and the layers -------------------------------------------------------------
dist_check_SCRIPTS = tests/check_symbols.sh tests/check_layers.sh
TESTS += tests/check_symbols.sh tests/check_layers.sh
tests/check_symbols.log: libpalladium.la libpd.la

# --- preload -------------------------------------------------------------------------------
# Compiling signatures.cc is the test.
check_LIBRARIES = tests/preload/libsignatures.a
tests_preload_libsignatures_a_SOURCES = tests/preload/signatures.cc

# Every tracked source is as clang-format 14 writes it.
CLANG_FORMAT = clang-format-14
.PHONY: format-check format
format-check:
	cd $(srcdir) && git ls-files '*.c' '*.h' | xargs $(CLANG_FORMAT) --dry-run -Werror
format:
	cd $(srcdir) && git ls-files '*.c' '*.h' | xargs $(CLANG_FORMAT) -i

# test_preload contains preload/ itself, so the calls that it makes are the wrappers. ThreadSanitizer
# has wrappers of its own for them, and calls ours before it can be called.
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/sock/test_fd tests/unit/sock/test_vacate
TESTS += tests/unit/sock/test_fd tests/unit/sock/test_vacate
if !TSAN
check_PROGRAMS += tests/unit/preload/test_preload
TESTS += tests/unit/preload/test_preload
endif
endif
tests_unit_sock_test_fd_SOURCES = tests/unit/sock/test_fd.c
tests_unit_sock_test_fd_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_sock_test_fd_LDADD = $(PD_UNIT_LIBS)
tests_unit_sock_test_vacate_SOURCES = tests/unit/sock/test_vacate.c
tests_unit_sock_test_vacate_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_sock_test_vacate_LDADD = $(PD_UNIT_LIBS)
tests_unit_preload_test_preload_SOURCES = tests/unit/preload/test_preload.c $(libpalladium_la_SOURCES)
tests_unit_preload_test_preload_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_preload_test_preload_LDADD = $(PD_UNIT_LIBS)

TESTS += tests/preload/test_passthrough.py tests/preload/test_cpython.py
EXTRA_DIST += tests/preload/test_passthrough.py tests/preload/test_cpython.py tests/preload/parity.c tests/preload/early.c
