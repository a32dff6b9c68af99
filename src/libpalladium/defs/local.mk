# SPDX-License-Identifier: BSD-2-Clause
EXTRA_DIST += src/libpalladium/defs/vars.def
