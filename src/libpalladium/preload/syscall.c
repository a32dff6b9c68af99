/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * syscall(): libuv calls close, dup3, sendmmsg and recvmmsg by number. A number that names an
 * intercepted call goes to the wrapper when a descriptor of ours is concerned; every other call
 * goes to libc.
 *
 * The kernel's ppoll, epoll_pwait and epoll_pwait2 take a signal set of 8 bytes where libc's take a
 * sigset_t; hooks read the first 8 bytes only.
 */
#include <sys/syscall.h>

#include "preload/asm.h"
#include "preload/real.h"

/* What has to be ours for a call to be dispatched. */
enum pd_syscall_gate {
	PD_SC_NEVER,
	PD_SC_FD,     /* the first argument, a descriptor */
	PD_SC_FD2,    /* the first or the second, or the result: a descriptor */
	PD_SC_ALWAYS, /* the wrapper finds out by itself */
};

/* clang-format off */
/* PD_SYSCALLS(row): row(name, gate, wide); wide when the result has 64 bits. */
#define PD_SYSCALLS(row)                    \
	row(read, PD_SC_FD, 1)              \
	row(readv, PD_SC_FD, 1)             \
	row(recvfrom, PD_SC_FD, 1)          \
	row(recvmsg, PD_SC_FD, 1)           \
	row(recvmmsg, PD_SC_FD, 0)          \
	row(write, PD_SC_FD, 1)             \
	row(writev, PD_SC_FD, 1)            \
	row(sendto, PD_SC_FD, 1)            \
	row(sendmsg, PD_SC_FD, 1)           \
	row(sendmmsg, PD_SC_FD, 0)          \
	row(close, PD_SC_FD, 0)             \
	row(close_range, PD_SC_ALWAYS, 0)   \
	row(dup, PD_SC_FD2, 0)              \
	row(dup3, PD_SC_FD2, 0)             \
	row(fcntl, PD_SC_FD, 0)             \
	row(ioctl, PD_SC_ALWAYS, 0)         \
	row(socket, PD_SC_ALWAYS, 0)        \
	row(accept, PD_SC_FD, 0)            \
	row(accept4, PD_SC_FD, 0)           \
	row(bind, PD_SC_FD, 0)              \
	row(connect, PD_SC_FD, 0)           \
	row(listen, PD_SC_FD, 0)            \
	row(shutdown, PD_SC_FD, 0)          \
	row(getsockopt, PD_SC_FD, 0)        \
	row(setsockopt, PD_SC_FD, 0)        \
	row(getsockname, PD_SC_FD, 0)       \
	row(getpeername, PD_SC_FD, 0)       \
	row(sendfile, PD_SC_ALWAYS, 1)      \
	row(splice, PD_SC_ALWAYS, 1)        \
	row(ppoll, PD_SC_ALWAYS, 0)         \
	row(epoll_create1, PD_SC_ALWAYS, 0) \
	row(epoll_ctl, PD_SC_ALWAYS, 0)     \
	row(epoll_pwait, PD_SC_ALWAYS, 0)   \
	row(mmap, PD_SC_ALWAYS, 1)          \
	row(munmap, PD_SC_ALWAYS, 0)        \
	PD_SYSCALLS_LEGACY(row)

/* Numbers that newer architectures do not have. */
#ifdef SYS_poll
#define PD_SYSCALLS_LEGACY(row)             \
	row(poll, PD_SC_ALWAYS, 0)          \
	row(dup2, PD_SC_FD2, 0)             \
	row(epoll_create, PD_SC_ALWAYS, 0)  \
	row(epoll_wait, PD_SC_ALWAYS, 0)
#else
#define PD_SYSCALLS_LEGACY(row)
#endif
/* clang-format on */

#define PD_SC_ROW(name, gate, wide) [SYS_##name] = (gate),
const uint8_t pd_syscall_map[PD_SYSCALL_MAP_SIZE] = {PD_SYSCALLS(PD_SC_ROW)};

typedef long (*pd_syscall_fn)(long, long, long, long, long, long);

/*
 * The wrapper of a call, and whether its result has 64 bits. Calling it through a type with six
 * words is what the psABI allows of both architectures, and what syscall() itself does.
 */
#define PD_SC_WRAPPER(name, gate, wide) [SYS_##name] = {(void (*)(void))PD_WRAP(name), wide},
static const struct {
	void (*fn)(void);
	bool wide;
} pd_syscall_wrappers[PD_SYSCALL_MAP_SIZE] = {PD_SYSCALLS(PD_SC_WRAPPER)};

long pd_syscall_dispatch(long number, long a, long b, long c, long d, long e, long f)
{
	bool ours = true;
	long ret;

	if (pd_syscall_map[number] == PD_SC_FD)
		ours = pd_fd_ours((int)a);
	else if (pd_syscall_map[number] == PD_SC_FD2)
		ours = pd_load_relaxed(&pd_fd_top) != 0;
	if (!ours)
		return pd_real.syscall(number, a, b, c, d, e, f);
	ret = ((pd_syscall_fn)pd_syscall_wrappers[number].fn)(a, b, c, d, e, f);
	return pd_syscall_wrappers[number].wide ? ret : (int)ret;
}
