/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/textfile.h"

#include <errno.h>
#include <fcntl.h>

#include "base/internal_fd.h"
#include "base/sys.h"

int pd_textfile_read(const char *path, char *to, size_t room)
{
	int fd = pd_internal_fd(pd_sys_open(path, O_RDONLY | O_CLOEXEC, 0));
	ssize_t n;

	to[0] = '\0';
	if (fd < 0)
		return fd;
	n = pd_sys_read(fd, to, room - 1);
	pd_sys_close(fd);
	if (n <= 0)
		return n ? (int)n : -EIO;
	to[n] = '\0';
	return 0;
}
