/* SPDX-License-Identifier: BSD-2-Clause */
/* Counters of sockets as text. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/internal_fd.h"
#include "base/log.h"
#include "base/quiet.h"
#include "base/sys.h"
#include "counters/report.h"

static struct {
	const char *path;
	int fd;
	pid_t pid; /* who opened it */
} pd_report = {.fd = -1};

/* Open the file. Returns 0 or -errno. */
static int pd_report_open(void)
{
	int fd = pd_internal_fd(pd_log_file_open(pd_report.path));

	pd_report.pid = pd_sys_getpid();
	if (fd < 0)
		return fd;
	pd_store_relaxed(&pd_report.fd, fd);
	return 0;
}

int pd_ctr_report_start(const char *path)
{
	if (!*path)
		return 0;
	pd_report.path = path;
	return pd_report_open();
}

void pd_ctr_report_stop(void)
{
	pd_store_relaxed(&pd_report.fd, -1);
}

bool pd_ctr_report_wanted(void)
{
	return pd_load_relaxed(&pd_report.fd) >= 0;
}

/* Text that grows in a buffer; what does not fit is cut. */
struct pd_report_text {
	size_t n;
	char bytes[1600];
};

/* Append one line about the socket `fd`. */
static PD_PRINTF(3, 4) void pd_report_line(struct pd_report_text *t, int64_t fd, const char *fmt,
					   ...)
{
	size_t room = sizeof(t->bytes) - t->n - 1; /* for the end of the line */
	va_list ap;
	int n;

	n = snprintf(t->bytes + t->n, room, "PALLADIUM: [fd=%" PRId64 "] ", fd);
	t->n += pd_min((size_t)n, room - 1);
	room = sizeof(t->bytes) - t->n - 1;
	va_start(ap, fmt);
	n = vsnprintf(t->bytes + t->n, room, fmt, ap);
	va_end(ap);
	t->n += pd_min((size_t)n, room - 1);
	t->bytes[t->n++] = '\n';
}

/* `part` of `whole` in hundredths of a per cent. */
static unsigned pd_report_share(uint64_t part, uint64_t whole)
{
	return whole ? (unsigned)((double)part * 10000 / (double)whole) : 0;
}

/* Has the program done anything with the socket? */
static bool pd_report_is_used(struct pd_ctr_block *b)
{
	static const enum pd_ctr_word activity[] = {
		PD_CTR_SOCKET_RX_PACKETS,    PD_CTR_SOCKET_TX_PACKETS,    PD_CTR_SOCKET_RX_EAGAINS,
		PD_CTR_SOCKET_RX_ERRORS,     PD_CTR_SOCKET_TX_ERRORS,     PD_CTR_SOCKET_TX_EAGAINS,
		PD_CTR_SOCKET_RX_OS_PACKETS, PD_CTR_SOCKET_TX_OS_PACKETS,
	};

	for (size_t i = 0; i < PD_ARRAY_SIZE(activity); i++)
		if (pd_ctr_get(b, activity[i]))
			return true;
	return false;
}

/* What was sent. */
static void pd_report_sent(struct pd_report_text *t, struct pd_ctr_block *b)
{
	pd_report_line(t, b->id,
		       "Tx Offload: %" PRIu64 " KB / %" PRIu64 " / %" PRIu64 " / %" PRIu64
		       " [bytes/packets/drops/errors]",
		       pd_ctr_get(b, PD_CTR_SOCKET_TX_BYTES) / 1024,
		       pd_ctr_get(b, PD_CTR_SOCKET_TX_PACKETS),
		       pd_ctr_get(b, PD_CTR_SOCKET_TX_DROPS),
		       pd_ctr_get(b, PD_CTR_SOCKET_TX_ERRORS));
	pd_report_line(t, b->id,
		       "Tx OS info: %3" PRIu64 " KB / %6" PRIu64 " / %" PRIu64
		       " [bytes/packets/errors]",
		       pd_ctr_get(b, PD_CTR_SOCKET_TX_OS_BYTES) / 1024,
		       pd_ctr_get(b, PD_CTR_SOCKET_TX_OS_PACKETS),
		       pd_ctr_get(b, PD_CTR_SOCKET_TX_OS_ERRORS));
}

