/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The real libc functions, the names of our wrappers, and how a wrapper answers.
 *
 * pd_real.<name> can be called at any moment: until pd_real_resolve has run it is libc's own alias,
 * a raw system call, or a function that asks the loader (the first column of intercepts.def). Our
 * wrappers are C functions pd_x_<name> under the linker name <name>, so that they need not agree
 * with each libc header's attributes and inline versions; tests/preload/signatures.cc compares the
 * types.
 */
#ifndef PD_PRELOAD_REAL_H
#define PD_PRELOAD_REAL_H

#include <errno.h>
#include "base/compiler.h"
#include "base/lib.h"
#include "sock/fd.h"
#include "sock/hooks.h"

extern struct pd_real pd_real;

/* The wrappers: PD_WRAP(name) is defined as <name> for the linker. */
#define PD_WRAP(name) pd_x_##name
#define PD_CALL(early, ret, name, params, args) \
	PD_EXPORT ret PD_WRAP(name)             \
	params __asm__(#name);
#include "defs/intercepts.def"

/* Find the real functions; once, from initialisation. errno and dlerror stay as they were. */
void pd_real_resolve(void);

/* What a call of ours answers to the program: -errno becomes errno and -1. */
static inline long pd_result(long ret)
{
	if (pd_likely(ret >= 0))
		return ret;
	errno = (int)-ret;
	return -1;
}

/*
 * The socket of `fd`, which pd_fd_ours said is not simply the kernel's; or NULL with *ret set to
 * -EBADF for a descriptor of the library's own, and to PD_HOOK_PASS when the socket went away
 * meanwhile.
 */
static inline struct pd_sock *pd_ours_get(int fd, long *ret)
{
	struct pd_sock *sk = pd_fd_get(fd);

	if (pd_unlikely(!sk))
		*ret = pd_fd_is_internal(fd) ? -EBADF : PD_HOOK_PASS;
	return sk;
}

#endif /* PD_PRELOAD_REAL_H */
