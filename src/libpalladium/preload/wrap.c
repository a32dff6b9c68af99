/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The wrappers that the table makes: a load, a test and a jump for whatever is the kernel's.
 */
#include <pthread.h>

#include "preload/real.h"

/*
 * A call on a descriptor of ours, out of line. `test` is pthread_testcancel for cancellation
 * points: the call itself is none, so a request that came before is honoured here.
 */
#define PD_WRAP_FD(ret, name, params, args, test)                       \
	static PD_NOINLINE ret pd_ours_##name(int fd, PD_ARGS params)   \
	{                                                               \
		struct pd_sock *pd_sk;                                  \
		long pd_ret = 0;                                        \
                                                                        \
		test;                                                   \
		pd_lib_enter();                                         \
		pd_sk = pd_ours_get(fd, &pd_ret);                       \
		if (pd_likely(pd_sk)) {                                 \
			pd_ret = pd_sk->ops->name(pd_sk, PD_ARGS args); \
			pd_fd_put(pd_sk);                               \
		}                                                       \
		pd_lib_leave();                                         \
		if (pd_unlikely(pd_ret == PD_HOOK_PASS))                \
			return pd_real.name(fd, PD_ARGS args);          \
		return (ret)pd_result(pd_ret);                          \
	}                                                               \
                                                                        \
	ret PD_WRAP(name)(int fd, PD_ARGS params)                       \
	{                                                               \
		if (pd_likely(!pd_fd_ours(fd)))                         \
			return pd_real.name(fd, PD_ARGS args);          \
		return pd_ours_##name(fd, PD_ARGS args);                \
	}
#define PD_FD(early, ret, name, params, args, err) PD_WRAP_FD(ret, name, params, args, (void)0)
#define PD_FDC(early, ret, name, params, args, err) \
	PD_WRAP_FD(ret, name, params, args, pthread_testcancel())

/*
 * A call that a hook decides, behind its gate; `fresh` is pd_fd_fresh when the result is a
 * descriptor.
 */
#define PD_WRAP_HOOK(gate, ret, name, params, args, fresh)        \
	static PD_NOINLINE ret pd_hooked_##name params            \
	{                                                         \
		long pd_ret;                                      \
                                                                  \
		pd_lib_enter();                                   \
		pd_ret = pd_hooks.name args;                      \
		pd_lib_leave();                                   \
		if (pd_ret == PD_HOOK_PASS)                       \
			return fresh(pd_real.name args);          \
		return (ret)pd_result(pd_ret);                    \
	}                                                         \
                                                                  \
	ret PD_WRAP(name) params                                  \
	{                                                         \
		if (pd_likely(!pd_load_acquire(&pd_gate_##gate))) \
			return pd_real.name args;                 \
		return pd_hooked_##name args;                     \
	}
#define PD_HOOK(early, gate, ret, name, params, args) PD_WRAP_HOOK(gate, ret, name, params, args, )
#define PD_HOOKFD(early, gate, ret, name, params, args) \
	PD_WRAP_HOOK(gate, ret, name, params, args, pd_fd_fresh)

/* A call that makes a descriptor. */
#define PD_NEWFD(early, ret, name, params, args)       \
	ret PD_WRAP(name) params                       \
	{                                              \
		return pd_fd_fresh(pd_real.name args); \
	}

/* A call that is passed on. */
#define PD_PASS(early, ret, name, params, args) \
	ret PD_WRAP(name) params                \
	{                                       \
		return pd_real.name args;       \
	}

#include "defs/intercepts.def"
