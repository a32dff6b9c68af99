/* SPDX-License-Identifier: BSD-2-Clause */
/* Walks of directories without libc, which the library exports parts of (sys.h). */
#ifndef PD_BASE_DIR_H
#define PD_BASE_DIR_H

#include <stdbool.h>

/*
 * Call `each` for every name in the open directory `fd`, "." and ".." too, in the kernel's order. It
 * may remove the entry it is told of; a true answer ends the walk. Control path.
 */
void pd_dir_each(int fd, bool (*each)(void *ctx, const char *name), void *ctx);

#endif /* PD_BASE_DIR_H */
