/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The types that intercepts.def names: include this before the table.
 */
#ifndef PD_DEFS_CALLS_H
#define PD_DEFS_CALLS_H

#include <stdbool.h>
#include <stdio.h>
#include <stddef.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <resolv.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

typedef void (*pd_sighandler)(int);

#endif /* PD_DEFS_CALLS_H */
