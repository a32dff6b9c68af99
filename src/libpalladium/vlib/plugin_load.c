/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finding and opening the files of plug-ins (contract in plugin.h).
 *
 * A plug-in runs with the program's rights, so nobody else may be able to put one there: the file,
 * its directory and every directory above must belong to root or to the user that the program runs
 * as, and only they may write there; above the directory itself a sticky one (/tmp) will do, in
 * which nobody renames what is another's. Links are followed first, and what is checked is what is
 * opened.
 *
 * Each file has its names to itself (RTLD_LOCAL), and all that it needs must be there (RTLD_NOW).
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/dir.h"
#include "base/log.h"
#include "base/sys.h"
#include "vlib/plugin.h"

/* Files of one directory, at most. */
#define PD_PLUGIN_FILES_MAX 256
#define PD_PLUGIN_SUFFIX ".so"

/* --- who can write there --------------------------------------------------------------------- */

/* What stands at `path`, without links: why others could change it, or NULL. */
static const char *pd_plugin_open_to_others(const char *path, bool above)
{
	struct stat st;

	if (pd_sys_lstat(path, &st))
		return "cannot be looked at";
	if (st.st_uid && st.st_uid != pd_sys_geteuid())
		return "belongs to another user";
	if (st.st_mode & (S_IWGRP | S_IWOTH) &&
	    !(above && S_ISDIR(st.st_mode) && st.st_mode & S_ISVTX))
		return "can be written by others";
	return NULL;
}

/*
 * Whether others could change the file `path`, which is absolute and without links; said in the log
 * then.
 */
static bool pd_plugin_is_safe(const char *path)
{
	char part[PATH_MAX];
	const char *why = pd_plugin_open_to_others(path, false);
	bool above = false;
	char *slash;

	snprintf(part, sizeof(part), "%s", path);
	while (!why && (slash = strrchr(part, '/'))) {
		slash[slash == part] = 0; /* of the last one, "/" is left */
		why = pd_plugin_open_to_others(part, above);
		above = true;
		if (why || slash == part)
			break;
	}
	if (why)
		pd_err("plugin", "%s is not loaded: %s %s", path, part, why);
	return !why;
}

/* --- files ----------------------------------------------------------------------------------- */

/* Load the file `path`. */
static void pd_plugin_load_file(const char *path)
{
	char *real = realpath(path, NULL);
	const struct palladium_plugin *table;
	void *handle = NULL;

	if (!real) {
		pd_err("plugin", "%s is not loaded: %s", path, pd_strerror(-errno));
		return;
	}
	if (pd_plugin_is_safe(real)) {
		handle = dlopen(real, RTLD_NOW | RTLD_LOCAL);
		if (!handle)
			pd_err("plugin", "%s is not loaded: %s", path, dlerror());
	}
	table = handle ? dlsym(handle, "palladium_plugin") : NULL;
	if (handle && !table)
		pd_err("plugin", "%s is not loaded: it has no palladium_plugin, so it is none",
		       path);
	if (handle && (!table || !pd_plugin_add(path, handle, table)))
		dlclose(handle);
	free(real);
}

/* The names of a directory. */
struct pd_plugin_names {
	unsigned n;
	char *name[PD_PLUGIN_FILES_MAX];
};

/* Keep a name that ends as plug-ins do; for pd_dir_each. */
static bool pd_plugin_note_name(void *ctx, const char *name)
{
	struct pd_plugin_names *names = ctx;
	size_t len = strlen(name), end = strlen(PD_PLUGIN_SUFFIX);

	if (len <= end || *name == '.' || strcmp(name + len - end, PD_PLUGIN_SUFFIX))
		return false;
	if (names->n == PD_PLUGIN_FILES_MAX) {
		pd_warn("plugin",
			"more than %u plug-ins in a directory: %s and others are left out",
			PD_PLUGIN_FILES_MAX, name);
		return true;
	}
	names->name[names->n] = strdup(name);
	names->n += names->name[names->n] != NULL;
	return false;
}

/* By name; for qsort. */
static int pd_plugin_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Load the plug-ins of one directory. */
static void pd_plugin_load_dir(const char *dir)
{
	struct pd_plugin_names *names = calloc(1, sizeof(*names));
	int fd = pd_sys_open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	char path[PATH_MAX];

	if (fd < 0)
		pd_err("plugin", "no plug-ins of %s: %s", dir, pd_strerror(fd));
	if (fd >= 0 && names) {
		pd_dir_each(fd, pd_plugin_note_name, names);
		qsort(names->name, names->n, sizeof(*names->name), pd_plugin_compare);
	}
	if (fd >= 0)
		pd_sys_close(fd);
	for (unsigned i = 0; names && i < names->n; i++) {
		if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, names->name[i]) <
		    sizeof(path))
			pd_plugin_load_file(path);
		free(names->name[i]);
	}
	free(names);
}

unsigned pd_plugins_load(const char *path)
{
	char *copy, *dir, *rest;

	if (!path || !*path)
		return 0;
	if (getauxval(AT_SECURE)) {
		pd_warn("plugin", "a set-user-id program: no plug-in is loaded");
		return 0;
	}
	copy = strdup(path);
	for (dir = copy ? strtok_r(copy, ":", &rest) : NULL; dir; dir = strtok_r(NULL, ":", &rest))
		pd_plugin_load_dir(dir);
	free(copy);
	return pd_plugins_start();
}
