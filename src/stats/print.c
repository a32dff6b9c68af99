/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reports for people. The tables of views 1 and 2 name the counters that they show; a counter that
 * the library does not have is shown as "-". View 3 prints whatever the file describes.
 */
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "print.h"
#include "table.h"

enum pd_stats_cell {
	CELL_NAME,
	CELL_ID,
	CELL_STATE,
	CELL_KIND,
	CELL_REASON,
	CELL_PORT, /* name of the port that it belongs to */
	CELL_COUNT,
	CELL_BYTES,
	CELL_DROPS, /* all counters that begin with `counter` and hold "_drop_", and COUNTER"drops" */
	CELL_PERCENT, /* share of `counter`hit in `counter`hit + `counter`miss */
};

struct pd_stats_column {
	const char *heading;
	enum pd_stats_cell cell;
	const char *counter;
};

static const struct pd_stats_column pd_stats_port_columns[] = {
	{"PORT", CELL_NAME, NULL},
	{"STATE", CELL_STATE, NULL},
	{"TRANSPORT", CELL_KIND, NULL},
	{"RX FRAMES", CELL_COUNT, "rx_frames"},
	{"RX BYTES", CELL_BYTES, "rx_bytes"},
	{"RX CTL", CELL_COUNT, "rx_control"},
	{"RX DROPS", CELL_DROPS, "rx_"},
	{"TX FRAMES", CELL_COUNT, "tx_frames"},
	{"TX BYTES", CELL_BYTES, "tx_bytes"},
	{"TX CTL", CELL_COUNT, "tx_control"},
	{"TX DROPS", CELL_DROPS, "tx_"},
	{"RECONNECTS", CELL_COUNT, "reconnects"},
	{"REASON", CELL_REASON, NULL},
	{0},
};

static const struct pd_stats_column pd_stats_lane_columns[] = {
	{"LANE", CELL_NAME, NULL},
	{"RX FRAMES", CELL_COUNT, "rx_frames"},
	{"BATCHES", CELL_COUNT, "rx_batches"},
	{"POLL HIT", CELL_PERCENT, "rx_poll_"},
	{"KICKS", CELL_COUNT, "rx_kicks"},
	{"SAVED", CELL_COUNT, "rx_kicks_suppressed"},
	{"WAKEUPS", CELL_COUNT, "rx_wakeups"},
	{"BAD", CELL_COUNT, "rx_desc_errors"},
	{"TX FRAMES", CELL_COUNT, "tx_frames"},
	{"BATCHES", CELL_COUNT, "tx_batches"},
	{"KICKS", CELL_COUNT, "tx_kicks"},
	{"SAVED", CELL_COUNT, "tx_kicks_suppressed"},
	{"FULL", CELL_COUNT, "tx_ring_full"},
	{"BAD", CELL_COUNT, "tx_desc_errors"},
	{0},
};

static const struct pd_stats_column pd_stats_socket_columns[] = {
	{"FD", CELL_ID, NULL},
	{"KIND", CELL_KIND, NULL},
	{"PORT", CELL_PORT, NULL},
	{"STATE", CELL_STATE, NULL},
	{"RX PACKETS", CELL_COUNT, "rx_packets"},
	{"RX BYTES", CELL_BYTES, "rx_bytes"},
	{"RX DROPS", CELL_DROPS, "rx_"},
	{"TX PACKETS", CELL_COUNT, "tx_packets"},
	{"TX BYTES", CELL_BYTES, "tx_bytes"},
	{"TX DROPS", CELL_DROPS, "tx_"},
	{"TX ERRORS", CELL_COUNT, "tx_errors"},
	{"REASON", CELL_REASON, NULL},
	{0},
};

