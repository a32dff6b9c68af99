/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writing to files that others chose, without harm to the program.
 *
 * A write of the library's must neither end nor stop the program, whatever the file is: a pipe
 * without a reader (SIGPIPE), a file at the limit of RLIMIT_FSIZE (SIGXFSZ), a terminal of another
 * job (SIGTTOU), a pipe or a terminal that takes nothing now (it would block). The signals are
 * blocked in the calling thread for the time of the write, and one that the write itself raised is
 * taken back.
 *
 * All of it is async-signal-safe and leaves errno alone.
 */
#ifndef PD_BASE_QUIET_H
#define PD_BASE_QUIET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The signals of one thread while it writes. */
struct pd_quiet {
	uint64_t mask;    /* as it was */
	uint64_t pending; /* what waited before: not ours to take back */
};

/* From here to pd_quiet_end no write ends or stops the program. */
void pd_quiet_begin(struct pd_quiet *q);

/*
 * `err` is what the write in between returned, 0 where nobody knows: what it raised is taken back,
 * and the signals are as they were.
 */
void pd_quiet_end(const struct pd_quiet *q, ssize_t err);

/*
 * Write `n` bytes, at most PIPE_BUF (4096) of them, to `fd` in one call, if that can be done at
 * once. Returns what was written or -errno: -EAGAIN when there is no room now, -EPIPE when nobody
 * reads.
 */
ssize_t pd_quiet_write(int fd, const void *bytes, size_t n);

/*
 * Open a file that the user named, to write to it: no FIFO without a reader (-ENXIO) or device
 * holds the program up, no terminal becomes the program's. `flags` are open's besides. Returns the
 * descriptor or -errno.
 */
int pd_quiet_open(const char *path, int flags);

/*
 * True when a file of `bytes` is allowed by RLIMIT_FSIZE; a larger one would be answered with
 * SIGXFSZ.
 */
bool pd_quiet_size_is_allowed(uint64_t bytes);

/* The text of an error of pd_quiet_open. */
const char *pd_quiet_strerror(int err);

#endif /* PD_BASE_QUIET_H */
