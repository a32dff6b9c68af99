/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finding the real libc functions.
 *
 * dlsym(RTLD_NEXT) gives the default version of a symbol, which is the one that programs linked
 * today ask for, so no call of the table needs dlvsym. It may allocate, and the program's allocator
 * may call us from there: each pointer of pd_real therefore starts as something that works without
 * dlsym (the first column of the table), and the constructor replaces them one by one.
 *
 * A call that this libc lacks keeps its raw system call, or answers ENOSYS.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

#include "base/sys.h"
#include "preload/asm.h"
#include "preload/real.h"

/* As pd_result, for results that may be addresses: only the last page of numbers is an error. */
static inline long pd_early_result(long ret)
{
	return (unsigned long)ret >= -4095ul ? pd_result(ret) : ret;
}

/* The function `name` of the next library; NULL, with ENOSYS in errno, when there is none. */
static void *pd_real_find(const char *name)
{
	void *fn = dlsym(RTLD_NEXT, name);

	if (!fn)
		errno = ENOSYS;
	return fn;
}

#define PD_NARGS_(_1, _2, _3, _4, _5, _6, n, ...) n
#define PD_NARGS(...) PD_NARGS_(__VA_ARGS__, 6, 5, 4, 3, 2, 1, 0)
#define PD_CAT_(a, b) a##b
#define PD_CAT(a, b) PD_CAT_(a, b)
#define PD_SYS_N(nr, ...) PD_CAT(PD_SYS_, PD_NARGS(__VA_ARGS__))(nr, __VA_ARGS__)

/* A: libc's alias needs a declaration, nothing else. */
#define PD_EARLY_A(ret, name, params, args) extern ret __##name params;

/* S: the system call. */
#define PD_EARLY_S(ret, name, params, args)                                      \
	static ret pd_early_##name params                                        \
	{                                                                        \
		return (ret)pd_early_result(PD_SYS_N(SYS_##name, PD_ARGS args)); \
	}

/* L: ask the loader, this once. */
#define PD_EARLY_L(ret, name, params, args)                           \
	static ret pd_early_##name params                             \
	{                                                             \
		ret(*fn) params = (ret(*) params)pd_real_find(#name); \
		if (!fn)                                              \
			return (ret)(intptr_t)-1;                     \
		return fn args;                                       \
	}

/* M: mmap64 is mmap. */
#define PD_EARLY_M(ret, name, params, args)

/* V: the functions with variable arguments, below. */
#define PD_EARLY_V(ret, name, params, args) static ret pd_early_##name params;

#define PD_CALL(early, ret, name, params, args) PD_EARLY_##early(ret, name, params, args)
#include "defs/intercepts.def"

/* Every command of fcntl takes one word or none. */
static int pd_early_fcntl64(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return __fcntl(fd, cmd, arg);
}

static int pd_early_ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	return (int)pd_early_result(pd_sys_ioctl(fd, req, arg));
}

static int pd_early_openat(int dirfd, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	return (int)pd_early_result(PD_SYS_4(SYS_openat, dirfd, path, flags, mode));
}

/* O_LARGEFILE is nothing on a 64-bit kernel. */
static int pd_early_openat64(int dirfd, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	return (int)pd_early_result(PD_SYS_4(SYS_openat, dirfd, path, flags, mode));
}

static long pd_early_syscall(long number, ...)
{
	va_list ap;
	long a[6];

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	return pd_early_result(pd_sys(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}

/* Without libc's own two signals, as libc has it: cancellation, and set-uid in all threads. */
static int pd_early_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	uint64_t mask = 0, was = 0;
	long ret;

	if (set)
		memcpy(&mask, set, sizeof(mask));
	mask &= ~(3ull << 31);
	ret = PD_SYS_4(SYS_rt_sigprocmask, how, set ? &mask : NULL, &was, PD_KERNEL_SIGSET_BYTES);
	if (ret)
		return (int)-ret;
	if (old) {
		sigemptyset(old);
		memcpy(old, &was, sizeof(was));
	}
	return 0;
}

static int pd_early_sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	return (int)pd_result(-pd_early_pthread_sigmask(how, set, old));
}

#define PD_INIT_A(name) __##name
#define PD_INIT_S(name) pd_early_##name
#define PD_INIT_L(name) pd_early_##name
#define PD_INIT_V(name) pd_early_##name
#define PD_INIT_M(name) pd_early_mmap

struct pd_real pd_real = {
#define PD_CALL(early, ret, name, params, args) .name = PD_INIT_##early(name),
#include "defs/intercepts.def"
};

/* The two that are reached by a jump from assembly (preload/asm.c). */
pid_t (*pd_real_vfork)(void) = __vfork;
long (*pd_real_syscall)(long number, ...) = pd_early_syscall;

/* Replace *slot, an entry of pd_real, by the function `name` if the loader has it. */
static void pd_real_resolve_one(void **slot, const char *name)
{
	void *fn = dlsym(RTLD_NEXT, name);

	if (fn)
		pd_store_release(slot, fn);
}

void pd_real_resolve(void)
{
	int saved = errno;

#define PD_CALL(early, ret, name, params, args) pd_real_resolve_one((void **)&pd_real.name, #name);
#include "defs/intercepts.def"
	pd_real_vfork = pd_real.vfork;
	pd_real_syscall = pd_real.syscall;
	pd_kernel = &pd_real;
	dlerror(); /* a name that was not found must not show up in the program's next dlerror */
	errno = saved;
}
