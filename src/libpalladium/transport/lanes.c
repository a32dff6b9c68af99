/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which lanes of a port are up, and which of them frames are sent by.
 *
 * A peer brings the queues of a port up one after the other, and may leave some alone for good. If
 * a sender used what is up at each moment, the frames of one flow would begin on one queue and go
 * on by another a moment later, and could overtake each other there. So the lanes to send by are a
 * set that changes in one step: it loses a lane at once, and gains lanes when all are up, when the
 * transport knows that no more will come, or when none has come for a while. While lanes are up but
 * the set is empty, a send waits as for room.
 *
 * A port of one lane has no use for any of this.
 *
 * Locking: lanes move under pd_control and the lock of the side; the words are read anywhere.
 */
#include <string.h>

#include "base/clock.h"
#include "transport/transport.h"

/* How long after a lane came up the set is made without those that did not. */
#define PD_LANES_SETTLE_NS (50 * PD_NS_PER_MS)

void (*pd_port_on_lanes)(struct pd_port *port);

/* Make `set` the lanes that are sent by. */
static void pd_port_lanes_set(struct pd_port *port, uint32_t set)
{
	if (pd_exchange(&port->tx_lanes, set) != set &&
	    pd_port_on_lanes) /* pairs with pd_packet_lane_for */
		pd_port_on_lanes(port);
}

void pd_port_lanes_settled(struct pd_port *port)
{
	if (port->n_lanes < 2)
		return;
	pd_progress_timer_cancel(&port->lanes_timer);
	pd_port_lanes_set(port, pd_load_relaxed(&port->up[PD_TX]));
}

/* Nothing came up for a while. */
static void pd_port_lanes_late(struct pd_progress_timer *timer)
{
	pd_port_lanes_settled(pd_container_of(timer, struct pd_port, lanes_timer));
}

/* A side of a lane went up or down; its lock and pd_control are held. */
static void pd_port_lane_moved(struct pd_lane *lane, enum pd_dir dir)
{
	struct pd_port *port = &pd_ports[lane->port];
	uint32_t bit = 1u << lane->queue, all = (1u << port->n_lanes) - 1, up;

	if (lane->side[dir].up)
		up = pd_fetch_or(&port->up[dir], bit) | bit;
	else
		up = pd_fetch_and(&port->up[dir], ~bit) & ~bit;
	if (dir != PD_TX || port->n_lanes < 2)
		return;
	if (!(up & bit))
		pd_port_lanes_set(port, pd_load_relaxed(&port->tx_lanes) & up);
	if (up == all)
		pd_port_lanes_settled(port);
	else if (up & ~pd_load_relaxed(&port->tx_lanes))
		pd_progress_timer_set(&port->lanes_timer, PD_LANES_SETTLE_NS);
	else
		pd_progress_timer_cancel(&port->lanes_timer);
}

void pd_port_lanes_init(struct pd_port *port)
{
	pd_list_init(&port->lanes_timer.node);
	port->lanes_timer.fn = pd_port_lanes_late;
}

void pd_port_lanes_watch(struct pd_port *port, struct pd_lane *lane)
{
	lane->moved = pd_port_lane_moved;
	port->lanes[lane->queue] = lane;
}

void pd_port_lanes_forget(struct pd_port *port)
{
	pd_progress_timer_cancel(&port->lanes_timer);
	memset(port->lanes, 0, sizeof(port->lanes));
	pd_store_relaxed(&port->up[PD_RX], 0);
	pd_store_relaxed(&port->up[PD_TX], 0);
	pd_port_lanes_set(port, 0);
}
