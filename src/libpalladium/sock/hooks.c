/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hooks before the socket layer fills them: everything goes to libc.
 */
#include "sock/hooks.h"

#define PD_HOOK(early, gate, ret, name, params, args) \
	static long pd_pass_##name params             \
	{                                             \
		return PD_HOOK_PASS;                  \
	}
#define PD_HOOKFD(early, gate, ret, name, params, args) \
	PD_HOOK(early, gate, ret, name, params, args)
#include "defs/intercepts.def"

/* No port answers. */
static long pd_pass_ioctl(int fd, unsigned long req, void *arg)
{
	return PD_HOOK_PASS;
}

/* No port has this name. */
static long pd_pass_if_nametoindex(const char *name)
{
	return PD_HOOK_PASS;
}

/* No port has this index. */
static long pd_pass_if_indextoname(unsigned index, char *name)
{
	return PD_HOOK_PASS;
}

/* No ports to list. */
static long pd_pass_if_nameindex(struct if_nameindex **list)
{
	return PD_HOOK_PASS;
}

/* No ports to list. */
static long pd_pass_getifaddrs(struct ifaddrs **list)
{
	return PD_HOOK_PASS;
}

/* Not a list of ours. */
static long pd_pass_freeifaddrs(struct ifaddrs *list)
{
	return PD_HOOK_PASS;
}

struct pd_hooks pd_hooks = {
#define PD_HOOK(early, gate, ret, name, params, args) .name = pd_pass_##name,
#define PD_HOOKFD(early, gate, ret, name, params, args) .name = pd_pass_##name,
#include "defs/intercepts.def"
	.ioctl = pd_pass_ioctl,
	.if_nametoindex = pd_pass_if_nametoindex,
	.if_indextoname = pd_pass_if_indextoname,
	.if_nameindex = pd_pass_if_nameindex,
	.getifaddrs = pd_pass_getifaddrs,
	.freeifaddrs = pd_pass_freeifaddrs,
};

const struct pd_real *pd_kernel;
bool pd_gate_configured;
bool pd_gate_active;
