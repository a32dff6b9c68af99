/* SPDX-License-Identifier: BSD-2-Clause */
/* Small files of the kernel's, as those of /proc and /sys. */
#ifndef PD_BASE_TEXTFILE_H
#define PD_BASE_TEXTFILE_H

#include <stddef.h>

/*
 * Read the beginning of the file `path`, up to `room` - 1 bytes, to `to`, and a NUL behind them. In
 * one read, so that it is of one moment. Returns 0, -EIO when it is empty, or another -errno; there
 * is nothing in `to` then.
 */
int pd_textfile_read(const char *path, char *to, size_t room);

#endif /* PD_BASE_TEXTFILE_H */
