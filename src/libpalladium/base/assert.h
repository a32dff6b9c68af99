/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Assertions of our own invariants, built in by --enable-assert and by the sanitizer builds.
 * Never use them on what a peer, a user or the host program sent.
 */
#ifndef PD_BASE_ASSERT_H
#define PD_BASE_ASSERT_H

#ifdef HAVE_CONFIG_H
#	include "config.h"
#endif

#ifdef PD_ENABLE_ASSERT
/* Print where and what, then trap. */
__attribute__((noreturn)) void pd_assert_failed(const char *file, int line, const char *what);
#	define pd_assert(cond)                                              \
		do {                                                         \
			if (!(cond))                                         \
				pd_assert_failed(__FILE__, __LINE__, #cond); \
		} while (0)
#else
#	define pd_assert(cond) ((void)sizeof(!(cond)))
#endif

#endif /* PD_BASE_ASSERT_H */
