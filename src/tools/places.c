/* SPDX-License-Identifier: BSD-2-Clause */
/* The directories of statistics files and CLI sockets (contract in places.h). */
#include "places.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "counters/shm.h"

/* One walk. */
struct pd_places {
	pd_places_fn fn;
	pd_places_refused_fn refused;
	void *arg;
};

/* Read the open directory `fd`, which is closed with it, or now when it cannot be read: NULL. */
static DIR *pd_places_read(int fd)
{
	DIR *dir = fdopendir(fd);

	if (!dir)
		close(fd);
	return dir;
}

/* Look into BASE/palladium-UID. `basefd` is closed by the caller. */
static void pd_places_dir(const struct pd_places *w, int basefd, const char *base, const char *name,
			  uid_t uid)
{
	char path[PATH_MAX];
	struct dirent *d;
	struct stat st;
	DIR *dir;
	int fd;

	fd = openat(basefd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		if (errno != ENOENT)
			w->refused(w->arg, base, name,
				   errno == ENOTDIR || errno == ELOOP ? "not a directory"
								      : strerror(errno));
		return;
	}
	if (fstat(fd, &st) < 0 || st.st_uid != uid || st.st_mode & 077) {
		w->refused(w->arg, base, name,
			   "not a directory of mode 0700 that belongs to the user in its name");
		close(fd);
		return;
	}
	dir = pd_places_read(fd);
	if (!dir)
		return;
	snprintf(path, sizeof(path), "%s/%s", base, name);
	while ((d = readdir(dir)))
		w->fn(w->arg, fd, path, d->d_name, uid);
	closedir(dir);
}

/* Look below one DIR: our own subdirectory, or everybody's when we are root. */
static void pd_places_base(const struct pd_places *w, const char *base)
{
	int fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const size_t prefix = sizeof(PD_SHM_DIR_PREFIX) - 1;
	struct dirent *d;
	char own[64], *end;
	unsigned long uid;
	DIR *dir;

	if (fd < 0)
		return;
	snprintf(own, sizeof(own), PD_SHM_DIR_PREFIX "%u", (unsigned)geteuid());
	if (geteuid()) {
		pd_places_dir(w, fd, base, own, geteuid());
		close(fd);
		return;
	}
	dir = pd_places_read(fd);
	if (!dir)
		return;
	while ((d = readdir(dir))) {
		if (strncmp(d->d_name, PD_SHM_DIR_PREFIX, prefix) || !d->d_name[prefix])
			continue;
		uid = strtoul(d->d_name + prefix, &end, 10);
		if (!*end && uid < UINT32_MAX)
			pd_places_dir(w, fd, base, d->d_name, (uid_t)uid);
	}
	closedir(dir);
}

void pd_places_each(const char *dir, pd_places_fn fn, pd_places_refused_fn refused, void *arg)
{
	const struct pd_places w = {.fn = fn, .refused = refused, .arg = arg};
	char run[64];
	const char *places[] = {PD_SHM_DIR_FIRST, getenv("XDG_RUNTIME_DIR"), run, PD_SHM_DIR_LAST};
	struct stat seen[4], st;
	unsigned n = 0, i;

	if (dir) {
		pd_places_base(&w, dir);
		return;
	}
	snprintf(run, sizeof(run), "/run/user/%u", (unsigned)geteuid());
	for (size_t p = 0; p < sizeof(places) / sizeof(places[0]); p++) {
		if (!places[p] || stat(places[p], &st) < 0)
			continue;
		for (i = 0; i < n; i++)
			if (seen[i].st_dev == st.st_dev && seen[i].st_ino == st.st_ino)
				break;
		if (i < n)
			continue;
		seen[n++] = st;
		pd_places_base(&w, places[p]);
	}
}
