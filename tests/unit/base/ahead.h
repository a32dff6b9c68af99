/* SPDX-License-Identifier: BSD-2-Clause */
/* For tests: the clock of everything in this process may be put forward. Include it once. */
#ifndef PD_TESTS_UNIT_BASE_AHEAD_H
#define PD_TESTS_UNIT_BASE_AHEAD_H

#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

static uint64_t ahead_ns; /* by so much */

/* In place of libc's. */
int clock_gettime(clockid_t clock, struct timespec *ts)
{
	long ret = syscall(SYS_clock_gettime, clock, ts);
	uint64_t ns = (uint64_t)ts->tv_nsec + ahead_ns;

	ts->tv_sec += (time_t)(ns / PD_NS_PER_SEC);
	ts->tv_nsec = (long)(ns % PD_NS_PER_SEC);
	return (int)ret;
}

#endif /* PD_TESTS_UNIT_BASE_AHEAD_H */
