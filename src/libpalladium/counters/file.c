/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The statistics file: creation and clearing.
 *
 * DIR/palladium-UID/stats.PID.START.PIDNS.RANDOM. The subdirectory must be a real directory of mode
 * 0700 that belongs to us, so nobody else can put a name into it; the file is made with O_EXCL and
 * O_NOFOLLOW all the same. DIR may be world-writable (/dev/shm, /tmp): somebody who puts his own
 * palladium-UID there first gains nothing but that the next directory of the list is used.
 *
 * /dev/shm comes before $XDG_RUNTIME_DIR because the reader must find the file from any session:
 * the variable differs between a login, sudo and a daemon, and the directory goes with the last
 * logout.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/dir.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/quiet.h"
#include "base/sys.h"
#include "base/textfile.h"
#include "counters/file.h"

/* How many names one start looks at in its directory: a bound, not a promise. */
#define PD_CTR_CLEAN_MAX 4096

/* The start time of process `pid` as /proc tells it, in clock ticks since boot; 0 when it does not.
 */
static uint64_t pd_ctr_start_of(uint32_t pid)
{
	char path[64], text[1024];

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	return pd_textfile_read(path, text, sizeof(text)) ? 0 : pd_shm_start_ticks(text);
}

void pd_ctr_file_self(struct pd_shm_owner *self)
{
	struct stat st;
	int fd = pd_internal_fd(pd_sys_open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC, 0));

	self->pid = (uint32_t)pd_sys_getpid();
	self->start_ticks = pd_ctr_start_of(self->pid);
	self->pidns = 0;
	if (fd < 0)
		return;
	if (!pd_sys_fstat(fd, &st))
		self->pidns = st.st_ino;
	pd_sys_close(fd);
}

/*
 * True when the process that a file's name tells of is gone. Files of other PID namespaces are
 * never judged. Our own pid and start time with a file we did not make: what we were before an
 * exec.
 */
static bool pd_ctr_is_stale(const struct pd_shm_owner *file, const struct pd_shm_owner *self)
{
	uint64_t start;

	if (file->pidns != self->pidns)
		return false;
	if (file->pid == self->pid)
		return true;
	if (pd_sys_kill((pid_t)file->pid, 0) == -ESRCH)
		return true;
	start = pd_ctr_start_of(file->pid);
	return start && file->start_ticks && start != file->start_ticks;
}

/* A directory that is being cleaned. */
struct pd_ctr_cleaning {
	int dirfd;
	const char *prefix;
	const struct pd_shm_owner *self;
	unsigned seen; /* entries */
};

/* One entry; for pd_dir_each. */
static bool pd_ctr_clean_entry(void *arg, const char *name)
{
	struct pd_ctr_cleaning *c = arg;
	struct pd_shm_owner file;

	if (!pd_shm_name_parse(c->prefix, name, &file) && pd_ctr_is_stale(&file, c->self) &&
	    !pd_sys_unlinkat(c->dirfd, name, 0))
		pd_debug("counters", "removed %s: its process is gone", name);
	return ++c->seen >= PD_CTR_CLEAN_MAX;
}

void pd_ctr_clean(int dirfd, const char *prefix, const struct pd_shm_owner *self)
{
	struct pd_ctr_cleaning c = {.dirfd = dirfd, .prefix = prefix, .self = self};

	pd_dir_each(dirfd, pd_ctr_clean_entry, &c);
}

/* True when the open directory `fd` is ours; with `alone`, also when nobody else may look inside.
 */
static bool pd_ctr_dir_is_ours(int fd, bool alone)
{
	struct stat st;

	return !pd_sys_fstat(fd, &st) && S_ISDIR(st.st_mode) && st.st_uid == pd_sys_geteuid() &&
	       !(st.st_mode & (alone ? 077 : 022));
}

/*
 * Open (make, if need be) BASE/palladium-UID and write its path to `path`. With `base_ours` BASE
 * itself must belong to us too. Returns its descriptor or -errno: -EPERM when somebody else's
 * directory, a link or a too open one stands there.
 */
