/* SPDX-License-Identifier: BSD-2-Clause */
/* Where other programs are. */
#include "program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool ev_installed(const char *program)
{
	const char *path = getenv("PATH");
	char at[4096];

	while (path && *path) {
		int n = (int)strcspn(path, ":");

		snprintf(at, sizeof(at), "%.*s/%s", n, path, program);
		if (!access(at, X_OK))
			return true;
		path += n + (path[n] == ':');
	}
	return false;
}
