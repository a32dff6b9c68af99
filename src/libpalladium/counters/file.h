/* SPDX-License-Identifier: BSD-2-Clause */
/* The statistics file on disk: whose it is, where it goes, and clearing away those of the dead. */
#ifndef PD_COUNTERS_FILE_H
#define PD_COUNTERS_FILE_H

#include <stddef.h>
#include "counters/shm.h"

/* Fill in who this process is; what /proc does not tell stays 0. */
void pd_ctr_file_self(struct pd_shm_owner *self);

/*
 * Make a new file of `bytes` bytes for `self` below `dir` (as pd_ctr_open takes it) and fill it
 * with `image`, all but the first 8 bytes, the magic: the caller stores it when the file may be
 * read. Every page is written, so that a full file system shows here and not as SIGBUS later.
 * Clears away files of dead processes beside it. Returns the descriptor, open for reading and
 * writing, and its path in `path`; or -errno.
 */
int pd_ctr_file_create(const char *dir, const struct pd_shm_owner *self, const void *image,
		       size_t bytes, char *path, size_t path_bytes);

#endif /* PD_COUNTERS_FILE_H */
