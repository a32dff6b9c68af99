/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Those who talk to the debug CLI, each over a stream socket: as server.h says, or with `telnet`, as
 * telnet.h does. All of it with pd_control held.
 */
#ifndef PD_CLI_CONNECTION_H
#define PD_CLI_CONNECTION_H

#include <stdbool.h>

/* Serve the new connection `fd` (taken), or turn it away when there are too many. */
void pd_cli_connection_begin(int fd, bool telnet);

/* Tell the new connection `fd` (taken) why it is not served, as far as it reads that at once. */
void pd_cli_turn_away(int fd, bool telnet, const char *why);

/* End all at once. */
void pd_cli_connections_end(void);

#endif /* PD_CLI_CONNECTION_H */
