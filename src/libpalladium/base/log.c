/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log: levels, destination, one write per line.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>

#include "base/assert.h"
#include "base/internal_fd.h"
#include "base/lib.h"
#include "base/log.h"
#include "base/quiet.h"
#include "base/sys.h"

#define PD_LOG_LINE_MAX 1000

int pd_log_level_now = PD_LOG_INFO;
static int pd_log_fd = 2;
static int pd_log_details;

/* What standard error is: a program may close 2 and open a file of its own that becomes 2. */
static struct {
	uint64_t device, inode;
} pd_log_stderr;
static bool pd_log_colours;
static const char pd_log_colour_off[] = "\033[0m";

static const struct {
	const char *name, *label, *colour;
} pd_log_levels[] = {
	[PD_LOG_NONE] = {"none", "", ""},
	[PD_LOG_PANIC] = {"panic", "PANIC", "\033[1;31m"},
	[PD_LOG_ERROR] = {"error", "ERROR", "\033[31m"},
	[PD_LOG_WARN] = {"warn", "WARNING", "\033[33m"},
	[PD_LOG_INFO] = {"info", "INFO", ""},
	[PD_LOG_DETAILS] = {"details", "DETAILS", ""},
	[PD_LOG_DEBUG] = {"debug", "DEBUG", "\033[2m"},
	[PD_LOG_FINE] = {"fine", "FINE", "\033[2m"},
	[PD_LOG_FINER] = {"finer", "FINER", "\033[2m"},
};
_Static_assert(PD_ARRAY_SIZE(pd_log_levels) == PD_LOG_LEVEL_COUNT, "one row per level");

void pd_log_set_level(enum pd_log_level level)
{
	pd_store_relaxed(&pd_log_level_now, (int)level);
}

void pd_log_set_details(int details, bool colours)
{
	pd_log_details = details;
	pd_log_colours = colours;
}

/*
 * Copy `path` to `out` (of `size` bytes) with "%d" replaced by the process id. Returns 0 or
 * -ENAMETOOLONG.
 */
