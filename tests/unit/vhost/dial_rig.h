/* SPDX-License-Identifier: BSD-2-Clause */
/* For tests of who finds whom at a path: ports in a folder of their own, and time that passes at once. */
#ifndef PD_TESTS_UNIT_VHOST_DIAL_RIG_H
#define PD_TESTS_UNIT_VHOST_DIAL_RIG_H

#include "peer.h"
#include "tests/unit/base/ahead.h"

/* So many milliseconds pass at once. */
static inline void later(uint64_t ms)
{
	ahead_ns += ms * PD_NS_PER_MS;
	turn();
}

static inline int setup(void **state)
{
	(void)state;
	peer_dir_make();
	pd_progress_set_manual(true);
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	pd_ports_close_all();
	pd_progress_stop();
	peer_dir_remove();
	return 0;
}

/* What `port` says of itself. */
static inline const char *reason_of(const struct pd_port *port)
{
	return port->ctr->reason;
}

/* A listening port of one queue pair. */
static inline void listen_plainly(void)
{
	peer_ports(1, PD_CONF_MODE_LISTEN, PD_CONF_BACKEND, 1);
	assert_int_equal(pd_port_open(&pd_ports[0]), 0);
	turn();
}

/* One that has begun; it is answered. */
static inline int begin(void)
{
	int sock = peer_connect(peer_path);

	peer_ask(sock, PD_VHOST_GET_FEATURES);
	return sock;
}

/* Which port has the peer of `sock`: the one whose answer counts its queue pairs. */
static inline uint64_t queues_of(int sock)
{
	return peer_ask(sock, PD_VHOST_GET_QUEUE_NUM);
}

#endif /* PD_TESTS_UNIT_VHOST_DIAL_RIG_H */
