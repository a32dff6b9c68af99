/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which file system a file of the peer's is on, found without asking the file system.
 */
#ifndef PD_TRANSPORT_VHOST_FS_H
#define PD_TRANSPORT_VHOST_FS_H

#include <stdbool.h>

/* Room for a name, with its NUL; a longer one is cut. */
#define PD_VHOST_FS_NAME 24

enum pd_vhost_fs_kind {
	PD_VHOST_FS_LOCAL, /* a page of the file comes without asking anybody but this kernel */
	PD_VHOST_FS_OTHER,
	PD_VHOST_FS_ASK, /* nothing tells, but it is a disk: the file system has to be asked */
};

/*
 * The kind of the file `fd` (borrowed), and where it is not local the name of its file system in
 * `name`, if that is known. Under pd_internal_fd_lock.
 */
enum pd_vhost_fs_kind pd_vhost_fs_kind(int fd, char name[static PD_VHOST_FS_NAME]);

/*
 * True when a page of the file `fd` (borrowed) comes without asking anybody but this machine's
 * kernel. False, with the name of its file system in `name`, when not or when it cannot be told.
 */
bool pd_vhost_fs_is_local(int fd, char name[static PD_VHOST_FS_NAME]);

/* True when `fd` is a regular file. */
bool pd_vhost_fs_is_file(int fd);

#endif /* PD_TRANSPORT_VHOST_FS_H */
