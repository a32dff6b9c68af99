# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/config/config.h \
	src/libpalladium/config/vars.h
