/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ports and transports: how frames leave the process.
 *
 * A port is a virtual Ethernet interface. Its transport makes and moves its lanes; the socket layer
 * sees lanes and link state only. A transport is a folder, a line of defs/transports.def and a
 * pd_transport_ops whose every slot is filled.
 */
#ifndef PD_TRANSPORT_TRANSPORT_H
#define PD_TRANSPORT_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/atomic.h"
#include "config/config.h"
#include "vlib/lane.h"
#include "vlib/progress.h"

#define PD_PORTS_MAX 64
#define PD_QUEUES_MAX 10
/* Ifindexes of ports start here, far above what a kernel gives out. */
#define PD_IFINDEX_BASE 0x70640000u

struct pd_port;

enum pd_port_state {
	PD_PORT_CLOSED,     /* not used yet */
	PD_PORT_CONNECTING, /* opened; no peer, or still negotiating */
	PD_PORT_UP,         /* frames can move */
	PD_PORT_DOWN,       /* the peer went away or was refused; connecting again */
	PD_PORT_STATES
};

/* Why a port is PD_PORT_CONNECTING, when nothing is wrong. */
#define PD_PORT_NO_PEER_YET "its peer has not come yet"

enum pd_transport_cap {
	PD_CAP_SIDECAR = 1 << 0,   /* carries the 48 bytes */
	PD_CAP_RECONNECT = 1 << 1, /* the peer may come and go */
};

struct pd_transport_ops {
	const char *name; /* as configuration spells it: "vhost-user" */
	uint32_t caps;    /* enum pd_transport_cap */
	/*
	 * Begin: make port->lanes (all of them, down) and whatever finds the peer. pd_control held.
	 * Must not wait for the peer. Returns 0 or -errno; on an error nothing is left behind.
	 */
	int (*open)(struct pd_port *port);
	/* End: every lane down, peer told, lanes freed. pd_control held, no data-path call is or
	 * will be running: unless pd_ports_ended, then the lanes are down but their memory stays. */
	void (*close)(struct pd_port *port);
	/* The forked child drops what it inherited (descriptors, mappings) without telling the
	 * peer. */
	void (*abandon)(struct pd_port *port);
};

struct pd_port {
	char name[16];
	uint16_t index;   /* in pd_ports */
	uint32_t ifindex; /* what programs see */
	uint8_t mac[6];
	uint32_t mtu; /* bytes behind the Ethernet header */
	const struct pd_port_config *config;
	const struct pd_transport_ops *transport;
	uint32_t state; /* enum pd_port_state; written under pd_control, read anywhere */
	/*
	 * As configured, up to PALLADIUM_RING_LIMIT_PER_INTERFACE; lanes of queues that the peer
	 * did not enable stay down.
	 */
	unsigned n_lanes;
	struct pd_lane *lanes[PD_QUEUES_MAX];
	uint32_t up[PD_DIRS]; /* a bit per lane whose side is up; read anywhere */
	/*
	 * The lanes to send by, a bit each; read anywhere. Empty while lanes come up (lanes.c). Of
	 * no meaning in a port of one lane.
	 */
	uint32_t tx_lanes;
	struct pd_progress_timer lanes_timer; /* lanes.c */
	/*
	 * Every socket takes unfinished frames, with their headers (offload.h); written by the
	 * socket layer.
	 */
	bool rx_vnet;
	struct pd_ctr_block *ctr;
	/* Of changes of state in the log (registry.c). */
	uint64_t lines_ns;
	uint32_t lines_left_out;
	struct pd_progress_timer lines_timer;
	void *priv; /* the transport's */
	void *sock; /* the socket layer's */
};

/* All ports, by index; filled from the configuration at start, opened on first use. */
extern struct pd_port pd_ports[PD_PORTS_MAX];
extern unsigned pd_port_count;

/* Take the ports of a configuration (borrowed, must live on). Control path. Returns 0 or -errno. */
int pd_ports_init(const struct pd_config *config);

struct pd_port *pd_port_by_name(const char *name);
struct pd_port *pd_port_by_ifindex(uint32_t ifindex);

/* First use: start the progress thread, open the counters, call the transport. Idempotent. Takes
 * pd_control. */
int pd_port_open(struct pd_port *port);
/* Close one port / all; their leases end. No other thread uses them. Takes pd_control. */
void pd_port_close(struct pd_port *port);
void pd_ports_close_all(void);

/*
 * The process exits: close all ports for good, while other threads may be inside their lanes or
 * asleep on them. Those find every lane down, and the lanes' own memory stays.
 */
