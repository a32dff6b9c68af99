/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The debug CLI for people with a telnet client: what differs from the Unix socket (server.h).
 *
 *   telnet 127.0.0.1 5002
 *   libpalladium 0.9, process 4711 (app); help lists the commands, quit ends
 *   app> show errors
 *
 * A port of 127.0.0.1 is open to every user of the machine. Who is at the other end is asked of the
 * kernel: the owner of the socket that is connected to ours (sock_diag(7)). Where the kernel does
 * not say, nobody is let in.
 *
 * Lines end as telnet ends them, CR LF, in both directions (RFC 854). Every option that a client
 * proposes is refused (RFC 854, WONT and DONT), so it goes on sending whole lines that it lets
 * people edit.
 */
#ifndef PD_CLI_TELNET_H
#define PD_CLI_TELNET_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/types.h>

#include "cli/sink.h"

/* Listen at `port` of 127.0.0.1. Returns the socket (taken) or -errno. */
int pd_telnet_listen(uint16_t port);

/*
 * Whose socket it is that is at `peer`, connected to `port` of 127.0.0.1. Returns 0 or -errno, and
 * *uid is set on success only; -ENOTCONN when it was closed meanwhile, as the kernel keeps no owner
 * then. Does not wait.
 */
int pd_telnet_peer(const struct sockaddr_in *peer, uint16_t port, uid_t *uid);

/* What a client has said; all zero at first. */
struct pd_telnet_in {
	uint8_t state, command; /* private */
};

/*
 * Take telnet's own bytes out of the next `n` bytes. What they want of us is answered to `replies`.
 * Returns how many are left, at the beginning of `bytes`.
 */
size_t pd_telnet_filter(struct pd_telnet_in *in, char *bytes, size_t n,
			struct pd_cli_sink *replies);

/* A sink that ends lines by CR LF, in front of another, which is borrowed. */
struct pd_telnet_out {
	struct pd_cli_sink sink;
	struct pd_cli_sink *to;
};

/* Put it in front of `to`. */
void pd_telnet_out_init(struct pd_telnet_out *out, struct pd_cli_sink *to);

#endif /* PD_CLI_TELNET_H */