/* What was received, and what became of the queue. */
static void pd_report_received(struct pd_report_text *t, struct pd_ctr_block *b)
{
	uint64_t bytes = pd_ctr_get(b, PD_CTR_SOCKET_RX_BYTES);
	uint64_t packets = pd_ctr_get(b, PD_CTR_SOCKET_RX_PACKETS);
	uint64_t lost_bytes = pd_ctr_get(b, PD_CTR_SOCKET_RX_DROPPED_BYTES);
	uint64_t lost = pd_ctr_get(b, PD_CTR_SOCKET_RX_DROP_FULL);
	uint64_t hits = pd_ctr_get(b, PD_CTR_SOCKET_RX_POLL_HIT);
	uint64_t misses = pd_ctr_get(b, PD_CTR_SOCKET_RX_POLL_MISS);
	unsigned share = pd_report_share(lost_bytes, lost_bytes + bytes);

	pd_report_line(t, b->id,
		       "Rx Offload: %" PRIu64 " KB / %" PRIu64 " / %" PRIu64 " / %" PRIu64
		       " [bytes/packets/eagains/errors]",
		       bytes / 1024, packets, pd_ctr_get(b, PD_CTR_SOCKET_RX_EAGAINS),
		       pd_ctr_get(b, PD_CTR_SOCKET_RX_ERRORS));
	pd_report_line(t, b->id,
		       "Rx byte: max %" PRIu64 " / dropped %" PRIu64
		       " (%u.%02u%%) / limit %" PRIu64,
		       pd_ctr_get(b, PD_CTR_SOCKET_RX_QUEUED_BYTES_MAX), lost_bytes, share / 100,
		       share % 100, pd_ctr_get(b, PD_CTR_SOCKET_RX_LIMIT_BYTES));
	share = pd_report_share(lost, lost + packets);
	pd_report_line(t, b->id, "Rx pkt : max %" PRIu64 " / dropped %" PRIu64 " (%u.%02u%%)",
		       pd_ctr_get(b, PD_CTR_SOCKET_RX_QUEUED_PACKETS_MAX), lost, share / 100,
		       share % 100);
	pd_report_line(t, b->id,
		       "Rx OS info: %3" PRIu64 " KB / %6" PRIu64 " / %" PRIu64
		       " [bytes/packets/errors]",
		       pd_ctr_get(b, PD_CTR_SOCKET_RX_OS_BYTES) / 1024,
		       pd_ctr_get(b, PD_CTR_SOCKET_RX_OS_PACKETS),
		       pd_ctr_get(b, PD_CTR_SOCKET_RX_OS_ERRORS));
	share = pd_report_share(hits, hits + misses);
	pd_report_line(t, b->id, "Rx poll: %" PRIu64 " / %" PRIu64 " (%u.%02u%%) [miss/hit]",
		       misses, hits, share / 100, share % 100);
}

void pd_ctr_report_begin(void)
{
	if (!pd_ctr_report_wanted() || pd_report.pid == pd_sys_getpid() ||
	    !strstr(pd_report.path, "%d"))
		return;
	if (pd_report_open() < 0)
		pd_ctr_report_stop(); /* it is the parent's */
}

void pd_ctr_report_write(struct pd_ctr_block *b, const char *port)
{
	struct pd_report_text t = {.n = 0};

	if (!pd_ctr_report_wanted() || !pd_report_is_used(b))
		return;
	pd_report_line(&t, b->id, "%s of process %d on %s", b->kind, (int)pd_sys_getpid(),
		       *port ? port : "all ports");
	pd_report_sent(&t, b);
	pd_report_received(&t, b);
	pd_quiet_write(pd_load_relaxed(&pd_report.fd), t.bytes, t.n);
}
