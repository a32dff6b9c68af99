/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The statistics file on disk: whose it is, where it goes, and clearing away those of the dead. The
 * socket of the debug CLI stands beside it and is named like it.
 */
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

/*
 * Call `fn` with the open directory palladium-UID, made if need be, below `dir` or, when that is
 * NULL, below each place of the list until one call returns no error. `path` (of `path_bytes`)
 * holds the directory's path in the call, and what the call made of it afterwards. Returns what the
 * last call did, or the -errno that kept the last directory from being opened.
 */
int pd_ctr_dir_each(const char *dir, int (*fn)(int dirfd, char *path, size_t path_bytes, void *arg),
		    void *arg, char *path, size_t path_bytes);

/* Remove what is called PREFIX and the name of a dead process from the directory `dirfd`. */
void pd_ctr_clean(int dirfd, const char *prefix, const struct pd_shm_owner *self);

/* Write the name PREFIX with PID.START.PIDNS.RANDOM of `self`. */
void pd_ctr_file_name(const char *prefix, const struct pd_shm_owner *self, uint64_t random,
		      char *name, size_t bytes);

#endif /* PD_COUNTERS_FILE_H */
