# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/virtio/chain.h src/libpalladium/virtio/copy.h \
	src/libpalladium/virtio/dirty.c src/libpalladium/virtio/dirty.h \
	src/libpalladium/virtio/device.c src/libpalladium/virtio/device.h \
	src/libpalladium/virtio/driver.c src/libpalladium/virtio/driver.h \
	src/libpalladium/virtio/inflight.c src/libpalladium/virtio/inflight.h \
	src/libpalladium/virtio/mem.c src/libpalladium/virtio/mem.h \
	src/libpalladium/virtio/packed.h src/libpalladium/virtio/prefetch.h \
	src/libpalladium/virtio/refuse.h src/libpalladium/virtio/ring.h \
	src/libpalladium/virtio/split.h \
	src/libpalladium/virtio/vq.c src/libpalladium/virtio/vq.h \
	src/libpalladium/virtio/walk.c \
	src/libpalladium/virtio/watch.c src/libpalladium/virtio/watch.h
