/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How heavy the traffic is, for control work that has more to do than it has to do now
 * (pd_process_yield).
 *
 * There is no main loop whose vectors would grow with the load: program threads run the lanes. What
 * is known of them all are the counters of their engines' nodes. The load is the larger of
 *
 *   - the mean number of frames with which nodes were called, less one, and
 *   - the frames that came in within PD_LOAD_SLICE_NS, on the average,
 *
 * over the last PD_LOAD_WINDOW_NS or a little more. The first is what VLIB goes by. The second is
 * for programs that take and give one frame a call: their vectors are short whatever comes, and
 * what would have been a vector is what comes while one is being worked on.
 *
 * It costs a walk over the nodes' counters once per window, while somebody asks; the data path
 * knows nothing of it. Who asks for the first time in a while is told that there is no load, until
 * a window is over.
 */
#ifndef PD_VLIB_LOAD_H
#define PD_VLIB_LOAD_H

#include "base/clock.h"

#define PD_LOAD_WINDOW_NS (5 * PD_NS_PER_MS)
#define PD_LOAD_SLICE_NS (50 * PD_NS_PER_US)
/* After so long without a question what was counted since is of no use. */
#define PD_LOAD_STALE_NS PD_NS_PER_SEC

/* The load now, 0 to PD_VECTOR_MAX. pd_control held, no other lock. */
unsigned pd_load(void);

#endif /* PD_VLIB_LOAD_H */