void pd_ports_end(void);
void pd_ports_end_locked(void); /* the same, pd_control held */
/* Written under pd_control; `close` of a transport must leave the lanes when it is set */
extern bool pd_ports_ended;

/*
 * Who owns a port after fork.
 *
 * A page shared by all who descend from one process names, per port, the process that moves its
 * frames. The first data-path use takes the lease: from nobody, or from a process that is gone.
 * Opening alone does not, so a server that binds and then forks hands its port to the child that
 * first uses it: the parent is told, and lets its connection go. Whoever does not own a port treats
 * it as down and touches none of its lanes. The lease ends with pd_port_close, or with the process
 * however it ends. The two ports of a loop pair have one owner: they are taken together, and what
 * was open is opened again.
 */
extern const uint64_t *pd_lease_words; /* private: one word per port; NULL before the first open */
extern uint64_t pd_lease_self;         /* private: this process as such a word */
bool pd_port_lease_take_slow(struct pd_port *port);

/*
 * True if this process owns `port` now; opens it if need be (after fork the child's transport was
 * abandoned, so that means connecting anew). No lock may be held. Two loads when the answer is yes.
 */
static inline bool pd_port_lease_take(struct pd_port *port)
{
	const uint64_t *words = pd_load_acquire(&pd_lease_words);

	return (pd_likely(words) && pd_load_relaxed(&words[port->index]) == pd_lease_self) ||
	       pd_port_lease_take_slow(port);
}

/* True if this process owns `port` already. Any lock may be held. */
static inline bool pd_port_lease_held(const struct pd_port *port)
{
	const uint64_t *words = pd_load_acquire(&pd_lease_words);

	return words && pd_load_relaxed(&words[port->index]) == pd_lease_self;
}

/* True unless another process owns `port`. Any lock may be held. */
static inline bool pd_port_lease_open(const struct pd_port *port)
{
	const uint64_t *words = pd_load_acquire(&pd_lease_words);
	uint64_t owner = words ? pd_load_relaxed(&words[port->index]) : 0;

	return !owner || owner == pd_lease_self;
}

/*
 * In a forked child: forget what the parent had open, without telling any peer, and forget its
 * progress thread. Who forks holds pd_control across the fork (progress.h).
 */
void pd_ports_after_fork(void);

/*
 * A transport tells of its port: `state`, and a reason of a few words for logs and statistics
 * ("peer closed the connection", "memory region 2 wraps"). pd_control held, no lane lock held. Logs
 * changes, as many as a log can bear, and in the end where they led to.
 */
void pd_port_set_state(struct pd_port *port, enum pd_port_state state, const char *reason);

/*
 * A transport tells what went wrong, for statistics: `what` in a few words, at most 127 bytes,
 * `err` an errno value or 0. A change to PD_PORT_DOWN tells its reason by itself. pd_control held;
 * the port has been opened.
 */
void pd_port_error(struct pd_port *port, int err, const char *what);

/* The same, and what the reason of the port's state is from now on, in one. */
void pd_port_error_and_reason(struct pd_port *port, int err, const char *what, const char *reason);

/* The socket layer asks to be told of changes of link state; called under pd_control. One listener.
 */
extern void (*pd_port_on_state)(struct pd_port *port, enum pd_port_state state);

/*
 * The socket layer's last chance to take what the peer has left in a ring: its frames count as
 * sent. Transports call it, if set, with the lock of the receive side held, when that side is about
 * to go down while the ring is sound; or with a lane that stands in for it and holds a frame that
 * is in no ring. One listener.
 */
extern void (*pd_port_on_receive_end)(struct pd_port *port, struct pd_lane *lane);

/*
 * The socket layer asks to be told when tx_lanes of a port has changed; the lock of a lane may be
 * held. One listener.
 */
extern void (*pd_port_on_lanes)(struct pd_port *port);

/*
 * For transports: no more lanes will come up for now, so send by those that are. pd_control held.
 */
void pd_port_lanes_settled(struct pd_port *port);

/* Private to registry.c and lanes.c: a port's lanes at the start, one that is made, all that go. */
void pd_port_lanes_init(struct pd_port *port);
void pd_port_lanes_watch(struct pd_port *port, struct pd_lane *lane);
void pd_port_lanes_forget(struct pd_port *port);

/* Make the counter blocks of a lane and initialise it; for transports. */
void pd_port_lane_init(struct pd_port *port, struct pd_lane *lane, const struct pd_lane_ops *ops,
		       uint16_t queue);

#endif /* PD_TRANSPORT_TRANSPORT_H */
