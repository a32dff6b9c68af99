/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interface queries, and memory mapped from a socket.
 */
#include <sys/mman.h>

#include "preload/real.h"

/* Run hook `name` if a port is configured; its answer, or PD_HOOK_PASS. */
#define PD_ASK(name, ...)                                                \
	({                                                               \
		long pd_answer = PD_HOOK_PASS;                           \
		if (pd_unlikely(pd_load_acquire(&pd_gate_configured))) { \
			pd_lib_enter();                                  \
			pd_answer = pd_hooks.name(__VA_ARGS__);          \
			pd_lib_leave();                                  \
		}                                                        \
		pd_answer;                                               \
	})

unsigned PD_WRAP(if_nametoindex)(const char *name)
{
	long ret = PD_ASK(if_nametoindex, name);

	if (ret == PD_HOOK_PASS)
		return pd_real.if_nametoindex(name);
	ret = pd_result(ret);
	return ret < 0 ? 0 : (unsigned)ret;
}

char *PD_WRAP(if_indextoname)(unsigned index, char *name)
{
	long ret = PD_ASK(if_indextoname, index, name);

	if (ret == PD_HOOK_PASS)
		return pd_real.if_indextoname(index, name);
	return pd_result(ret) < 0 ? NULL : name;
}

struct if_nameindex *PD_WRAP(if_nameindex)(void)
{
	struct if_nameindex *list = NULL;
	long ret = PD_ASK(if_nameindex, &list);

	if (ret == PD_HOOK_PASS)
		return pd_real.if_nameindex();
	return pd_result(ret) < 0 ? NULL : list;
}

int PD_WRAP(getifaddrs)(struct ifaddrs **list)
{
	long ret = PD_ASK(getifaddrs, list);

	return ret == PD_HOOK_PASS ? pd_real.getifaddrs(list) : (int)pd_result(ret);
}

void PD_WRAP(freeifaddrs)(struct ifaddrs *list)
{
	if (PD_ASK(freeifaddrs, list) == PD_HOOK_PASS)
		pd_real.freeifaddrs(list);
}

/* mmap of a number in the table. */
static PD_NOINLINE void *pd_mmap_ours(void *addr, size_t len, int prot, int flags, int fd,
				      off_t off)
{
	struct pd_sock *sk;
	long ret = 0;

	pd_lib_enter();
	sk = pd_ours_get(fd, &ret);
	if (sk) {
		ret = (long)sk->ops->mmap(sk, addr, len, prot, flags, off);
		pd_fd_put(sk);
	}
	pd_lib_leave();
	if (ret == PD_HOOK_PASS)
		return pd_real.mmap(addr, len, prot, flags, fd, off);
	return (unsigned long)ret >= -4095ul ? (void *)pd_result(ret) : (void *)ret;
}

/* mmap and mmap64 are one call on a 64-bit system. */
void *PD_WRAP(mmap)(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	if (pd_unlikely(pd_fd_ours(fd)) && !(flags & MAP_ANONYMOUS))
		return pd_mmap_ours(addr, len, prot, flags, fd, off);
	return pd_real.mmap(addr, len, prot, flags, fd, off);
}

void *PD_WRAP(mmap64)(void *addr, size_t len, int prot, int flags, int fd, off64_t off)
{
	if (pd_unlikely(pd_fd_ours(fd)) && !(flags & MAP_ANONYMOUS))
		return pd_mmap_ours(addr, len, prot, flags, fd, off);
	return pd_real.mmap(addr, len, prot, flags, fd, off);
}
