/* SPDX-License-Identifier: BSD-2-Clause */
/* Finding the programs that can be talked to (contract in targets.h). */
#include "targets.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../tools/places.h"
#include "counters/shm.h"

/* A program that does not say who it is by then is listed as one that does not answer. */
#define HELLO_MS 2000

/* One search. */
struct search {
	struct pd_ctl_targets *out;
	long pid;
	const char *name;
};

const char *pd_ctl_user(uid_t uid)
{
	struct passwd *p = getpwuid(uid);
	static char number[24];

	if (p)
		return p->pw_name;
	snprintf(number, sizeof(number), "%u", (unsigned)uid);
	return number;
}

/* Ask the socket of `t` who it is. Returns false when nobody is there any more. */
static bool ask(struct pd_ctl_target *t)
{
	struct pd_ctl *c = malloc(sizeof(*c));

	if (!c) {
		fprintf(stderr, "palladium_ctl: out of memory\n");
		exit(1);
	}
	t->answers = !pd_ctl_connect(c, t->path, HELLO_MS, t->error);
	if (t->answers) {
		snprintf(t->program, sizeof(t->program), "%s", c->program);
		snprintf(t->version, sizeof(t->version), "%s", c->version);
		pd_ctl_close(c);
	}
	free(c);
	return t->answers || (errno != ECONNREFUSED && errno != ENOENT);
}

/* Look at one entry of a directory; for pd_places_each. */
static void look(void *arg, int dirfd, const char *dir, const char *name, uid_t uid)
{
	const struct search *s = arg;
	struct pd_ctl_target t = {.uid = uid}, *items;
	struct pd_shm_owner owner;
	struct stat st;

	if (pd_shm_name_parse(PD_SHM_CLI_PREFIX, name, &owner) ||
	    (s->pid && owner.pid != (uint32_t)s->pid))
		return;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISSOCK(st.st_mode) ||
	    st.st_uid != uid)
		return;
	t.pid = (int)owner.pid;
	if (snprintf(t.path, sizeof(t.path), "%s/%s", dir, name) >= (int)sizeof(t.path) || !ask(&t))
		return;
	if (s->name && (!t.answers || fnmatch(s->name, t.program, 0)))
		return;
	items = realloc(s->out->items, (s->out->n + 1) * sizeof(*items));
	if (!items) {
		fprintf(stderr, "palladium_ctl: out of memory\n");
		exit(1);
	}
	s->out->items = items;
	items[s->out->n++] = t;
}

/* A directory is left alone; for pd_places_each. */
static void refused(void *arg, const char *dir, const char *name, const char *why)
{
	(void)arg;
	fprintf(stderr, "palladium_ctl: %s/%s: refused: %s\n", dir, name, why);
}

void pd_ctl_targets_find(const char *dir, long pid, const char *name, struct pd_ctl_targets *out)
{
	struct search s = {.out = out, .pid = pid, .name = name};

	*out = (struct pd_ctl_targets){0};
	pd_places_each(dir, look, refused, &s);
}

void pd_ctl_targets_free(struct pd_ctl_targets *targets)
{
	free(targets->items);
	*targets = (struct pd_ctl_targets){0};
}

/* Whether the library is in the memory of process `pid`, as far as that can be seen. */
static bool is_preloaded(long pid)
{
	char path[64], *line = NULL;
	bool found = false;
	size_t size = 0;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%ld/maps", pid);
	maps = fopen(path, "re");
	if (!maps)
		return true;
	while (!found && getline(&line, &size, maps) > 0)
		found = strstr(line, "/libpalladium.so") != NULL;
	free(line);
	fclose(maps);
	return found;
}

void pd_ctl_targets_none(const char *dir, long pid, const char *name)
{
	char path[64];
	struct stat st;

	fprintf(stderr, "palladium_ctl: ");
	snprintf(path, sizeof(path), "/proc/%ld", pid);
	if (pid && stat(path, &st) < 0)
		fprintf(stderr, "there is no process %ld\n", pid);
	else if (pid && geteuid() && st.st_uid != geteuid())
		fprintf(stderr, "process %ld belongs to %s: only that user and root may look\n",
			pid, pd_ctl_user(st.st_uid));
	else if (pid && !is_preloaded(pid))
		fprintf(stderr, "process %ld runs without libpalladium\n", pid);
	else if (pid)
		fprintf(stderr,
			"process %ld has no debug CLI%s%s: it has not used a port yet, runs with "
			"PALLADIUM_CLI=off, or its library is older than the CLI\n",
			pid, dir ? " below " : "", dir ? dir : "");
	else if (name)
		fprintf(stderr, "no process called '%s' has a debug CLI\n", name);
	else
		fprintf(stderr, "no process has a debug CLI%s%s\n", dir ? " below " : "",
			dir ? dir : "");
}