static int pd_ctr_dir_try(const char *base, bool base_ours, char *path, size_t path_bytes)
{
	char sub[32];
	int base_fd, fd, ret;

	snprintf(sub, sizeof(sub), PD_SHM_DIR_PREFIX "%u", (unsigned)pd_sys_geteuid());
	ret = snprintf(path, path_bytes, "%s/%s", base, sub);
	if (ret < 0 || (size_t)ret >= path_bytes)
		return -ENAMETOOLONG;
	base_fd = pd_internal_fd(pd_sys_open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
	if (base_fd < 0)
		return base_fd;
	ret = -EPERM;
	if (base_ours && !pd_ctr_dir_is_ours(base_fd, false))
		goto out_close;
	ret = pd_sys_mkdirat(base_fd, sub, 0700);
	if (ret < 0 && ret != -EEXIST)
		goto out_close;
	fd = pd_internal_fd(
		pd_sys_openat(base_fd, sub, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0));
	ret = fd == -ENOTDIR || fd == -ELOOP ? -EPERM : fd;
	if (fd >= 0 && !pd_ctr_dir_is_ours(fd, true)) {
		pd_sys_close(fd);
		ret = -EPERM;
	}
out_close:
	pd_sys_close(base_fd);
	return ret;
}

/* Write `image` but for its first 8 bytes to the new file `fd`. Returns 0 or -errno. */
static int pd_ctr_file_fill(int fd, const char *image, size_t bytes)
{
	size_t at = 8;
	ssize_t n;

	while (at < bytes) {
		n = pd_sys_pwrite(fd, image + at, bytes - at, (off_t)at);
		if (n == -EINTR)
			continue;
		if (n <= 0)
			return n ? (int)n : -ENOSPC;
		at += (size_t)n;
	}
	return 0;
}

void pd_ctr_file_name(const char *prefix, const struct pd_shm_owner *self, uint64_t random,
		      char *name, size_t bytes)
{
	snprintf(name, bytes, "%s%u.%llu.%llu.%llx", prefix, self->pid,
		 (unsigned long long)self->start_ticks, (unsigned long long)self->pidns,
		 (unsigned long long)random);
}

/* Make and fill the file in the open directory `dirfd`; `path` holds the directory's path and gets
 * the file's. */
static int pd_ctr_file_make(int dirfd, const struct pd_shm_owner *self, const void *image,
			    size_t bytes, char *path, size_t path_bytes)
{
	size_t len = strlen(path);
	uint64_t random = 0;
	char name[128];
	int fd, ret;

	pd_sys_getrandom(&random, sizeof(random), 1 /* GRND_NONBLOCK: early in boot 0 will do */);
	pd_ctr_file_name(PD_SHM_FILE_PREFIX, self, random, name, sizeof(name));
	if (len + 1 + strlen(name) >= path_bytes)
		return -ENAMETOOLONG;
	fd = pd_internal_fd(pd_sys_openat(
		dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
	if (fd < 0)
		return fd;
	ret = pd_ctr_file_fill(fd, image, bytes);
	if (ret < 0) {
		pd_sys_unlinkat(dirfd, name, 0);
		pd_sys_close(fd);
		return ret;
	}
	snprintf(path + len, path_bytes - len, "/%s", name);
	return fd;
}

int pd_ctr_dir_each(const char *dir, int (*fn)(int dirfd, char *path, size_t path_bytes, void *arg),
		    void *arg, char *path, size_t path_bytes)
{
	const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
	const char *tries[] = {PD_SHM_DIR_FIRST, runtime, PD_SHM_DIR_LAST};
	size_t n = dir ? 1 : PD_ARRAY_SIZE(tries);
	int dirfd, ret = -ENOENT;

	if (dir)
		tries[0] = dir;
	for (size_t i = 0; i < n; i++) {
		if (!tries[i] || (!dir && tries[i][0] != '/'))
			continue;
		ret = dirfd =
			pd_ctr_dir_try(tries[i], !dir && tries[i] == runtime, path, path_bytes);
		if (dirfd >= 0) {
			ret = fn(dirfd, path, path_bytes, arg);
			pd_sys_close(dirfd);
		}
		if (ret >= 0)
			break;
		pd_debug("counters", "%s: not there: %s", tries[i], pd_strerror(ret));
	}
	return ret;
}

/* What the file is made of. */
struct pd_ctr_file_job {
	const struct pd_shm_owner *self;
	const void *image;
	size_t bytes;
};

/* One directory of the list: clear it, make the file in it. Returns the descriptor or -errno. */
static int pd_ctr_file_try(int dirfd, char *path, size_t path_bytes, void *arg)
{
	const struct pd_ctr_file_job *job = arg;

	pd_ctr_clean(dirfd, PD_SHM_FILE_PREFIX, job->self);
	return pd_ctr_file_make(dirfd, job->self, job->image, job->bytes, path, path_bytes);
}

int pd_ctr_file_create(const char *dir, const struct pd_shm_owner *self, const void *image,
		       size_t bytes, char *path, size_t path_bytes)
{
	struct pd_ctr_file_job job = {.self = self, .image = image, .bytes = bytes};

	if (!pd_quiet_size_is_allowed(bytes))
		return -EFBIG;
	return pd_ctr_dir_each(dir, pd_ctr_file_try, &job, path, path_bytes);
}
