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
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
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

static void where_they_are_not(void **state)
{
	int file = a_file(), proc = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char path[] = "/tmp/pd-root-XXXXXX", name[3][PD_VHOST_FS_NAME];
	enum pd_vhost_fs_kind kind[2];
	bool local[2], taken = is_taken(file);
	struct statx stx;

	if (geteuid())
		skip();
	assert_int_equal(statx(file, "", AT_EMPTY_PATH, 0, &stx), 0);
	assert_non_null(mkdtemp(path));
	assert_int_equal(chroot(path), 0);
	kind[0] = kind_of(file, name[0]);
	local[0] = pd_vhost_fs_is_local(file, name[1]);
	kind[1] = kind_of(proc, name[2]);
	local[1] = pd_vhost_fs_is_local(proc, name[2]);
	assert_int_equal(fchdir(root), 0);
	assert_int_equal(chroot("."), 0);
	assert_int_equal(fchdir(here), 0);
	rmdir(path);
	/* What is on a disk can be asked. */
	if (stx.stx_dev_major) {
		assert_int_equal(kind[0], PD_VHOST_FS_ASK);
		assert_string_equal(name[0], "unknown type");
		assert_int_equal(local[0], taken);
		assert_string_not_equal(name[1], "unknown type");
	}
	/* Not what stands on none: that may be anybody's. */
	assert_int_equal(kind[1], PD_VHOST_FS_OTHER);
	assert_string_equal(name[2], "unknown type");
	assert_false(local[1]);
	close(file);
	close(proc);
	close(root);
	close(here);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(where_mounts_are_seen),
		cmocka_unit_test(where_they_are_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
