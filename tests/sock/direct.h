/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A test program without the preload: its calls go straight to the socket layer, linked from libpd,
 * so that a sanitizer sees both. What preload/ does around a call (errno, the table) is done here
 * in a few lines. Signals are not deferred.
 */
#ifndef PD_TESTS_SOCK_DIRECT_H
#define PD_TESTS_SOCK_DIRECT_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/sys.h"
#include "config/config.h"
#include "config/vars.h"
#include "sock/fd.h"
#include "sock/hooks.h"
#include "sock/layer.h"

static inline long direct_result(long ret)
{
	if (ret >= 0)
		return ret;
	errno = (int)-ret;
	return -1;
}

/* Call a slot of the socket at `fd`; a descriptor of the kernel's answers ENOTSOCK. */
#define DIRECT(fd, slot, ...)                                                      \
	({                                                                         \
		struct pd_sock *direct_sk = pd_fd_get(fd);                         \
		long direct_ret = -ENOTSOCK;                                       \
		if (direct_sk) {                                                   \
			direct_ret = direct_sk->ops->slot(direct_sk, __VA_ARGS__); \
			pd_fd_put(direct_sk);                                      \
		}                                                                  \
		direct_result(direct_ret);                                         \
	})

/* Ask a hook; what it passes on goes to the system call. */
#define DIRECT_HOOK(name, pass, ...)                                             \
	({                                                                       \
		long direct_ret = pd_hooks.name(__VA_ARGS__);                    \
		direct_result(direct_ret == PD_HOOK_PASS ? (pass) : direct_ret); \
	})

static inline int direct_close(int fd)
{
	pd_fd_remove(fd);
	return (int)direct_result(pd_sys_close(fd));
}

static inline int direct_dup(int fd)
{
	struct pd_sock *sk = pd_fd_get(fd);
	int made = pd_sys_fcntl(fd, F_DUPFD, 0);

	if (made >= 0)
		pd_fd_fresh(made);
	if (sk) {
		if (made >= 0 && pd_fd_install(made, sk) < 0) {
			pd_sys_close(made);
			made = -1;
		}
		pd_fd_put(sk);
	}
	return made;
}

/* Start the library with these ports. */
static inline void direct_start(const char *ports)
{
	struct pd_config *config;

	setenv("PALLADIUM_PORTS", ports, 1);
	setenv("PALLADIUM_CONFIG_FILE", "/dev/null", 1);
	setenv("PALLADIUM_TRACELEVEL", "error", 1);
	pd_vars_load();
	if (pd_config_load(&config))
		abort();
	pd_fd_adopt();
	if (pd_sock_layer_start(config))
		abort();
}

#define socket(d, t, p) ((int)DIRECT_HOOK(socket, -EPERM, d, t, p))
#define if_nametoindex(name) ((unsigned)pd_hooks.if_nametoindex(name))
#define bind(fd, a, n) ((int)DIRECT(fd, bind, a, n))
#define send(fd, b, n, f) DIRECT(fd, send, b, n, f)
#define recv(fd, b, n, f) DIRECT(fd, recv, b, n, f)
#define setsockopt(fd, l, o, v, n) ((int)DIRECT(fd, setsockopt, l, o, v, n))
#define ioctl(fd, r, a) ((int)DIRECT(fd, ioctl, r, a))
#define close(fd) direct_close(fd)
#define dup(fd) direct_dup(fd)
#define poll(p, n, t) \
	((int)DIRECT_HOOK(poll, pd_sys_ppoll(p, n, &(struct timespec){0, 0}, NULL), p, n, t))
#define select(n, r, w, x, t) ((int)DIRECT_HOOK(select, -EBADF, n, r, w, x, t))
#define epoll_create1(f) ((int)DIRECT_HOOK(epoll_create1, -ENFILE, f))
#define epoll_ctl(e, o, fd, v) \
	((int)DIRECT_HOOK(epoll_ctl, pd_sys_epoll_ctl(e, o, fd, v), e, o, fd, v))
#define epoll_wait(e, v, n, t) \
	((int)DIRECT_HOOK(epoll_wait, pd_sys_epoll_pwait(e, v, n, 0, NULL), e, v, n, t))

#endif /* PD_TESTS_SOCK_DIRECT_H */