static const struct pd_stats_column pd_stats_socket_more_columns[] = {
	{"FD", CELL_ID, NULL},
	{"RX POLL HIT", CELL_PERCENT, "rx_poll_"},
	{"RX EAGAIN", CELL_COUNT, "rx_eagains"},
	{"RX ERRORS", CELL_COUNT, "rx_errors"},
	{"PEEKS", CELL_COUNT, "rx_peeks"},
	{"WAKEUPS", CELL_COUNT, "rx_wakeups"},
	{"QUEUED", CELL_BYTES, "rx_queued_bytes"},
	{"QUEUED MAX", CELL_BYTES, "rx_queued_bytes_max"},
	{"LIMIT", CELL_BYTES, "rx_limit_bytes"},
	{"TX EAGAIN", CELL_COUNT, "tx_eagains"},
	{"OS RX PKTS", CELL_COUNT, "rx_os_packets"},
	{"OS RX BYTES", CELL_BYTES, "rx_os_bytes"},
	{"OS TX PKTS", CELL_COUNT, "tx_os_packets"},
	{"OS TX BYTES", CELL_BYTES, "tx_os_bytes"},
	{0},
};

/* What one report is made from. */
struct pd_stats_report {
	const struct pd_stats_file *f;
	const struct pd_stats_snap *s;
	bool rate;
	bool torn; /* a block was marked */
};

const char *pd_stats_user(uid_t uid)
{
	static char text[32];
	const struct passwd *pw = getpwuid(uid);

	if (pw)
		return pw->pw_name;
	snprintf(text, sizeof(text), "uid %u", (unsigned)uid);
	return text;
}

/* A duration in words. */
static void pd_stats_duration(char *text, size_t bytes, uint64_t ns)
{
	uint64_t s = ns / 1000000000u;

	if (s < 60)
		snprintf(text, bytes, "%.1f s", (double)ns / 1e9);
	else if (s < 86400)
		snprintf(text, bytes, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, s / 3600, s / 60 % 60,
			 s % 60);
	else
		snprintf(text, bytes, "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
}

/* A count as a cell: exact totals; rates with one decimal while they are small. */
static void pd_stats_cell_count(struct pd_table *t, double value, uint64_t exact, bool rate)
{
	if (!rate)
		pd_table_cell(t, "%" PRIu64, exact);
	else
		pd_table_cell(t, value && value < 100 ? "%.1f" : "%.0f", value);
}

/* An amount of bytes as a cell, in decimal units. */
static void pd_stats_cell_bytes(struct pd_table *t, double value)
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
	size_t u = 0;

	while (value >= 999.5 && u + 1 < sizeof(units) / sizeof(units[0])) {
		value /= 1000;
		u++;
	}
	pd_table_cell(t, u && value < 99.95 ? "%.1f %s" : "%.0f %s", value, units[u]);
}

/* The name of the port that `b` belongs to, "-" when there is none. */
static const char *pd_stats_port_name(const struct pd_stats_report *r,
				      const struct pd_stats_block *b)
{
	int port = pd_stats_group_find(r->f, "port");

	for (size_t i = 0; i < r->s->count; i++)
		if ((int)r->s->blocks[i].head.group == port &&
		    r->s->blocks[i].head.role == PD_SHM_SINGLE &&
		    r->s->blocks[i].head.id == (int64_t)b->head.parent)
			return r->s->blocks[i].head.name;
	return "-";
}

/* Sum of the counters of `b` that tell of drops in the direction `prefix` ("rx_"). */
static void pd_stats_cell_drops(struct pd_table *t, const struct pd_stats_report *r,
				const struct pd_stats_block *b, const char *prefix)
{
	const struct pd_shm_group *g = &r->f->groups[b->head.group];
	uint64_t exact = 0;
	double value = 0;

	for (unsigned d = 0; d < g->desc_count; d++) {
		const char *name = r->f->descs[g->desc_first + d].name;

		if (strncmp(name, prefix, strlen(prefix)) ||
		    (!strstr(name, "_drop_") && strcmp(name + strlen(prefix), "drops")))
			continue;
		exact += pd_stats_total(r->f, r->s, b, d);
		value += pd_stats_value(r->f, r->s, b, d, r->rate);
	}
	pd_stats_cell_count(t, value, exact, r->rate);
}

