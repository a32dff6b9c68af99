# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/metadata/fields.c src/libpalladium/metadata/fields.h \
	src/libpalladium/metadata/control.c src/libpalladium/metadata/control.h \
	src/libpalladium/metadata/dialect.c src/libpalladium/metadata/sidecar.h \
	src/libpalladium/metadata/render.c src/libpalladium/metadata/render.h
