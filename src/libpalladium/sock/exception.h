/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PALLADIUM_EXCEPTION_HANDLING: what becomes of a call that the kernel's sockets know and ours do
 * not.
 */
#ifndef PD_SOCK_EXCEPTION_H
#define PD_SOCK_EXCEPTION_H

#include "sock/packet.h"

/*
 * `s` has no answer to a call but `ret`, an -errno; the call is told printf-like. `kernel_may`: the
 * kernel could do it if the socket were its own. Returns what the call returns: `ret`, or
 * PD_HOOK_PASS when the socket is the kernel's from here on and the call goes there. No lock held;
 * may end the process.
 */
int pd_exception(struct pd_packet *s, int ret, bool kernel_may, const char *fmt, ...)
	PD_PRINTF(4, 5);

/* pd_packet_setsockopt and pd_packet_getsockopt, with what becomes of unknown options. */
int pd_exception_setsockopt(struct pd_sock *sk, int level, int name, const void *val,
			    socklen_t len);
int pd_exception_getsockopt(struct pd_sock *sk, int level, int name, void *val, socklen_t *len);

#endif /* PD_SOCK_EXCEPTION_H */
