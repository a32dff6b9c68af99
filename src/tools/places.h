/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where programs leave their statistics files and CLI sockets: DIR/palladium-UID/.
 *
 * Only such directories are looked into that belong to that UID, that are no links and that nobody
 * else can enter; and only our own, unless we are root.
 */
#ifndef TOOLS_PLACES_H
#define TOOLS_PLACES_H

#include <sys/types.h>

/* An entry `name` of the open directory `dirfd`, whose path is `dir` and which belongs to `uid`. */
typedef void (*pd_places_fn)(void *arg, int dirfd, const char *dir, const char *name, uid_t uid);
/* `dir`/`name` is left alone, and why. */
typedef void (*pd_places_refused_fn)(void *arg, const char *dir, const char *name, const char *why);

/* Look below `dir`, or in the usual places when it is NULL. */
void pd_places_each(const char *dir, pd_places_fn fn, pd_places_refused_fn refused, void *arg);

#endif /* TOOLS_PLACES_H */
