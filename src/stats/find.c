/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finding the statistics files, in the places of places.h. Only files that belong to the user of
 * their directory, that are no links and that nobody else can read are looked at.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "find.h"
#include "../tools/places.h"

/* Read the file at `path` as a text into `text`. Returns its length or -1. */
static ssize_t pd_stats_slurp(const char *path, char *text, size_t bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, text, bytes - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n;
}

/*
 * False when the memory map of `pid` can be read and holds no file called like `path`'s last part.
 */
static bool pd_stats_maps_file(uint32_t pid, const char *path)
{
	const char *base = strrchr(path, '/');
	char name[64], *line = NULL;
	size_t size = 0;
	bool found = false;
	FILE *maps;

	snprintf(name, sizeof(name), "/proc/%u/maps", pid);
	maps = fopen(name, "re");
	if (!maps)
		return true;
	errno = 0;
	while (!found && getline(&line, &size, maps) > 0)
		found = strstr(line, base ? base : path) != NULL;
	found = found || ferror(maps);
	fclose(maps);
	free(line);
	return found;
}

enum pd_stats_life pd_stats_life_of(const struct pd_shm_owner *owner, const char *path)
{
	char name[64], text[1024], *state;
	struct stat st;
	uint64_t start;

	if (stat("/proc/self/ns/pid", &st) == 0 && owner->pidns && st.st_ino != owner->pidns)
		return PD_STATS_FOREIGN;
	snprintf(name, sizeof(name), "/proc/%u/stat", owner->pid);
	/* Asked last: a process that is there before the look may be gone in the middle of it. */
	if (pd_stats_slurp(name, text, sizeof(text)) <= 0)
		return kill((pid_t)owner->pid, 0) < 0 && errno == ESRCH ? PD_STATS_DEAD
									: PD_STATS_ALIVE;
	start = pd_shm_start_ticks(text);
	if (start && owner->start_ticks && start != owner->start_ticks)
		return PD_STATS_DEAD;
	state = strrchr(text, ')');
	if (state && (!strncmp(state, ") Z", 3) || !strncmp(state, ") X", 3)))
		return PD_STATS_DEAD;
	return path && !pd_stats_maps_file(owner->pid, path) ? PD_STATS_DEAD : PD_STATS_ALIVE;
}

/* Say on standard error why `dir`/`name` is left alone. */
static void pd_stats_refuse(struct pd_stats_list *list, const char *dir, const char *name,
			    const char *why)
{
	fprintf(stderr, "palladium_stats: %s/%s: refused: %s\n", dir, name, why);
	list->refused++;
}

/* Add a file that was opened and checked to the list. */
static void pd_stats_list_add(struct pd_stats_list *list, const struct pd_stats_found *found)
{
	struct pd_stats_found **items = realloc(list->items, (list->count + 1) * sizeof(*items));
	struct pd_stats_found *copy = malloc(sizeof(*copy));

	if (!items || !copy) {
		fprintf(stderr, "palladium_stats: out of memory\n");
		exit(1);
	}
	*copy = *found;
	list->items = items;
	list->items[list->count++] = copy;
}

/* Look at one file of the directory `dirfd` (whose path is `dir`), which belongs to `uid`. */
static void pd_stats_file_look(struct pd_stats_list *list, int dirfd, const char *dir,
			       const char *name, uid_t uid, bool clean)
{
	struct pd_stats_found found = {.uid = uid};
	struct pd_shm_owner owner;
	struct stat st;
	int fd, ret;

	if (pd_shm_name_parse(PD_SHM_FILE_PREFIX, name, &owner))
		return;
	fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		if (errno != ENOENT)
			pd_stats_refuse(list, dir, name,
					errno == ELOOP ? "a symbolic link" : strerror(errno));
		return;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != uid || st.st_mode & 077) {
		pd_stats_refuse(list, dir, name,
				"not a file of mode 0600 that belongs to the directory's owner");
		close(fd);
		return;
	}
	if (snprintf(found.path, sizeof(found.path), "%s/%s", dir, name) >=
	    (int)sizeof(found.path)) {
		close(fd);
		return;
	}
	found.life = pd_stats_life_of(&owner, NULL);
	ret = pd_stats_file_open(fd, &owner, &found.file);
	if (!ret && found.life == PD_STATS_ALIVE)
		found.life = pd_stats_life_of(&owner, found.path);
	if (found.life != PD_STATS_DEAD && !ret) {
		pd_stats_list_add(list, &found);
		return;
	}
	if (ret == -EPROTO && found.life != PD_STATS_DEAD)
		pd_stats_refuse(list, dir, name, "written by another major version of the library");
	else if (ret == -EBADMSG && found.life != PD_STATS_DEAD)
		pd_stats_refuse(list, dir, name, "damaged");
	if (!ret)
		pd_stats_file_close(&found.file);
	else
		close(fd);
	if (found.life == PD_STATS_DEAD && clean && uid == geteuid())
		unlinkat(dirfd, name, 0);
}

/* What the walk over the places is given. */
struct pd_stats_search {
	struct pd_stats_list *list;
	bool clean;
};

/* pd_stats_file_look, for pd_places_each. */
static void pd_stats_on_file(void *arg, int dirfd, const char *dir, const char *name, uid_t uid)
{
	const struct pd_stats_search *search = arg;

	pd_stats_file_look(search->list, dirfd, dir, name, uid, search->clean);
}

/* pd_stats_refuse, for pd_places_each. */
static void pd_stats_on_refused(void *arg, const char *dir, const char *name, const char *why)
{
	const struct pd_stats_search *search = arg;

	pd_stats_refuse(search->list, dir, name, why);
}

void pd_stats_find(const char *dir, bool clean, struct pd_stats_list *out)
{
	struct pd_stats_search search = {.list = out, .clean = clean};

	*out = (struct pd_stats_list){0};
	pd_places_each(dir, pd_stats_on_file, pd_stats_on_refused, &search);
}

void pd_stats_list_free(struct pd_stats_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		pd_stats_file_close(&list->items[i]->file);
		free(list->items[i]);
	}
	free(list->items);
	*list = (struct pd_stats_list){0};
}
