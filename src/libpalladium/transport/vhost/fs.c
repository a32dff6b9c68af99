/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A page that is not in memory is asked of the file's file system, and the thread that touched it
 * waits for the answer, whatever locks it holds. Of FUSE that is a process, which may be the
 * peer's; of a network, a machine; and overlayfs stands on anything. So taken are files in memory
 * and on disks of this machine, and no others.
 *
 * Asking such a file system what it is would wait for it too (fstatfs, fstat). The kernel alone
 * answers whether a file can be sealed, which those in memory can, and by which mount it was
 * opened; what is mounted there stands in /proc/self/mountinfo. A mount that this process cannot
 * see (of another mount namespace, or no /proc) is told by its device: file systems that stand on
 * no disk have none with a number of its own, and those that do are asked.
 */
#include "transport/vhost/fs.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/compiler.h"
#include "base/internal_fd.h"
#include "base/sys.h"

/* Of <linux/fcntl.h>, which clashes with <fcntl.h> on old systems. */
#define FS_F_GET_SEALS 1034
/* What statx is asked for beyond what it always says: the mount (Linux 5.8). */
#ifdef STATX_MNT_ID
#	define FS_STATX_MASK STATX_MNT_ID
#else
#	define FS_STATX_MASK 0
#endif

/* File systems as /proc names them and as statfs numbers them; the first are local. */
static const struct fs_type {
	char name[PD_VHOST_FS_NAME];
	uint32_t magic;
} fs_types[] = {
	{"tmpfs", 0x01021994},    {"hugetlbfs", 0x958458f6}, {"ramfs", 0x858458f6},
	{"ext4", 0xef53},         {"ext3", 0xef53},          {"ext2", 0xef53},
	{"xfs", 0x58465342},      {"f2fs", 0xf2f52010},
#define FS_LOCAL 8
	{"btrfs", 0x9123683e},    {"overlay", 0x794c7630},   {"fuse", 0x65735546},
	{"nfs", 0x6969},          {"cifs", 0xff534d42},      {"9p", 0x01021997},
	{"zfs", 0x2fc12fc1},      {"bcachefs", 0xca451a4e},  {"vfat", 0x4d44},
	{"exfat", 0x2011bab0},    {"iso9660", 0x9660},       {"squashfs", 0x73717368},
	{"erofs", 0xe0f5e1e2},    {"nilfs2", 0x3434},        {"jfs", 0x3153464a},
	{"reiserfs", 0x52654973},
};

/* What statx says of `fd` without going to look; false where there is no such call (Linux 4.11). */
static bool fs_statx(int fd, struct statx *stx)
{
	return !PD_SYS_FD_5(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, FS_STATX_MASK,
			    stx);
}

bool pd_vhost_fs_is_file(int fd)
{
	struct statx stx;
	struct stat st;

	if (fs_statx(fd, &stx))
		return S_ISREG(stx.stx_mode);
	return !pd_sys_fstat(fd, &st) && S_ISREG(st.st_mode);
}

/* --- /proc/self/mountinfo ------------------------------------------------------------------ */

/* One line of it as it is read, whatever its length: "36 35 98:0 / /mnt rw shared:1 - ext3 ...". */
struct mount_line {
	unsigned field;  /* the word that is being read; behind the dash from DASH on */
	unsigned length; /* of it */
	char word[PD_VHOST_FS_NAME];
	bool is_it; /* the mount looked for */
};
#define DASH 1000000u

/*
 * A word of the line is whole. Returns true when it is the type of the mount looked for, by its
 * `id` or, where that is empty, its device.
 */
static bool mount_word(struct mount_line *l, const char *id, const char *dev)
{
	l->word[pd_min(l->length, PD_VHOST_FS_NAME - 1u)] = 0;
	if (l->field == DASH)
		return l->is_it;
	if (l->field == 0 && *id)
		l->is_it = !strcmp(l->word, id);
	if (l->field == 2 && !*id)
		l->is_it = !strcmp(l->word, dev);
	/* Behind six words; what is mounted, and where, may be called "-" too. */
	l->field = l->field > 5 && !strcmp(l->word, "-") ? DASH : l->field + 1;
	l->length = 0;
	return false;
}

