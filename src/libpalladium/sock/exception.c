/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls without an answer.
 *
 * VMA takes a socket back to the kernel then. Here that makes sense for a socket that is bound to
 * no port and has moved no frame: the kernel does not know the ports. Any other keeps its port, and
 * its call fails, as it would on a kernel without the feature.
 */
#include "sock/exception.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "config/vars.h"
#include "sock/hooks.h"

/* Take the socket to the kernel if that can be. Returns NULL, or why not. */
static const char *pd_exception_leave(struct pd_packet *s, bool kernel_may)
{
	int ret;

	if (!kernel_may)
		return "a port is what it is about";
	if (pd_load_acquire(&s->port))
		return "the kernel does not know the port that the socket is bound to";
	if (pd_load_relaxed(&s->used))
		return "frames have passed by a port";
	ret = pd_packet_leave(s);
	return ret ? pd_strerror(ret) : NULL;
}

int pd_exception(struct pd_packet *s, int ret, bool kernel_may, const char *fmt, ...)
{
	const int mode = pd_vars.exception_handling, fd = s->fd;
	const enum pd_log_level level =
		mode >= PD_EXCEPTION_LEAVE_LOUDLY ? PD_LOG_ERROR : PD_LOG_DEBUG;
	const char *why;
	char call[100];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(call, sizeof(call), fmt, ap);
	va_end(ap);
	switch (mode) {
	case PD_EXCEPTION_LEAVE:
	case PD_EXCEPTION_LEAVE_LOUDLY:
		why = pd_exception_leave(s, kernel_may);
		if (!why) {
			pd_log_ratelimited(level, "exception",
					   "fd %d: %s is not supported: the socket is the "
					   "kernel's from here on",
					   fd, call);
			return (int)PD_HOOK_PASS;
		}
		pd_log_ratelimited(
			level, "exception",
			"fd %d: %s is not supported, and the kernel cannot help (%s): %s", fd, call,
			why, pd_strerror(ret));
		return ret;
	case PD_EXCEPTION_ABORT:
		pd_err("exception", "fd %d: %s is not supported: the program ends", fd, call);
		abort();
	default:
		pd_log_ratelimited(level, "exception", "fd %d: %s is not supported: %s", fd, call,
				   pd_strerror(ret));
		return ret;
	}
}

int pd_exception_setsockopt(struct pd_sock *sk, int level, int name, const void *val, socklen_t len)
{
	int ret = pd_packet_setsockopt(sk, level, name, val, len);

	if (pd_likely(ret != -ENOPROTOOPT))
		return ret;
	return pd_exception(pd_packet_of(sk), ret, true, "setsockopt of level %d, option %d", level,
			    name);
}

int pd_exception_getsockopt(struct pd_sock *sk, int level, int name, void *val, socklen_t *len)
{
	int ret = pd_packet_getsockopt(sk, level, name, val, len);

	if (pd_likely(ret != -ENOPROTOOPT))
		return ret;
	return pd_exception(pd_packet_of(sk), ret, true, "getsockopt of level %d, option %d", level,
			    name);
}
