# SPDX-License-Identifier: BSD-2-Clause
libpalladium_la_SOURCES += src/libpalladium/preload/init.c
libpalladium_la_SOURCES += src/libpalladium/preload/api.c