/* Share of hits among hits and misses. */
static void pd_stats_cell_percent(struct pd_table *t, const struct pd_stats_report *r,
				  const struct pd_stats_block *b, const char *prefix)
{
	char hit[64], miss[64];
	double hits, misses;
	int h, m;

	snprintf(hit, sizeof(hit), "%shit", prefix);
	snprintf(miss, sizeof(miss), "%smiss", prefix);
	h = pd_stats_desc_find(r->f, b->head.group, hit);
	m = pd_stats_desc_find(r->f, b->head.group, miss);
	if (h < 0 || m < 0) {
		pd_table_cell(t, "-");
		return;
	}
	hits = pd_stats_value(r->f, r->s, b, (unsigned)h, r->rate);
	misses = pd_stats_value(r->f, r->s, b, (unsigned)m, r->rate);
	if (hits + misses > 0)
		pd_table_cell(t, "%.1f %%", 100 * hits / (hits + misses));
	else
		pd_table_cell(t, "-");
}

/* Why `b` is as it is; or what went wrong last, and when. */
static void pd_stats_cell_reason(struct pd_table *t, const struct pd_stats_report *r,
				 const struct pd_stats_block *b)
{
	char since[64];
	uint64_t age;

	if (!b->head.last_error[0] || !strcmp(b->head.reason, b->head.last_error) ||
	    !pd_stats_age(r->f, r->s, b, "last_error_ns", &age)) {
		pd_table_cell(t, "%s", b->head.reason);
		return;
	}
	pd_stats_duration(since, sizeof(since), age);
	pd_table_cell(t, "%s%s(%s ago: %s)", b->head.reason, b->head.reason[0] ? " " : "", since,
		      b->head.last_error);
}

/* One cell of a table about `b`. */
static void pd_stats_cell_put(struct pd_table *t, struct pd_stats_report *r,
			      const struct pd_stats_block *b, const struct pd_stats_column *c)
{
	const char *mark = b->torn ? "*" : "";
	int d;

	switch (c->cell) {
	case CELL_NAME:
		pd_table_cell(t, "%s%s", b->head.name, mark);
		return;
	case CELL_ID:
		if (b->head.role != PD_SHM_SINGLE)
			pd_table_cell(t, "%s%s", b->head.name, mark);
		else
			pd_table_cell(t, "%" PRId64 "%s", b->head.id, mark);
		return;
	case CELL_STATE:
		pd_table_cell(t, "%s", b->head.state[0] ? b->head.state : "-");
		return;
	case CELL_KIND:
		pd_table_cell(t, "%s", b->head.kind[0] ? b->head.kind : "-");
		return;
	case CELL_REASON:
		pd_stats_cell_reason(t, r, b);
		return;
	case CELL_PORT:
		pd_table_cell(t, "%s", pd_stats_port_name(r, b));
		return;
	case CELL_DROPS:
		pd_stats_cell_drops(t, r, b, c->counter);
		return;
	case CELL_PERCENT:
		pd_stats_cell_percent(t, r, b, c->counter);
		return;
	case CELL_COUNT:
	case CELL_BYTES:
		break;
	}
	d = pd_stats_desc_find(r->f, b->head.group, c->counter);
	if (d < 0)
		pd_table_cell(t, "-");
	else if (c->cell == CELL_BYTES)
		pd_stats_cell_bytes(t, pd_stats_value(r->f, r->s, b, (unsigned)d, r->rate));
	else
		pd_stats_cell_count(
			t, pd_stats_value(r->f, r->s, b, (unsigned)d, r->rate),
			pd_stats_total(r->f, r->s, b, (unsigned)d),
			r->rate && r->f->descs[r->f->groups[b->head.group].desc_first + (unsigned)d]
						   .kind == PD_SHM_COUNTER);
}

/*
 * The table of the group `name`: its blocks in the columns given. Says so when there are none and
 * `empty`.
 */
