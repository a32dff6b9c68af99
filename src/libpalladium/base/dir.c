/* SPDX-License-Identifier: BSD-2-Clause */
/* Walks of directories (contract in dir.h). */
#include "base/dir.h"

#include <dirent.h>

#include "base/sys.h"

void pd_dir_each(int fd, bool (*each)(void *ctx, const char *name), void *ctx)
{
	union {
		char bytes[2048];
		struct dirent64 entry; /* for its alignment */
	} buf;
	ssize_t n;

	while ((n = pd_sys_getdents(fd, buf.bytes, sizeof(buf.bytes))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *d = (const void *)(buf.bytes + at);

			at += d->d_reclen;
			if (each(ctx, d->d_name))
				return;
		}
	}
}
