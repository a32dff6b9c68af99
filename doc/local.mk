# SPDX-License-Identifier: BSD-2-Clause
dist_man_MANS += doc/palladium_decode.1
dist_man_MANS += doc/palladium_stats.1
dist_man_MANS += doc/libpalladium.7
dist_man_MANS += doc/libpalladium.conf.5
dist_man_MANS += doc/palladium_vlm.1
EXTRA_DIST += doc/performance.txt
EXTRA_DIST += doc/fuzzing.txt
