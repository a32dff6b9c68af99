/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors as a peer sends them, before anything is known of what is behind them: which are let
 * in at all, and how the others are got rid of.
 */
#ifndef PD_TRANSPORT_VHOST_FOREIGN_H
#define PD_TRANSPORT_VHOST_FOREIGN_H

#include <stdbool.h>

/*
 * NULL when closing `fd`, a number that has just come, cannot wait for anybody; else what it is, in
 * words that stand until the next call. Never waits. Under pd_internal_fd_lock and pd_control.
 */
const char *pd_vhost_foreign_is_harmful(int fd);

/*
 * Close such a one, however long that takes, without waiting for it: when this returns its number
 * is free. (Without memory or a thread for that it is left open, and a warning says so.) Under
 * pd_internal_fd_lock and pd_control.
 */
void pd_vhost_foreign_discard(int fd);

/* True when so many wait to be closed that nobody else's are to be taken. Under pd_control. */
bool pd_vhost_foreign_is_full(void);

#endif /* PD_TRANSPORT_VHOST_FOREIGN_H */
