/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Closing may wait (base/closer.h says for whom): each close of each descriptor can, not only the
 * last one, and so can dup2 on top of it. The peer chooses the file, and whoever closes here has
 * the control side, and the lock of the descriptors' names, which every call of the program's that
 * makes a descriptor takes. There is no way to look at a descriptor that is not here yet, and none
 * to get rid of one without closing it.
 *
 * So each is looked at as soon as it has come, before it is given a name, which closes its first
 * number. Let in are files in memory and on disks, pipes, Unix stream sockets and what is no file
 * (as eventfds): nothing else is of use. Any other is a fault, and a thread of its own closes it.
 */
#include "transport/vhost/foreign.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/compiler.h"
#include "base/sys.h"
#include "transport/vhost/fs.h"

#define MEM_MAJOR 1 /* /dev/null, /dev/zero and their like */

/*
 * A file or folder: NULL when its closing is the kernel's alone, else what it is, as
 * pd_vhost_foreign_is_harmful.
 */
static const char *harmful_file(int fd)
{
	static const char *const quiet[] = {"sysfs", "proc",    "devtmpfs", "cgroup2",
					    "btrfs", "zfs",     "bcachefs", "vfat",
					    "exfat", "iso9660", "squashfs", "erofs"};
	static char why[96];
	char name[PD_VHOST_FS_NAME];

	if (pd_vhost_fs_kind(fd, name) != PD_VHOST_FS_OTHER)
		return NULL;
	for (unsigned i = 0; i < PD_ARRAY_SIZE(quiet); i++)
		if (!strcmp(name, quiet[i]))
			return NULL;
	snprintf(why, sizeof(why), "a file of %s, not tmpfs, hugetlbfs, ext4, xfs, f2fs", name);
	return why;
}

bool pd_vhost_foreign_is_stream(int fd)
{
	int domain = 0, type = 0;
	socklen_t bytes = sizeof(int);

	return !pd_sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) &&
	       !pd_sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) && domain == AF_UNIX &&
	       type == SOCK_STREAM;
}

const char *pd_vhost_foreign_is_harmful(int fd)
{
	struct statx stx;

	if (PD_SYS_5(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &stx))
		return NULL; /* before Linux 4.11; nobody can tell */
	switch (stx.stx_mode & S_IFMT) {
	case 0:
	case S_IFIFO:
		return NULL;
	case S_IFSOCK:
		return pd_vhost_foreign_is_stream(fd) ? NULL
						      : "a socket that is no Unix stream socket";
	case S_IFCHR:
		return stx.stx_rdev_major == MEM_MAJOR ? NULL : "a device";
	case S_IFBLK:
		return "a device";
	default:
		return harmful_file(fd);
	}
}
