/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tail jumps of preload/asm.c need.
 */
#ifndef PD_PRELOAD_ASM_H
#define PD_PRELOAD_ASM_H

#include <stdint.h>
#include <sys/types.h>

extern pid_t (*pd_real_vfork)(void);
extern long (*pd_real_syscall)(long number, ...);

/* System calls with a number below this may be dispatched to a wrapper. */
#define PD_SYSCALL_MAP_SIZE 512

/* Not 0 for a number that pd_syscall_dispatch looks at. */
extern const uint8_t pd_syscall_map[PD_SYSCALL_MAP_SIZE];

/* A call of syscall() with a number of the map, once a port is configured. */
long pd_syscall_dispatch(long number, long a, long b, long c, long d, long e, long f);

#endif /* PD_PRELOAD_ASM_H */
