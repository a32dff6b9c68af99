# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/base/assert.h \
	src/libpalladium/base/atomic.h \
	src/libpalladium/base/clock.c src/libpalladium/base/clock.h \
	src/libpalladium/base/closer.c src/libpalladium/base/closer.h \
	src/libpalladium/base/compiler.h \
	src/libpalladium/base/dir.c src/libpalladium/base/dir.h \
	src/libpalladium/base/fault.c src/libpalladium/base/fault.h \
	src/libpalladium/base/internal_fd.c src/libpalladium/base/internal_fd.h \
	src/libpalladium/base/lib.c src/libpalladium/base/lib.h \
	src/libpalladium/base/list.h \
	src/libpalladium/base/lock.c src/libpalladium/base/lock.h \
	src/libpalladium/base/log.c src/libpalladium/base/log.h \
	src/libpalladium/base/mem.c src/libpalladium/base/mem.h \
	src/libpalladium/base/quiet.c src/libpalladium/base/quiet.h \
	src/libpalladium/base/sys.h \
	src/libpalladium/base/textfile.c src/libpalladium/base/textfile.h \
	src/libpalladium/base/thread.h
