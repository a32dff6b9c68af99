# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/virtio/mem.c src/libpalladium/virtio/mem.h \
	src/libpalladium/virtio/vq.h
