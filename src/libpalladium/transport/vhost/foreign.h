/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors as a peer sends them, before anything is known of what is behind them. */
#ifndef PD_TRANSPORT_VHOST_FOREIGN_H
#define PD_TRANSPORT_VHOST_FOREIGN_H

#include <stdbool.h>

/*
 * NULL when `fd`, a number that has just come, is let in: pd_closer_shared closes such a one.
 * Else what it is, in words that stand until the next call, and it is for pd_closer_number. Never
 * waits. Under pd_internal_fd_lock and pd_control.
 */
const char *pd_vhost_foreign_is_harmful(int fd);

/* True when the socket `fd` is a Unix stream socket. */
bool pd_vhost_foreign_is_stream(int fd);

#endif /* PD_TRANSPORT_VHOST_FOREIGN_H */
