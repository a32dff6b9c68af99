/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which lane of a port a frame goes out by, and which lanes a socket receives from first.
 *
 * Sending. A frame has a *key*, which does not depend on the lanes there are; what decides it, in
 * this order:
 *
 *   1. In a port that steers by PFC class (steer=pfc, the default where frames carry a sidecar):
 *      the sidecar that came with the message, else that of the socket, if one was set
 *      (PALLADIUM_DEFAULT_METADATA, SO_PRIORITY). The key is its priority; a control message's is
 *      that of queue 0.
 *   2. PALLADIUM_RING_ALLOCATION_LOGIC_TX: interface (0), a hash of the flow; ip (1), a hash of the
 *      source's IP address; socket (10), thread (20) or core (30, 31), a number that the socket
 *      holds (struct pd_steer_own).
 *
 * pd_steer_pick makes a lane of a key and the lanes that are up: class n is lane n as long as there
 * is one, so that no class waits for another; with fewer lanes classes share them, n modulo their
 * number. When a port by class has lanes beyond the eight, frames without a class keep to those.
 * When a lane goes down only its own keys move.
 *
 * So the frames of one class, flow or socket stay in order, except where their lane changes: when
 * the peer takes queues away or brings them back, and when a socket migrates to another thread's or
 * core's lane.
 *
 * Receiving. The peer decides which lane a frame comes by. With logic 0 and 1 the lanes take turns
 * of a few receives. With the others a socket looks at its own lane first and at the others when
 * that one is empty, and every so often first of all: a frame in a lane whose owner does not read
 * reaches any socket that does.
 *
 * Locks: none. What a socket holds is written by any thread that uses it: a race costs a late
 * migration.
 */
#ifndef PD_SOCK_STEER_H
#define PD_SOCK_STEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/atomic.h"
#include "base/compiler.h"

/* PALLADIUM_RING_ALLOCATION_LOGIC_*, as VMA numbers them. */
enum pd_steer_logic {
	PD_STEER_INTERFACE = 0,
	PD_STEER_IP = 1,
	PD_STEER_SOCKET = 10,
	PD_STEER_THREAD = 20,
	PD_STEER_CORE = 30,
	PD_STEER_CORE_ATTACH = 31,
};

/* In a key: the rest is a number to spread over the lanes, not a class. */
#define PD_STEER_SPREAD 0x80000000u
/* No key. */
#define PD_STEER_NONE UINT32_MAX

/* The number that a socket steers by, for one direction. */
struct pd_steer_own {
	uint32_t number;    /* of the socket, its thread or its core */
	uint32_t candidate; /* the number it was last used with, if that was another */
	int32_t uses;       /* since it was last looked at which */
};

/* A new socket's. */
void pd_steer_own_init(struct pd_steer_own *own, int logic);

/*
 * The number after one more use; it follows the thread or core that uses it as `ratio`
 * (RING_MIGRATION_RATIO_*) says.
 */
uint32_t pd_steer_own_number(struct pd_steer_own *own, int logic, int ratio);

/* In a forked child: its threads are attached to cores anew. */
void pd_steer_after_fork(void);

/*
 * The lane, of those in `lanes` (a bit each, at least one), that `key` stands for. `by_class`: the
 * port steers by PFC class.
 */
unsigned pd_steer_pick(uint32_t lanes, uint32_t key, bool by_class);

/*
 * A hash of the flow that a frame belongs to: addresses, protocol and ports of IP, else Ethernet's
 * addresses and type. `l3` is what stands behind the Ethernet header, `len` bytes of it (64 are
 * enough), `type` the EtherType there, `macs` the two addresses, 12 bytes. All fragments of a
 * datagram hash alike. `source_only`: the IP source alone, or the Ethernet source.
 */
uint32_t pd_steer_hash(const uint8_t *l3, size_t len, uint16_t type, const uint8_t *macs,
		       bool source_only);

struct pd_packet;
struct pd_port;

/* The key of a message. Data path; for ports of several lanes. */
uint32_t pd_steer_message(struct pd_packet *s, struct pd_port *port, const struct msghdr *m);

/*
 * The key that decides whether a socket is writable: that of its last message, else of one that
 * holds nothing of its own.
 */
uint32_t pd_steer_writable(struct pd_packet *s, struct pd_port *port);

/*
 * The lane that a receive looks at first; the others follow in order, from *others on. For ports of
 * several lanes.
 */
unsigned pd_steer_receive(struct pd_packet *s, const struct pd_port *port, unsigned *others);

/* A receive found frames in `lane`; `first` is where it began to look. */
void pd_steer_received(struct pd_packet *s, const struct pd_port *port, unsigned lane,
		       unsigned first);

/* A frame in `lane` was looked at and stays there: the next receive takes it. */
void pd_steer_looked(struct pd_packet *s, unsigned lane);

#endif /* PD_SOCK_STEER_H */
