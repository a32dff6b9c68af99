/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eventfds: ours, and those that a peer says are some.
 */
#ifndef PD_TRANSPORT_VHOST_EVENTFD_H
#define PD_TRANSPORT_VHOST_EVENTFD_H

#include <stdbool.h>
#include <stdint.h>

/* What is said of a peer whose kick is such a one. */
#define PD_VHOST_COUNTS_DOWN "the kick counts down (EFD_SEMAPHORE) and never gets empty"

/*
 * Before there is a peer: have what pd_vhost_eventfd_signal is done with. What is missing is told,
 * once. pd_control held.
 */
void pd_vhost_eventfd_prepare(void);

/* A new eventfd of ours, non-blocking. Returns it or -errno. */
int pd_vhost_eventfd_make(void);

/*
 * Take a descriptor that a peer sent as a kick or call: it must be an eventfd, and is made
 * non-blocking. Returns 0, or -EINVAL when it is something else; `fd` stays the caller's.
 */
int pd_vhost_eventfd_adopt(int fd);

/* Close *fd if there is one; it is -1 then. */
void pd_vhost_eventfd_close(int *fd);

/* Empty an eventfd. Never waits, whatever the peer has made of its flags. Any thread. */
void pd_vhost_eventfd_drain(int fd);

/*
 * The same of one that the peer rings. `ones` is the caller's to keep from one call to the next, 0
 * at first. False when it may be one that stays readable however often it is drained: within some
 * twenty calls if it is, and now and then if its peer rings fast.
 */
bool pd_vhost_eventfd_drain_kick(int fd, uint32_t *ones);

/*
 * True when such a one counts down indeed. Takes from it, so who sleeps on it has to be told to
 * look, or the caller does. Never waits. pd_control held.
 */
bool pd_vhost_eventfd_counts_down(int fd);

/*
 * Add one to an eventfd. Slower than a write, and never waits for the peer. Where the kernel gives
 * no asynchronous I/O it may not be done, if there is no thread for it either. pd_control held.
 */
void pd_vhost_eventfd_signal(int fd);

/* True when a write would wait: its counter is full, which takes a peer that wants it so. */
bool pd_vhost_eventfd_is_full(int fd);

/*
 * Let go who waits in a write to a full one: room is made for two or more. What was in it is given
 * back, as one, unless it is still readable. Never waits. pd_control held.
 */
void pd_vhost_eventfd_make_room(int fd);

#endif /* PD_TRANSPORT_VHOST_EVENTFD_H */
