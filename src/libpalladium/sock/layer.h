/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The socket layer as preload/ starts and ends it.
 */
#ifndef PD_SOCK_LAYER_H
#define PD_SOCK_LAYER_H

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"

/*
 * A configuration with at least one port: take its ports, set the hooks, follow forks, and open the
 * gate. `config` is borrowed and must live as long as the process. Once, before main. Returns 0 or
 * -errno; then every call goes on to libc.
 */
int pd_sock_layer_start(const struct pd_config *config);

/* The configuration that pd_sock_layer_start was given. */
extern const struct pd_config *pd_sock_config;

/*
 * The process ends: ports are closed, peers told, the counters' file removed. Safe without a start.
 */
void pd_sock_layer_end(void);

/*
 * SIGINT came: have the counters of open sockets written to PALLADIUM_STATS_FILE, and with `end`
 * the ports closed as pd_sock_layer_end does and the process ended by the signal; wait for it a
 * moment. Async-signal-safe; outside the library. False when there is no port to close, and nothing
 * has been done.
 */
bool pd_sock_layer_interrupt(bool end);

/* What packet-generator commands know ports and sidecars by; for pd_sock_layer_start. */
extern const struct pd_stream_names pd_sock_stream_names;

/* Set the hooks of poll, select, epoll, sendfile and splice; for pd_sock_layer_start. */
void pd_multiplex_init(void);

struct pd_sock;

/* In a forked child, for each epoll of ours. */
void pd_multiplex_after_fork(struct pd_sock *sk);

/* Who serves packet sockets of this program on a port, of this protocol (host order). Any thread. */
void pd_sock_decide(const char *port_name, uint16_t protocol, struct pd_conf_decision *decision);

/*
 * The ports that the rules let a packet socket of this program and this protocol (host order) have,
 * one bit each. Any thread.
 */
uint64_t pd_sock_rule_ports(uint16_t protocol);

#endif /* PD_SOCK_LAYER_H */
