/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The debug CLI's socket.
 *
 * A stream socket of the program's user, mode 0600, in the directory of the statistics file
 * (PALLADIUM_CLI=auto) or where the variable says. It says who it is, takes a command a line, and
 * answers with what the command prints and a line that begins with a record separator:
 *
 *   palladium-cli 1 PID VERSION PROGRAM
 *   ... output ...
 *   \036 0                  done
 *   \036 1 what is wrong    failed
 *
 * so a client needs to know nothing of the commands, and a person can do with socat. Output holds
 * no other byte \036.
 *
 * With PALLADIUM_CLI_PORT there is a TCP port beside it, for people: telnet.h.
 *
 * All of it runs on the progress thread; each round of that does one command, or one step, of a
 * connection. Everything has a bound: connections, the length of a line, output that waits, the
 * time that half a line or unread output waits. Who oversteps one, or sends what is no text, is
 * told and loses the connection.
 */
#ifndef PD_CLI_SERVER_H
#define PD_CLI_SERVER_H

#include <stdint.h>

#define PD_CLI_PROTOCOL 1
#define PD_CLI_CONNECTIONS_MAX 8
/* Output of one connection that is not sent yet: above the first no step is made, the second is the
 * most. */
#define PD_CLI_QUEUE_HIGH_BYTES (64u << 10)
#define PD_CLI_QUEUE_MAX_BYTES (4u << 20)

/* How long half a line, or output that nobody reads, waits. For tests. */
extern uint64_t pd_cli_patience_ns;

/*
 * Listen, unless that was tried before or PALLADIUM_CLI=off. Whatever goes wrong is logged and
 * costs nothing but the CLI. pd_control held.
 */
void pd_cli_server_start(void);

/* Close everything; the socket's file goes. It can be started again. pd_control held. */
void pd_cli_server_stop(void);

/* In a forked child, after pd_progress_after_fork: the parent's sockets are let go, and its file is
 * let alone. */
void pd_cli_server_after_fork(void);

/* The path that is listened on, or NULL. */
const char *pd_cli_server_path(void);

#endif /* PD_CLI_SERVER_H */
