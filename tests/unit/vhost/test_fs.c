/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether a file's pages come from this machine: where the mounts are seen, and where they are not
 * (in a root that has no /proc).
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/internal_fd.h"
#include "transport/vhost/fs.h"

static enum pd_vhost_fs_kind kind_of(int fd, char name[static PD_VHOST_FS_NAME])
{
	enum pd_vhost_fs_kind kind;

	pd_internal_fd_lock();
	kind = pd_vhost_fs_kind(fd, name);
	pd_internal_fd_unlock();
	return kind;
}

/* An unlinked file on the disk that the tests are built on, or in memory if that is where. */
static int a_file(void)
{
	char path[] = "./pd-fs-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	assert_true(fd >= 0);
	unlink(path);
	return fd;
}

/* The number that statfs has for the type of it, of those that are taken. */
static bool is_taken(int fd)
{
	static const uint32_t taken[] = {0x01021994, 0x958458f6, 0x858458f6,
					 0xef53,     0x58465342, 0xf2f52010};
	struct statfs fs;

	assert_int_equal(fstatfs(fd, &fs), 0);
	for (size_t i = 0; i < sizeof(taken) / sizeof(*taken); i++)
		if ((uint32_t)fs.f_type == taken[i])
			return true;
	return false;
}

static void where_mounts_are_seen(void **state)
{
	char name[PD_VHOST_FS_NAME];
	int fd;

	fd = memfd_create("peer", MFD_CLOEXEC);
	assert_int_equal(kind_of(fd, name), PD_VHOST_FS_LOCAL);
	assert_true(pd_vhost_fs_is_file(fd));
	assert_true(pd_vhost_fs_is_local(fd, name));
	close(fd);
	fd = a_file();
	assert_int_equal(kind_of(fd, name), is_taken(fd) ? PD_VHOST_FS_LOCAL : PD_VHOST_FS_OTHER);
	assert_int_equal(pd_vhost_fs_is_local(fd, name), is_taken(fd));
	close(fd);
	fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	assert_int_equal(kind_of(fd, name), PD_VHOST_FS_OTHER);
	assert_string_equal(name, "proc");
	assert_false(pd_vhost_fs_is_local(fd, name));
	close(fd);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_false(pd_vhost_fs_is_file(fd));
	close(fd);
}

/* What a child says of a file that it has from outside: 0, or the number of what was not so. */
static int look_from_elsewhere(int file, int proc, bool taken, bool on_disk)
{
	char name[PD_VHOST_FS_NAME] = "";
	struct statfs fs;
	char number[PD_VHOST_FS_NAME];

	if (!pd_vhost_fs_is_file(file) || fstatfs(file, &fs))
		return 1;
	if (on_disk) {
		/* It can be asked, as it is on a disk. */
		if (kind_of(file, name) != PD_VHOST_FS_ASK)
			return 2;
		if (pd_vhost_fs_is_local(file, name) != taken)
			return 3;
		snprintf(number, sizeof(number), "type 0x%x", (unsigned)fs.f_type);
		if (taken && !strcmp(name, number))
			return 4;
	}
	/* Not what stands on none: that may be anybody's. */
	if (kind_of(proc, name) != PD_VHOST_FS_OTHER || strcmp(name, "unknown type"))
		return 5;
	return pd_vhost_fs_is_local(proc, name) ? 6 : 0;
}

static void where_they_are_not(void **state)
{
	int file = a_file(), proc = open("/proc/self/maps", O_RDONLY | O_CLOEXEC), status;
	char path[] = "/tmp/pd-root-XXXXXX";
	bool taken = is_taken(file);
	struct statx stx;
	pid_t child;

	if (geteuid())
		skip();
	assert_int_equal(statx(file, "", AT_EMPTY_PATH, 0, &stx), 0);
	assert_non_null(mkdtemp(path));
	child = fork();
	if (!child)
		_exit(chroot(path) || chdir("/")
			      ? 99
			      : look_from_elsewhere(file, proc, taken, stx.stx_dev_major));
	assert_int_equal(waitpid(child, &status, 0), child);
	rmdir(path);
	assert_int_equal(status, 0);
	close(file);
	close(proc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(where_mounts_are_seen),
		cmocka_unit_test(where_they_are_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