static void pd_stats_group_print(struct pd_stats_report *r, const char *name,
				 const struct pd_stats_column *columns, const char *empty)
{
	int group = pd_stats_group_find(r->f, name);
	struct pd_table t = {0};

	pd_table_row(&t);
	for (unsigned c = 0; columns[c].heading; c++) {
		t.left[c] = columns[c].cell <= CELL_PORT && columns[c].cell != CELL_ID;
		pd_table_cell(&t, "%s", columns[c].heading);
	}
	for (size_t i = 0; i < r->s->count; i++) {
		const struct pd_stats_block *b = &r->s->blocks[i];

		if ((int)b->head.group != group)
			continue;
		r->torn |= b->torn;
		pd_table_row(&t);
		for (unsigned c = 0; columns[c].heading; c++)
			pd_stats_cell_put(&t, r, b, &columns[c]);
	}
	if (t.rows > 1) {
		putchar('\n');
		pd_table_print(&t, 0);
	} else {
		if (empty)
			printf("\n%s\n", empty);
		t.rows = 0;
		pd_table_print(&t, 0);
	}
}

/* View 3: every counter of every block, with what it means. */
static void pd_stats_all_print(struct pd_stats_report *r)
{
	for (size_t i = 0; i < r->s->count; i++) {
		const struct pd_stats_block *b = &r->s->blocks[i];
		const struct pd_shm_group *g = &r->f->groups[b->head.group];
		struct pd_table t = {.left = {true, false, true, true}};

		r->torn |= b->torn;
		printf("\n%s %s%s", g->name, b->head.name, b->torn ? "*" : "");
		if (b->head.role == PD_SHM_SINGLE)
			printf(" (%" PRId64 ")", b->head.id);
		printf("%s%s%s%s%s%s%s%s\n", b->head.kind[0] ? " " : "", b->head.kind,
		       b->head.path[0] ? " " : "", b->head.path, b->head.state[0] ? " " : "",
		       b->head.state, b->head.reason[0] ? ": " : "", b->head.reason);
		if (b->head.last_error[0])
			printf("  last error: %s\n", b->head.last_error);
		for (unsigned d = 0; d < g->desc_count; d++) {
			const struct pd_shm_desc *desc = &r->f->descs[g->desc_first + d];
			bool rate = r->rate && desc->kind == PD_SHM_COUNTER;

			pd_table_row(&t);
			pd_table_cell(&t, "%s", desc->name);
			pd_stats_cell_count(&t, pd_stats_value(r->f, r->s, b, d, rate),
					    pd_stats_total(r->f, r->s, b, d), rate);
			pd_table_cell(&t, "%s%s", desc->unit, rate ? "/s" : "");
			pd_table_cell(&t, "%s", desc->help);
		}
		pd_table_print(&t, 2);
	}
}

void pd_stats_print_text(const struct pd_stats_found *p, const struct pd_stats_snap *s,
			 const struct pd_stats_style *style, unsigned long cycle, bool ended)
{
	struct pd_stats_report r = {.f = &p->file, .s = s, .rate = style->rate};
	const struct pd_shm_header *h = &p->file.header;
	uint64_t age = s->now_ns > h->created_ns ? s->now_ns - h->created_ns : 0;
	char since[64];

	pd_stats_duration(since, sizeof(since), age);
	if (cycle > 1)
		printf("\n");
	printf("%s, pid %u, user %s, libpalladium %s, counting for %s, %s\n", h->program, h->pid,
	       pd_stats_user(p->uid), h->version, since,
	       ended         ? "ended; the last values"
	       : style->rate ? "per second"
			     : "totals");
	if (style->view >= 3) {
		pd_stats_all_print(&r);
	} else {
		pd_stats_group_print(&r, "port", pd_stats_port_columns, "no port in use");
		if (style->view >= 2)
			pd_stats_group_print(&r, "lane", pd_stats_lane_columns, NULL);
		pd_stats_group_print(&r, "socket", pd_stats_socket_columns, "no socket offloaded");
		if (style->view >= 2)
			pd_stats_group_print(&r, "socket", pd_stats_socket_more_columns, NULL);
	}
	if (r.torn)
		printf("\n* read in the middle of an update: its values may not belong together\n");
	fflush(stdout);
}
