/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which file system a file of the peer's is on, found without asking the file system.
 */
#ifndef PD_TRANSPORT_VHOST_FS_H
#define PD_TRANSPORT_VHOST_FS_H

#include <stdbool.h>

/* Room for a name, with its NUL; a longer one is cut. */
#define PD_VHOST_FS_NAME 24

/*
 * True when a page of the file `fd` (borrowed) comes without asking anybody but this machine's
 * kernel. False, with the name of its file system in `name`, when not or when it cannot be told.
 */
bool pd_vhost_fs_is_local(int fd, char name[static PD_VHOST_FS_NAME]);

/* True when `fd` is a regular file. */
bool pd_vhost_fs_is_file(int fd);

#endif /* PD_TRANSPORT_VHOST_FS_H */