/* Read on with `n` bytes. Returns true when `l->word` is the type of the mount looked for. */
static bool mount_read(struct mount_line *l, const char *bytes, size_t n, const char *id,
		       const char *dev)
{
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] == ' ' || bytes[i] == '\n') {
			if (mount_word(l, id, dev))
				return true;
			if (bytes[i] == '\n')
				memset(l, 0, sizeof(*l));
			continue;
		}
		if (l->length < sizeof(l->word) - 1)
			l->word[l->length] = bytes[i];
		l->length++;
	}
	return false;
}

/*
 * The type of the file system that `stx` is of. False when its mount is not seen from here. Under
 * pd_internal_fd_lock, as the descriptor that it opens is closed before anybody can see it.
 */
static bool mounted_type(const struct statx *stx, char name[static PD_VHOST_FS_NAME])
{
	struct mount_line line = {0};
	char id[24] = "", dev[24], bytes[2048];
	bool found = false;
	ssize_t n;
	int fd;

#ifdef STATX_MNT_ID
	if (stx->stx_mask & STATX_MNT_ID)
		snprintf(id, sizeof(id), "%llu", (unsigned long long)stx->stx_mnt_id);
#endif
	snprintf(dev, sizeof(dev), "%u:%u", stx->stx_dev_major, stx->stx_dev_minor);
	fd = pd_sys_open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	while (!found && (n = pd_sys_read(fd, bytes, sizeof(bytes))) > 0)
		found = mount_read(&line, bytes, (size_t)n, id, dev);
	pd_sys_close(fd);
	if (found)
		memcpy(name, line.word, sizeof(line.word));
	return found;
}

/* --- what is local ------------------------------------------------------------------------- */

/* True when the file system called `name` is local. */
static bool is_local_name(const char *name)
{
	for (unsigned i = 0; i < FS_LOCAL; i++)
		if (!strcmp(fs_types[i].name, name))
			return true;
	return false;
}

/* Whether the file system with this number of statfs is local; its name in `name`. */
static bool is_local_magic(uint32_t magic, char name[static PD_VHOST_FS_NAME])
{
	snprintf(name, PD_VHOST_FS_NAME, "type 0x%x", magic);
	for (unsigned i = 0; i < PD_ARRAY_SIZE(fs_types); i++) {
		if (fs_types[i].magic != magic)
			continue;
		memcpy(name, fs_types[i].name, PD_VHOST_FS_NAME);
		return i < FS_LOCAL;
	}
	return false;
}

enum pd_vhost_fs_kind pd_vhost_fs_kind(int fd, char name[static PD_VHOST_FS_NAME])
{
	struct statx stx;

	if (pd_sys_fcntl(fd, FS_F_GET_SEALS, 0) >= 0)
		return PD_VHOST_FS_LOCAL;
	snprintf(name, PD_VHOST_FS_NAME, "unknown type");
	if (!fs_statx(fd, &stx))
		return PD_VHOST_FS_ASK; /* before Linux 4.11 */
	if (mounted_type(&stx, name))
		return is_local_name(name) ? PD_VHOST_FS_LOCAL : PD_VHOST_FS_OTHER;
	return stx.stx_dev_major ? PD_VHOST_FS_ASK : PD_VHOST_FS_OTHER;
}

bool pd_vhost_fs_is_local(int fd, char name[static PD_VHOST_FS_NAME])
{
	enum pd_vhost_fs_kind kind;
	struct statfs fs;

	pd_internal_fd_lock();
	kind = pd_vhost_fs_kind(fd, name);
	pd_internal_fd_unlock();
	if (kind != PD_VHOST_FS_ASK)
		return kind == PD_VHOST_FS_LOCAL;
	return !PD_SYS_FD_2(SYS_fstatfs, fd, &fs) && is_local_magic((uint32_t)fs.f_type, name);
}
