/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A Unix socket that has a path: making its file or reaching the one that is there, and who is at
 * the other end.
 *
 * Descriptors are names of base/internal_fd.h. Errors are -errno, or minus one of the PATH_* below
 * it.
 */
#ifndef PD_CONFIG_PATH_H
#define PD_CONFIG_PATH_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/un.h>

#include "config/config.h"

/* With its NUL. */
#define PD_PATH_BYTES sizeof(((struct sockaddr_un *)0)->sun_path)

/* Which file we made. */
struct pd_path_id {
	dev_t dev;
	ino_t ino;
};

/*
 * Listen at `path`, where nothing stands or the socket of a listener that is gone; the file has the
 * mode, owner and group of `access` before anybody can connect. Returns the socket or an error; *id
 * is set on success.
 */
int pd_path_listen(const char *path, const struct pd_conf_access *access, struct pd_path_id *id);

/* Remove the file at `path` if it is still the one we made. */
void pd_path_remove(const char *path, const struct pd_path_id *id);

/*
 * Connect to `path`. Returns the socket or an error, also when the other end is none that `access`
 * lets in.
 */
int pd_path_connect(const char *path, const struct pd_conf_access *access);

/*
 * True when who is at the other end of the connected socket `fd` may be there; *uid is set to the
 * user it runs as.
 */
bool pd_path_admits(const struct pd_conf_access *access, int fd, uid_t *uid);

/* The errno value of an error, 0 when it comes of none. */
int pd_path_errno(int err);

/* What an error means: a sentence's end. `err` is negative. */
const char *pd_path_strerror(int err);

#endif /* PD_CONFIG_PATH_H */
