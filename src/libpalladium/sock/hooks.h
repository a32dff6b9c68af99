/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where preload/ and the socket layer meet.
 *
 * Upwards: `pd_kernel` are libc's own functions, for a hook that has to ask the kernel side as
 * well. Downwards: `pd_hooks` are the calls that no single descriptor decides. The socket layer
 * sets the ones it implements when it initialises; until then each answers PD_HOOK_PASS, which
 * sends the call to libc.
 *
 * Two gates keep programs without ports at full speed, each a byte that is read on the way:
 *
 *   pd_gate_configured  some port is configured: socket, interface queries, signals
 *   pd_gate_active      the first socket on a port exists: poll, select, epoll, sendfile, splice,
 *                       munmap
 */
#ifndef PD_SOCK_HOOKS_H
#define PD_SOCK_HOOKS_H

#include <limits.h>
#include <stdbool.h>
#include "base/atomic.h"
#include "base/compiler.h"
#include "defs/calls.h"

/*
 * "Not mine": the call goes to libc as the program made it. An int, so that calls of either width
 * can answer it.
 */
#define PD_HOOK_PASS ((long)INT_MIN)

/* libc's functions, as the next library in the search order has them. */
struct pd_real {
#define PD_CALL(early, ret, name, params, args) ret(*name) params;
#include "defs/intercepts.def"
};

/* Set by preload/ before any hook can run; NULL in a program that links libpd alone. */
extern const struct pd_real *pd_kernel;

/*
 * Each takes what the libc call takes and answers its result, -errno or PD_HOOK_PASS. They run
 * between pd_lib_enter and pd_lib_leave, with no lock held.
 */
struct pd_hooks {
#define PD_HOOK(early, gate, ret, name, params, args) long(*name) params;
#define PD_HOOKFD(early, gate, ret, name, params, args) long(*name) params;
#include "defs/intercepts.def"
	/* A descriptor of the kernel's, asked about an interface (SIOC*, 0x8900 to 0x89ff). */
	long (*ioctl)(int fd, unsigned long req, void *arg);
	/* The index, -ENODEV, or pass. */
	long (*if_nametoindex)(const char *name);
	/* 0 with the name written, -ENXIO, or pass. */
	long (*if_indextoname)(unsigned index, char *name);
	/*
	 * 0 with *list set, from malloc as if_freenameindex frees it: the array, and each name by
	 * itself.
	 */
	long (*if_nameindex)(struct if_nameindex **list);
	/* 0 with *list set. */
	long (*getifaddrs)(struct ifaddrs **list);
	/* 0 when the list was one of ours, or pass. */
	long (*freeifaddrs)(struct ifaddrs *list);
};

/* No member is ever NULL. Set members before the gate opens. */
extern struct pd_hooks pd_hooks;

extern bool pd_gate_configured;
extern bool pd_gate_active;

/* Open a gate; they never close again. Pairs with the loads in preload/: the hooks are set. */
static inline void pd_gate_open(bool *gate)
{
	pd_store_release(gate, true);
}

#endif /* PD_SOCK_HOOKS_H */
