/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eventfds: ours, and those that a peer says are some.
 */
#ifndef PD_TRANSPORT_VHOST_EVENTFD_H
#define PD_TRANSPORT_VHOST_EVENTFD_H

/* A new eventfd of ours, non-blocking. Returns it or -errno. */
int pd_vhost_eventfd_make(void);

/*
 * Take a descriptor that a peer sent as a kick or call: it must be an eventfd, and is made
 * non-blocking. Returns 0, or -EINVAL when it is something else; `fd` stays the caller's.
 */
int pd_vhost_eventfd_adopt(int fd);

#endif /* PD_TRANSPORT_VHOST_EVENTFD_H */
