/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Log lines: one write each, to standard error or to PALLADIUM_LOG_FILE.
 *
 *   PALLADIUM WARN: vhost: pd0: the peer went away, connecting again in 100 ms
 *
 * The level is a relaxed load and a compare, so a line that is not wanted costs nothing. Lines that
 * a peer can cause go through pd_log_ratelimited. Nothing here allocates, uses stdio or touches
 * errno. No line holds the program up or ends it (base/quiet.h): one that cannot go out at once is
 * lost, and the next says how many were.
 */
#ifndef PD_BASE_LOG_H
#define PD_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include "base/atomic.h"
#include "base/compiler.h"

/* VMA's levels, in its order. */
enum pd_log_level {
	PD_LOG_NONE,
	PD_LOG_PANIC,
	PD_LOG_ERROR,
	PD_LOG_WARN,
	PD_LOG_INFO,
	PD_LOG_DETAILS,
	PD_LOG_DEBUG,
	PD_LOG_FINE,
	PD_LOG_FINER,
	PD_LOG_LEVEL_COUNT
};

extern int pd_log_level_now; /* enum pd_log_level; default PD_LOG_INFO */

/* `level` from here on: lines above it are not written. */
void pd_log_set_level(enum pd_log_level level);

/*
 * Write to the file at `path` from here on ("%d" in it stands for the process id); NULL for
 * standard error. Returns 0 or -errno; on an error the log stays where it was.
 */
int pd_log_set_file(const char *path);

/*
 * Write to the system's log from here on: one datagram a line to the socket `path`, NULL for
 * /dev/log, as RFC 3164 has it, under the program's name and the facility "user". It is not libc's
 * syslog, whose settings are the program's own. A line that the system's log has no room for is
 * lost. Returns 0 or -errno (nobody listens there); on an error the log stays where it was.
 */
int pd_log_set_syslog(const char *path);

/*
 * Before the first line. Where standard error is closed, 2 will be a file of the program's, and
 * nothing is written to it. Where it is open, its device and inode are remembered: a program may
 * close 2 later and open a file that becomes 2, and no line may go there.
 */
void pd_log_start(void);

/*
 * The program has put another file on 2 with dup2, which makes that its standard error: lines
 * follow it.
 */
void pd_log_stderr_moved(void);

/*
 * Have the log file's descriptor, which was there before, be one of the library's own
 * (base/internal_fd.h).
 */
void pd_log_keep(void);

/*
 * Details before each line, as VMA_LOG_DETAILS: 0 none, 1 pid and tid, 2 also the time. Colours on
 * or off.
 */
void pd_log_set_details(int details, bool colours);

/* The name of a level ("warn"), and the level of a name (-EINVAL when there is none). */
const char *pd_log_level_name(enum pd_log_level level);
int pd_log_level_parse(const char *name);

/*
 * Open a file of text for lines at its end, made if there is none; "%d" in `path` stands for the
 * process id. Its number is none of the standard streams', which the program may have closed to
 * open its own. It never blocks. Returns the descriptor or -errno, which pd_quiet_strerror
 * explains.
 */
int pd_log_file_open(const char *path);

/*
 * Where lines go, for who cannot use the functions here (a signal's handler); negative when
 * nowhere.
 */
int pd_log_descriptor(void);

/*
 * Write one line. `module` is a short lower-case word. Lines longer than 1000 characters are cut.
 */
void pd_log_write(enum pd_log_level level, const char *module, const char *fmt, ...)
	PD_PRINTF(3, 4);

#define pd_log(level, module, ...)                                                   \
	do {                                                                         \
		if (pd_unlikely(pd_load_relaxed(&pd_log_level_now) >= (int)(level))) \
			pd_log_write((level), (module), __VA_ARGS__);                \
	} while (0)

#define pd_err(module, ...) pd_log(PD_LOG_ERROR, module, __VA_ARGS__)
#define pd_warn(module, ...) pd_log(PD_LOG_WARN, module, __VA_ARGS__)
#define pd_info(module, ...) pd_log(PD_LOG_INFO, module, __VA_ARGS__)
#define pd_details(module, ...) pd_log(PD_LOG_DETAILS, module, __VA_ARGS__)
#define pd_debug(module, ...) pd_log(PD_LOG_DEBUG, module, __VA_ARGS__)
#define pd_trace(module, ...) pd_log(PD_LOG_FINER, module, __VA_ARGS__)

/* State of one rate-limited place: at most `PD_LOG_BURST` lines a second, the rest counted. */
struct pd_log_limit {
	uint64_t second;
	uint32_t lines;
	uint32_t dropped;
};
#define PD_LOG_BURST 5

/* True when a line may be written now; at most PD_LOG_BURST times a second per limit. */
bool pd_log_allowed(struct pd_log_limit *limit);

/* A line that a peer or a program can cause over and over. */
#define pd_log_ratelimited(level, module, ...)                            \
	do {                                                              \
		static struct pd_log_limit pd_limit;                      \
		if (pd_load_relaxed(&pd_log_level_now) >= (int)(level) && \
		    pd_log_allowed(&pd_limit))                            \
			pd_log_write((level), (module), __VA_ARGS__);     \
	} while (0)

/* The text of an error, given as errno or -errno. Thread-safe, no allocation. */
const char *pd_strerror(int err);

#endif /* PD_BASE_LOG_H */
