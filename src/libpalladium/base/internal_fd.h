/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors that the library makes for itself.
 *
 * Each of them passes through pd_internal_fd as soon as it is made, so that the layer that knows
 * the program's descriptors can move it out of the way (a high number, marked as not the
 * program's). Until that layer has registered itself, the number stays what it was.
 */
#ifndef PD_BASE_INTERNAL_FD_H
#define PD_BASE_INTERNAL_FD_H

/*
 * Hand over `fd`, a new descriptor of ours or -errno. Returns the number to use from here on (the
 * old one is closed if it changed), or `fd` as it is when it is negative. Any thread, any lock.
 */
extern int (*pd_internal_fd)(int fd);

/* Close a descriptor that pd_internal_fd gave. Any thread, any lock. */
extern void (*pd_internal_fd_close)(int fd);

#endif /* PD_BASE_INTERNAL_FD_H */
