# SPDX-License-Identifier: BSD-2-Clause
libpalladium_la_SOURCES += \
	src/libpalladium/preload/api.c \
	src/libpalladium/preload/asm.c src/libpalladium/preload/asm.h \
	src/libpalladium/preload/chk.c \
	src/libpalladium/preload/crash.c \
	src/libpalladium/preload/fds.c \
	src/libpalladium/preload/fork.c \
	src/libpalladium/preload/init.c \
	src/libpalladium/preload/interrupt.c \
	src/libpalladium/preload/netif.c \
	src/libpalladium/preload/preload.h \
	src/libpalladium/preload/real.c src/libpalladium/preload/real.h \
	src/libpalladium/preload/sigmask.c \
	src/libpalladium/preload/signal.c \
	src/libpalladium/preload/stdio.c \
	src/libpalladium/preload/syscall.c \
	src/libpalladium/preload/wrap.c
