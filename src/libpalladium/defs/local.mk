# SPDX-License-Identifier: BSD-2-Clause
EXTRA_DIST += src/libpalladium/defs/vars.def src/libpalladium/defs/intercepts.def
libpd_la_SOURCES += src/libpalladium/defs/calls.h
