/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nodes of plug-ins on the way of received frames, as operations of a lane.
 *
 * A lane that was attached has operations that are the transport's but for two: rx shows what the
 * nodes made of the ring's frames, and rx_done consumes what those came of. Whoever looks at the
 * lane, to receive, to poll or to peek, sees results, and nobody else knows of plug-ins; a lane
 * that was not attached costs nothing.
 *
 *   plugin-input -> (nodes that ask for a place here) -> plugin-output     in an engine of the lane
 *
 * Each frame of the ring is copied before the first node sees it: it may write. Its place in the
 * ring goes with it; plugin-output keeps it as the result of that place, and a place whose frame
 * was dropped has none. Results are shown in the order of the ring. A frame leaves the ring with
 * its result, or, dropped, with the results before it, so readiness and backpressure are the
 * ring's, and no node sees a frame again that somebody only looked at. The results are forgotten,
 * and what is still in the ring goes through the nodes again, when the link or the cursor is not
 * what it was.
 *
 * All of it runs under the lock of the receive side; attaching and forks under pd_control.
 */
#ifndef PD_VLIB_LANE_PLUGINS_H
#define PD_VLIB_LANE_PLUGINS_H

#include "vlib/lane.h"

/* Plug-ins with nodes are there. Set before the first port opens. */
extern bool pd_lane_plugins_wanted;

/*
 * Give `lane`, which is being made for port `name`, operations over lane->ops, when a plug-in has a
 * node on the way. Without memory it stays as it is, with a line in the log: frames go without
 * plug-ins. pd_control held.
 */
void pd_lane_plugins_attach(struct pd_lane *lane, const char *name);

/*
 * What lane->ops is to be when the transport has chosen `ops`. The lock of a side held; while no
 * side is up, or with the same as before.
 */
const struct pd_lane_ops *pd_lane_plugins_over(struct pd_lane *lane, const struct pd_lane_ops *ops);

/* In a forked child, behind pd_buffer_pools_after_fork: the results are the parent's. */
void pd_lane_plugins_after_fork(void);

#endif /* PD_VLIB_LANE_PLUGINS_H */
