/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Giving the program a number that one of the library's own descriptors has.
 */
#ifndef PD_SOCK_VACATE_H
#define PD_SOCK_VACATE_H

/*
 * Have `put(ctx)`, a dup2 or dup3 of the program's onto the number `fd`, which the kernel will not
 * refuse, done when nothing of the library's own stands there, and nothing comes there meanwhile.
 * `put` answers as libc does: the number, or -1. Returns 0 when `put` was called, or -errno.
 * Control path; no lock may be held.
 */
int pd_vacate_for(int fd, int (*put)(void *ctx), void *ctx);

/* Around a fork: no move is under way. The first lock to be taken. */
void pd_vacate_before_fork(void);
void pd_vacate_after_fork(void);

#endif /* PD_SOCK_VACATE_H */