static int pd_log_expand_path(const char *path, char *out, size_t size)
{
	const char *mark = strstr(path, "%d");
	int n;

	if (mark)
		n = snprintf(out, size, "%.*s%d%s", (int)(mark - path), path, (int)pd_sys_getpid(),
			     mark + 2);
	else
		n = snprintf(out, size, "%s", path);
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

int pd_log_file_open(const char *path)
{
	char name[4096];
	int fd = pd_log_expand_path(path, name, sizeof(name)), high;

	if (fd < 0)
		return fd;
	fd = pd_quiet_open(name, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW);
	if (fd < 0 || fd > 2)
		return fd;
	high = pd_sys_fcntl(fd, F_DUPFD_CLOEXEC, 3);
	pd_sys_close(fd);
	return high;
}

/* --- the system's log ------------------------------------------------------------------------ */

static struct {
	int fd; /* -1: lines go elsewhere */
	int32_t utc_offset;
	struct sockaddr_un address;
} pd_log_syslog = {.fd = -1};

int pd_log_set_syslog(const char *path)
{
	static const struct sockaddr none = {.sa_family = AF_UNSPEC};
	struct sockaddr_un *address = &pd_log_syslog.address;
	time_t now = time(NULL);
	struct tm local = {0};
	int fd, ret;

	path = path ? path : "/dev/log";
	if (strlen(path) >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	address->sun_family = AF_UNIX;
	strcpy(address->sun_path, path);
	fd = pd_sys_socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fd;
	ret = pd_sys_connect(fd, address, sizeof(*address));
	if (ret < 0) {
		pd_sys_close(fd);
		return ret;
	}
	pd_sys_connect(fd, &none, sizeof(none)); /* who listens may be started anew */
	/* Once, and here: it takes a lock of libc's, which a forked child may find held. */
	localtime_r(&now, &local);
	pd_log_syslog.utc_offset = (int32_t)local.tm_gmtoff;
	pd_log_colours = false;
	pd_store_release(&pd_log_syslog.fd, fd);
	return 0;
}

/* Lines go elsewhere from here on. */
static void pd_log_end_syslog(void)
{
	int fd = pd_exchange(&pd_log_syslog.fd, -1);

	if (fd >= 0)
		pd_sys_close(fd);
}

/* Month (0 to 11) and day of the month of a day since 1970-01-01. */
static unsigned pd_log_month(uint32_t days, unsigned *day)
{
	/* In years that begin with March, in periods of 400 of them. */
	uint32_t of_era = (days + 719468) % 146097;
	uint32_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	uint32_t of_year = of_era - (365 * year + year / 4 - year / 100);
	uint32_t month = (5 * of_year + 2) / 153;

	*day = of_year - (153 * month + 2) / 5 + 1;
	return (month + 2) % 12;
}

/* Send `n` bytes of text to the system's log. */
static void pd_log_to_syslog(int fd, enum pd_log_level level, const char *text, size_t n)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	/* user.crit, user.err, and so on */
	static const unsigned char severities[PD_LOG_LEVEL_COUNT] = {
		[PD_LOG_NONE] = 6,  [PD_LOG_PANIC] = 2, [PD_LOG_ERROR] = 3,
		[PD_LOG_WARN] = 4,  [PD_LOG_INFO] = 6,  [PD_LOG_DETAILS] = 6,
		[PD_LOG_DEBUG] = 7, [PD_LOG_FINE] = 7,  [PD_LOG_FINER] = 7,
	};
	struct timespec now;
	struct iovec iov[2];
	struct msghdr msg = {.msg_name = &pd_log_syslog.address,
			     .msg_namelen = sizeof(pd_log_syslog.address),
			     .msg_iov = iov,
			     .msg_iovlen = 2};
	unsigned month, day, second;
	char head[160];
	uint64_t local;
	int len;

	clock_gettime(CLOCK_REALTIME, &now);
	local = (uint64_t)(now.tv_sec + pd_log_syslog.utc_offset);
	month = pd_log_month((uint32_t)(local / 86400), &day);
	second = (unsigned)(local % 86400);
	len = snprintf(head, sizeof(head),
		       "<%d>%.3s %2u %02u:%02u:%02u %.64s[%d]: ", 1 << 3 | severities[level],
		       months + 3 * month, day, second / 3600, second / 60 % 60, second % 60,
		       program_invocation_short_name, (int)pd_sys_getpid());
	iov[0] = (struct iovec){head, (size_t)len};
	iov[1] = (struct iovec){(char *)text, n};
	pd_sys_sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int pd_log_set_file(const char *path)
{
	int fd = 2, old;

	if (path && *path) {
		fd = pd_log_file_open(path);
		if (fd < 0)
			return fd;
	}
	old = pd_exchange(&pd_log_fd, fd);
	if (old > 2)
		pd_sys_close(old);
	pd_log_end_syslog();
	return 0;
}

/* --- standard error -------------------------------------------------------------------------- */

/* What file 2 is. Returns 0 or -errno. */
static int pd_log_look_at_stderr(uint64_t *device, uint64_t *inode)
{
	struct stat st;
	int ret = pd_sys_fstat(2, &st);

	if (ret < 0)
		return ret;
	*device = st.st_dev;
	*inode = st.st_ino;
	return 0;
}

void pd_log_stderr_moved(void)
{
	uint64_t device, inode;

	if (pd_load_relaxed(&pd_log_fd) != 2 || pd_log_look_at_stderr(&device, &inode) < 0)
		return;
	pd_store_relaxed(&pd_log_stderr.device, device);
	pd_store_relaxed(&pd_log_stderr.inode, inode);
}

void pd_log_start(void)
{
	if (pd_log_fd == 2 && pd_sys_fcntl(2, F_GETFD, 0) < 0)
		pd_log_fd = -1;
	pd_log_stderr_moved();
}

/* Whether 2 is what it was when the log began, or was put there since by dup2. */
static bool pd_log_stderr_stays(void)
{
	uint64_t device, inode;

	if (!pd_load_relaxed(&pd_log_stderr.inode)) /* nobody asked yet */
		return true;
	return pd_log_look_at_stderr(&device, &inode) == 0 &&
	       device == pd_load_relaxed(&pd_log_stderr.device) &&
	       inode == pd_load_relaxed(&pd_log_stderr.inode);
}

int pd_log_descriptor(void)
{
	int fd = pd_load_relaxed(&pd_log_fd);

	return fd == 2 && !pd_log_stderr_stays() ? -1 : fd;
}

void pd_log_keep(void)
{
	int fd = pd_load_relaxed(&pd_log_fd);

	if (fd > 2 && !pd_internal_fd_is_name(fd))
		pd_store_relaxed(&pd_log_fd, pd_internal_fd_adopt(fd));
	fd = pd_log_syslog.fd;
	if (fd >= 0 && !pd_internal_fd_is_name(fd))
		pd_store_release(&pd_log_syslog.fd, pd_internal_fd_adopt(fd));
}

const char *pd_log_level_name(enum pd_log_level level)
{
	return (unsigned)level < PD_LOG_LEVEL_COUNT ? pd_log_levels[level].name : "?";
}

int pd_log_level_parse(const char *name)
{
	if (!strcasecmp(name, "all"))
		return PD_LOG_FINER;
	for (int i = 0; i < PD_LOG_LEVEL_COUNT; i++)
		if (!strcasecmp(name, pd_log_levels[i].name))
			return i;
	return -EINVAL;
}

/* What stands before the text of a line; returns its length. */
static int pd_log_prefix(char *line, size_t size, enum pd_log_level level, const char *module)
{
	char details[64] = "";
	struct timespec now;

	if (pd_log_details >= 2) {
		clock_gettime(CLOCK_REALTIME, &now);
		snprintf(details, sizeof(details),
			 " %lld.%06ld pid %d tid %d:", (long long)now.tv_sec, now.tv_nsec / 1000,
			 (int)pd_sys_getpid(), (int)pd_sys_gettid());
	} else if (pd_log_details == 1) {
		snprintf(details, sizeof(details), " pid %d tid %d:", (int)pd_sys_getpid(),
			 (int)pd_sys_gettid());
	}
	return snprintf(line, size,
			"%sPALLADIUM %s:%s %s: ", pd_log_colours ? pd_log_levels[level].colour : "",
			pd_log_levels[level].label, details, module);
}

/*
 * The log's file takes no more, for `err`: said once on standard error, where that is known to be
 * what it was.
 */
static void pd_log_file_fails(int err)
{
	static uint32_t told;
	char line[200];
	int n;

	if (!pd_load_relaxed(&pd_log_stderr.inode) || !pd_log_stderr_stays() ||
	    pd_exchange(&told, 1))
		return;
	n = snprintf(line, sizeof(line),
		     "PALLADIUM WARNING: log: lines are lost, the log's file takes none: %s\n",
		     pd_strerror(err));
	pd_quiet_write(2, line, (size_t)n);
}

/*
 * Write a whole line to `fd`, behind word of those that were lost before. A program is not held up,
 * nor ended, for a line: what cannot go out now is counted instead.
 */
static void pd_log_put(int fd, const char *line, size_t n)
{
	static uint32_t lost;
	uint32_t before = pd_exchange(&lost, 0);
	char both[PD_LOG_LINE_MAX + 200];
	ssize_t ret;
	int at;

	if (before) {
		at = pd_log_prefix(both, 150, PD_LOG_WARN, "log");
		at += snprintf(both + at, 50, "%u line%s lost%s\n", before,
			       before == 1 ? " was" : "s were",
			       pd_log_colours ? pd_log_colour_off : "");
		memcpy(both + at, line, n);
		line = both;
		n += (size_t)at;
	}
	ret = pd_quiet_write(fd, line, n);
	if (ret == (ssize_t)n)
		return;
	pd_fetch_add(&lost, before + 1);
	if (fd != 2 && ret < 0 && ret != -EAGAIN)
		pd_log_file_fails((int)ret);
}

void pd_log_write(enum pd_log_level level, const char *module, const char *fmt, ...)
{
	char line[PD_LOG_LINE_MAX + sizeof(pd_log_colour_off)];
	int saved = errno, n, m, syslog = pd_load_acquire(&pd_log_syslog.fd);
	int fd = syslog >= 0 ? syslog : pd_log_descriptor();
	va_list ap;

	if (fd < 0)
		return;
	n = pd_log_prefix(line, PD_LOG_LINE_MAX - 1, level, module);
	va_start(ap, fmt);
	m = vsnprintf(line + n, (size_t)(PD_LOG_LINE_MAX - 1 - n), fmt, ap);
	va_end(ap);
	n = pd_min(n + pd_max(m, 0), PD_LOG_LINE_MAX - 2);
	if (syslog >= 0) {
		pd_log_to_syslog(fd, level, line, (size_t)n);
		errno = saved;
		return;
	}
	if (pd_log_colours && *pd_log_levels[level].colour) {
		memcpy(line + n, pd_log_colour_off, sizeof(pd_log_colour_off) - 1);
		n += (int)sizeof(pd_log_colour_off) - 1;
	}
	line[n++] = '\n';
	pd_log_put(fd, line, (size_t)n);
	errno = saved;
}

bool pd_log_allowed(struct pd_log_limit *limit)
{
	struct timespec now;
	uint64_t second;
	uint32_t dropped;

	clock_gettime(CLOCK_MONOTONIC, &now);
	second = (uint64_t)now.tv_sec + 1;
	/* Races between threads cost a line more or less, never correctness. */
	if (pd_exchange(&limit->second, second) != second)
		pd_store_relaxed(&limit->lines, 0);
	if (pd_fetch_add(&limit->lines, 1) >= PD_LOG_BURST) {
		pd_fetch_add(&limit->dropped, 1);
		return false;
	}
	dropped = pd_exchange(&limit->dropped, 0);
	if (dropped)
		pd_log_write(PD_LOG_WARN, "log", "left out: %u line%s like the next", dropped,
			     dropped == 1 ? "" : "s");
	return true;
}

const char *pd_strerror(int err)
{
	const char *text = strerrordesc_np(err < 0 ? -err : err);

	return text ? text : "unknown error";
}

#ifdef PD_ENABLE_ASSERT
void pd_assert_failed(const char *file, int line, const char *what)
{
	pd_log_write(PD_LOG_PANIC, "assert", "%s:%d: %s", file, line, what);
	__builtin_trap();
}
#endif
