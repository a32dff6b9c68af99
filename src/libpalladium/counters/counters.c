/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counters: the blocks.
 *
 * One region holds header, records and blocks. It is made as private memory at the first use and
 * filled in as if it were the file; pd_ctr_open writes it to the file and maps the file over it, so
 * that a pointer to a block stays good through open, close and fork, and a writer never learns
 * which of them it writes to.
 *
 * Objects beyond a group's number of blocks live in the heap, in the list `strays`; pd_ctr_publish
 * adds them up in the group's block of role OTHERS. Objects that are gone leave their counters in
 * the block of role PAST, lanes in their port.
 *
 * Locking: pd_ctr.lock, a leaf, guards all of `pd_ctr` and the heads of the blocks. Values are the
 * writers'.
 */
#ifdef HAVE_CONFIG_H
#	include "config.h"
#endif

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lib.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"
#include "counters/counters.h"
#include "counters/file.h"
#include "counters/report.h"

/* Largest block of any group, in bytes; also the size of a stray and of the sink. */
#define PD_CTR_BLOCK_BYTES_MAX 1024

static const struct {
	const char *name, *help;
	uint32_t bytes;
	uint32_t singles; /* objects with a block of their own; sockets: set at run time */
} pd_ctr_groups[] = {
#define PD_CTR_GROUP(group, name, help) {name, help, sizeof(struct pd_ctr_##group##_block), 0},
#include "defs/counters.def"
};
_Static_assert(PD_ARRAY_SIZE(pd_ctr_groups) == PD_CTR_GROUP_COUNT, "one row per group");

#define PD_CTR_FITS(text, type, field) (sizeof(text) <= sizeof(((struct type *)0)->field))
#define PD_CTR_GROUP(group, n, h)                                                         \
	_Static_assert(sizeof(struct pd_ctr_##group##_block) <= PD_CTR_BLOCK_BYTES_MAX && \
			       PD_CTR_FITS(n, pd_shm_group, name) &&                      \
			       PD_CTR_FITS(h, pd_shm_group, help),                        \
		       "group " #group " fits its record");
#define PD_CTR(group, id, n, u, kind, h)                                                         \
	_Static_assert(PD_CTR_FITS(n, pd_shm_desc, name) && PD_CTR_FITS(u, pd_shm_desc, unit) && \
			       PD_CTR_FITS(h, pd_shm_desc, help),                                \
		       "counter " #group "." #id " fits its record");
#include "defs/counters.def"

static const struct {
	const char *name, *unit, *help;
	uint16_t group, kind, word;
	uint16_t is_side; /* a PD_CTR_SIDE line: `word` is the sequence of the rows after it */
} pd_ctr_rows[] = {
#define PD_CTR_SIDE(group, side) {"", "", "", PD_CTR_##group, 0, PD_CTR_##group##_##side, 1},
#define PD_CTR(group, id, name, unit, kind, help) \
	{name, unit, help, PD_CTR_##group, PD_SHM_##kind, PD_CTR_##group##_##id, 0},
#include "defs/counters.def"
};

enum {
#define PD_CTR(group, id, name, unit, kind, help) PD_CTR_INDEX_##group##_##id,
#include "defs/counters.def"
	PD_CTR_DESC_COUNT
};

/* Where the texts stand, by enum pd_ctr_text. */
static const struct {
	uint16_t offset, bytes;
} pd_ctr_texts[] = {
#define PD_CTR_TEXT_FIELD(f)                                                            \
	{                                                                               \
		offsetof(struct pd_ctr_block, f), sizeof(((struct pd_ctr_block *)0)->f) \
	}
	[PD_CTR_TEXT_NAME] = PD_CTR_TEXT_FIELD(name),
	[PD_CTR_TEXT_STATE] = PD_CTR_TEXT_FIELD(state),
	[PD_CTR_TEXT_KIND] = PD_CTR_TEXT_FIELD(kind),
	[PD_CTR_TEXT_PATH] = PD_CTR_TEXT_FIELD(path),
	[PD_CTR_TEXT_REASON] = PD_CTR_TEXT_FIELD(reason),
	[PD_CTR_TEXT_LAST_ERROR] = PD_CTR_TEXT_FIELD(last_error),
};
_Static_assert(PD_ARRAY_SIZE(pd_ctr_texts) == PD_CTR_TEXT_COUNT, "one row per text");

/* The longest of them. */
#define PD_CTR_TEXT_BYTES_MAX sizeof(((struct pd_ctr_block *)0)->path)

/* An object without a block in the region; made with a cache line's alignment. */
struct pd_ctr_stray {
	union {
		struct pd_ctr_block block;
		char bytes[PD_CTR_BLOCK_BYTES_MAX];
	};
	struct pd_list node;
};

static struct {
	struct pd_lock lock;
	struct pd_list strays;
	char *base; /* the region, NULL before the first use */
	size_t bytes;
	bool shared;    /* the region is a mapping of the file `path` */
	bool fork_held; /* pd_ctr_before_fork took the lock */
	pid_t owner; /* who made the file; a child that forked behind our back must not remove it */
	uint32_t singles[PD_CTR_GROUP_COUNT];
	uint32_t hint[PD_CTR_GROUP_COUNT]; /* no free block stands before it */
	uint64_t gone[PD_CTR_GROUP_COUNT][PD_CTR_BLOCK_BYTES_MAX / 8]; /* strays that were freed */
	char path[4096];
} pd_ctr = {
	.lock = PD_LOCK_INIT(PD_RANK_LEAF),
	.strays = PD_LIST_INIT(pd_ctr.strays),
};

/* Where writes go when there is no memory at all: shared by all, read by nobody. */
static union {
	struct pd_ctr_block block;
	char bytes[PD_CTR_BLOCK_BYTES_MAX];
} pd_ctr_sink PD_CACHE_ALIGNED;

/* --- the region ------------------------------------------------------------------------------ */

/* The header at the start of the region; the records; block `i` of `group`. */
static struct pd_shm_header *pd_ctr_header(void)
{
	return (struct pd_shm_header *)(void *)pd_ctr.base;
}

static struct pd_shm_group *pd_ctr_group_at(unsigned group)
{
	return (struct pd_shm_group *)(void *)(pd_ctr.base + pd_ctr_header()->group_offset) + group;
}

static struct pd_ctr_block *pd_ctr_block_at(unsigned group, uint32_t i)
{
	const struct pd_shm_group *g = pd_ctr_group_at(group);

	return (struct pd_ctr_block *)(void *)(pd_ctr.base + g->block_offset +
					       (size_t)i * g->block_stride);
}

/* True when `b` stands in the region. */
static bool pd_ctr_in_region(const struct pd_ctr_block *b)
{
	return (const char *)b >= pd_ctr.base && (const char *)b < pd_ctr.base + pd_ctr.bytes;
}

/* How many blocks a group has: PROCESS one, the others two more for the sums. */
static uint32_t pd_ctr_block_count(unsigned group)
{
	return pd_ctr.singles[group] + (group == PD_CTR_PROCESS ? 0 : 2);
}

/* Write header, group records and descriptors into the fresh region. */
static void pd_ctr_describe(const uint32_t *block_offsets)
{
	struct pd_shm_header *h = pd_ctr_header();
	struct pd_shm_desc *d;
	uint32_t seq_word = 0;

	h->major = PD_SHM_MAJOR;
	h->minor = PD_SHM_MINOR;
	h->header_bytes = sizeof(*h);
	h->file_bytes = pd_ctr.bytes;
	h->group_offset = sizeof(*h);
	h->group_stride = sizeof(struct pd_shm_group);
	h->group_count = PD_CTR_GROUP_COUNT;
	h->desc_offset = h->group_offset + PD_CTR_GROUP_COUNT * sizeof(struct pd_shm_group);
	h->desc_stride = sizeof(struct pd_shm_desc);
	h->desc_count = PD_CTR_DESC_COUNT;
	snprintf(h->program, sizeof(h->program), "%s", program_invocation_short_name);
	snprintf(h->version, sizeof(h->version), "%s", PACKAGE_VERSION);
	for (unsigned g = 0; g < PD_CTR_GROUP_COUNT; g++) {
		struct pd_shm_group *rec = pd_ctr_group_at(g);

		snprintf(rec->name, sizeof(rec->name), "%s", pd_ctr_groups[g].name);
		snprintf(rec->help, sizeof(rec->help), "%s", pd_ctr_groups[g].help);
		rec->block_offset = block_offsets[g];
		rec->block_stride = pd_ctr_groups[g].bytes;
		rec->block_count = pd_ctr_block_count(g);
	}
	d = (struct pd_shm_desc *)(void *)(pd_ctr.base + h->desc_offset);
	for (size_t i = 0, n = 0; i < PD_ARRAY_SIZE(pd_ctr_rows); i++) {
		struct pd_shm_group *rec = pd_ctr_group_at(pd_ctr_rows[i].group);

		if (pd_ctr_rows[i].is_side) {
			seq_word = pd_ctr_rows[i].word;
			continue;
		}
		snprintf(d[n].name, sizeof(d[n].name), "%s", pd_ctr_rows[i].name);
		snprintf(d[n].unit, sizeof(d[n].unit), "%s", pd_ctr_rows[i].unit);
		snprintf(d[n].help, sizeof(d[n].help), "%s", pd_ctr_rows[i].help);
		d[n].group = pd_ctr_rows[i].group;
		d[n].kind = pd_ctr_rows[i].kind;
		d[n].word = pd_ctr_rows[i].word;
		d[n].seq_word = seq_word;
		if (!rec->desc_count++)
			rec->desc_first = (uint32_t)n;
		n++;
	}
}

/* Put a block to use. Lock held; `b` is free or fresh. */
static void pd_ctr_block_start(struct pd_ctr_block *b, unsigned group, int64_t id, uint32_t parent,
			       enum pd_shm_role role, const char *name)
{
	size_t bytes = pd_ctr_groups[group].bytes;
	uint32_t generation = pd_load_relaxed(&b->generation);
	uint64_t *words = pd_ctr_words(b);
	struct pd_ctr_block head = {
		.group = group, .id = id, .parent = parent, .role = role, .born_ns = pd_clock_ns()};
	const uint64_t *from = (const uint64_t *)(const void *)&head;

	/* Values that reads acquire, as everything in a block: a reader may still look at the last
	 * tenant. */
	snprintf(head.name, sizeof(head.name), "%s", name ? name : "");
	pd_store_release(&b->group, group);
	for (size_t i = 1; i < bytes / 8; i++)
		pd_store_release(&words[i], i < PD_SHM_BLOCK_HEAD_WORDS ? from[i] : 0);
	/* Pairs with the reader's acquire of the generation. */
	pd_store_release(&b->generation, generation + 1);
}

/*
 * Make the region as private memory if there is none; lock held. Returns 0 or -errno.
 * `sockets`: blocks for single sockets.
 */
static int pd_ctr_region_make(unsigned sockets)
{
	static const uint32_t singles[PD_CTR_GROUP_COUNT] = {
		[PD_CTR_PROCESS] = 1,
		[PD_CTR_PORT] = PD_CTR_PORTS_MAX,
		[PD_CTR_LANE] = PD_CTR_LANES_MAX,
	};
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint32_t offsets[PD_CTR_GROUP_COUNT];
	size_t bytes;
	char *base;

	if (pd_ctr.base)
		return 0;
	bytes = sizeof(struct pd_shm_header) + PD_CTR_GROUP_COUNT * sizeof(struct pd_shm_group) +
		PD_CTR_DESC_COUNT * sizeof(struct pd_shm_desc);
	for (unsigned g = 0; g < PD_CTR_GROUP_COUNT; g++) {
		pd_ctr.singles[g] =
			g == PD_CTR_SOCKET ? pd_min(sockets, PD_CTR_SOCKETS_MAX + 0u) : singles[g];
		bytes = (bytes + PD_CACHE_LINE - 1) & ~(size_t)(PD_CACHE_LINE - 1);
		offsets[g] = (uint32_t)bytes;
		bytes += (size_t)pd_ctr_groups[g].bytes * pd_ctr_block_count(g);
	}
	bytes = (bytes + page - 1) & ~(page - 1);
	base = pd_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pd_sys_is_error(base))
		return (int)(intptr_t)base;
	pd_ctr.base = base;
	pd_ctr.bytes = bytes;
	pd_ctr_describe(offsets);
	pd_ctr_block_start(pd_ctr_block_at(PD_CTR_PROCESS, 0), PD_CTR_PROCESS, pd_sys_getpid(),
			   PD_SHM_NONE, PD_SHM_SINGLE, program_invocation_short_name);
	return 0;
}

int pd_ctr_open(const char *dir, unsigned sockets)
{
	struct pd_shm_owner self;
	struct pd_shm_header *h;
	int ret = 0, fd;
	void *map;

	pd_lock(&pd_ctr.lock);
	ret = pd_ctr_region_make(sockets);
	if (ret < 0 || pd_ctr.shared || (dir && !*dir))
		goto out;
	pd_ctr_file_self(&self);
	h = pd_ctr_header();
	h->pid = self.pid;
	h->start_ticks = self.start_ticks;
	h->pidns = self.pidns;
	h->created_ns = pd_clock_ns();
	pd_store_relaxed(&h->state, PD_SHM_LIVE);
	fd = pd_ctr_file_create(dir, &self, pd_ctr.base, pd_ctr.bytes, pd_ctr.path,
				sizeof(pd_ctr.path));
	ret = pd_min(fd, 0);
	if (fd < 0)
		goto out;
	map = pd_sys_mmap(NULL, pd_ctr.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	pd_sys_close(fd);
	if (!pd_sys_is_error(map))
		map = pd_sys_mremap_to(map, pd_ctr.bytes, pd_ctr.base);
	if (pd_sys_is_error(map)) {
		ret = (int)(intptr_t)map;
		pd_sys_unlink(pd_ctr.path);
		goto out;
	}
	pd_ctr.shared = true;
	pd_ctr.owner = pd_sys_getpid();
	/* Readers take the file for complete from here on; they acquire it. */
	pd_store_release(&h->magic, PD_SHM_MAGIC);
out:
	pd_unlock(&pd_ctr.lock);
	return ret;
}

void pd_ctr_close(void)
{
	pd_lock(&pd_ctr.lock);
	if (pd_ctr.shared && pd_ctr.owner == pd_sys_getpid()) {
		/* The mapping stays: what still writes, writes to a file without a name. */
		pd_store_release(&pd_ctr_header()->state, PD_SHM_CLOSED);
		pd_sys_unlink(pd_ctr.path);
	}
	pd_ctr.shared = false;
	pd_unlock(&pd_ctr.lock);
}

/* At exit and at dlclose; handlers of the program still arrive. */
__attribute__((destructor)) static void pd_ctr_at_exit(void)
{
	if (!pd_ctr.shared)
		return; /* and perhaps the library never began: nothing of it may be called */
	pd_lib_enter();
	pd_ctr_close();
	pd_lib_leave();
}

const char *pd_ctr_path(void)
{
	return pd_ctr.shared ? pd_ctr.path : NULL;
}

/* --- sums ------------------------------------------------------------------------------------ */

/* Add the value `v` of row `row` to `sum`: high-water marks by the greater, `gauges` says whether
 * they count. */
static void pd_ctr_sum_row(size_t row, uint64_t *sum, uint64_t v, bool gauges)
{
	uint64_t *to = &sum[pd_ctr_rows[row].word];

	if (pd_ctr_rows[row].kind == PD_SHM_COUNTER ||
	    (pd_ctr_rows[row].kind == PD_SHM_GAUGE && gauges))
		*to += v;
	else if (pd_ctr_rows[row].kind == PD_SHM_MAX)
		*to = pd_max(*to, v);
}

/* Add the values of `b`, a block of `group`, to `sum` (words as in a block). */
static void pd_ctr_sum(uint64_t *sum, unsigned group, struct pd_ctr_block *b, bool gauges)
{
	for (size_t i = 0; i < PD_ARRAY_SIZE(pd_ctr_rows); i++)
		if (pd_ctr_rows[i].group == group && !pd_ctr_rows[i].is_side)
			pd_ctr_sum_row(i, sum, pd_ctr_get(b, pd_ctr_rows[i].word), gauges);
}

/* Publish `sum` in the block of `group` for `role`, putting it to use if it is not. Lock held. */
static void pd_ctr_sum_store(unsigned group, enum pd_shm_role role, const uint64_t *sum)
{
	uint32_t i = pd_ctr.singles[group] + (role == PD_SHM_PAST);
	struct pd_ctr_block *b = pd_ctr_block_at(group, i);
	int side = 0;

	if (!(pd_load_relaxed(&b->generation) & 1))
		pd_ctr_block_start(b, group, -1, PD_SHM_NONE, role,
				   role == PD_SHM_PAST ? "(closed)" : "(others)");
	for (size_t r = 0; r < PD_ARRAY_SIZE(pd_ctr_rows); r++) {
		if (pd_ctr_rows[r].group != group)
			continue;
		if (pd_ctr_rows[r].is_side) {
			if (side)
				pd_ctr_end(b, side);
			side = pd_ctr_rows[r].word;
			pd_ctr_begin(b, side);
			continue;
		}
		pd_ctr_set(b, pd_ctr_rows[r].word, sum[pd_ctr_rows[r].word]);
	}
	pd_ctr_end(b, side);
}

/* The single block of the port with index `id`, or NULL. Lock held. */
static struct pd_ctr_block *pd_ctr_port_find(uint32_t id)
{
	for (uint32_t i = 0; id != PD_SHM_NONE && i < pd_ctr.singles[PD_CTR_PORT]; i++) {
		struct pd_ctr_block *b = pd_ctr_block_at(PD_CTR_PORT, i);

		if ((pd_load_relaxed(&b->generation) & 1) && b->id == (int64_t)id)
			return b;
	}
	return NULL;
}

/* Add to the port's own counters those of the lane that have the same names. */
static void pd_ctr_fold_lane(struct pd_ctr_block *port, struct pd_ctr_block *lane)
{
	for (size_t i = 0; i < PD_ARRAY_SIZE(pd_ctr_rows); i++) {
		if (pd_ctr_rows[i].group != PD_CTR_LANE || pd_ctr_rows[i].is_side)
			continue;
		for (size_t j = 0; j < PD_ARRAY_SIZE(pd_ctr_rows); j++)
			if (pd_ctr_rows[j].group == PD_CTR_PORT &&
			    !strcmp(pd_ctr_rows[i].name, pd_ctr_rows[j].name))
				pd_ctr_count(port, pd_ctr_rows[j].word,
					     pd_ctr_get(lane, pd_ctr_rows[i].word));
	}
}

/* Bring the OTHERS blocks up to date. Lock held, region there. */
static void pd_ctr_sum_others(void)
{
	uint64_t sum[PD_CTR_BLOCK_BYTES_MAX / 8];
	struct pd_ctr_stray *s;

	for (unsigned g = 0; g < PD_CTR_GROUP_COUNT; g++) {
		bool any = false;

		memcpy(sum, pd_ctr.gone[g], sizeof(sum));
		pd_list_for_each (s, &pd_ctr.strays, node) {
			if (s->block.group != g)
				continue;
			pd_ctr_sum(sum, g, &s->block, true);
			any = true;
		}
		if (any ||
		    (g != PD_CTR_PROCESS &&
		     (pd_load_relaxed(&pd_ctr_block_at(g, pd_ctr.singles[g])->generation) & 1)))
			pd_ctr_sum_store(g, PD_SHM_OTHERS, sum);
	}
}

void pd_ctr_publish(void)
{
	pd_lock(&pd_ctr.lock);
	if (pd_ctr.base) {
		pd_ctr_sum_others();
		pd_store_relaxed(&pd_ctr_header()->published_ns, pd_clock_ns());
	}
	pd_unlock(&pd_ctr.lock);
}

/* --- blocks ---------------------------------------------------------------------------------- */

/* A block in the heap for an object that finds none in the region; lock held. Never NULL. */
static struct pd_ctr_block *pd_ctr_stray_make(unsigned group)
{
	struct pd_ctr_stray *s;
	void *mem;

	if (posix_memalign(&mem, PD_CACHE_LINE, sizeof(*s)))
		return &pd_ctr_sink.block;
	s = mem;
	memset(s, 0, sizeof(*s));
	pd_list_add_tail(&pd_ctr.strays, &s->node);
	return &s->block;
}

struct pd_ctr_block *pd_ctr_alloc(enum pd_ctr_group group, int64_t id, uint32_t parent,
				  const char *name)
{
	struct pd_ctr_block *b = NULL;

	if ((unsigned)group >= PD_CTR_GROUP_COUNT)
		return &pd_ctr_sink.block;
	pd_lock(&pd_ctr.lock);
	if (!pd_ctr_region_make(PD_CTR_SOCKETS_DEFAULT)) {
		uint32_t i = pd_ctr.hint[group];

		while (i < pd_ctr.singles[group] &&
		       (pd_load_relaxed(&pd_ctr_block_at(group, i)->generation) & 1))
			i++;
		pd_ctr.hint[group] = i;
		if (i < pd_ctr.singles[group])
			b = pd_ctr_block_at(group, i);
	}
	if (!b)
		b = pd_ctr_stray_make(group);
	if (b != &pd_ctr_sink.block)
		pd_ctr_block_start(b, group, id, parent, PD_SHM_SINGLE, name);
	pd_unlock(&pd_ctr.lock);
	return b;
}

/* Give a block of the region back; lock held. */
static void pd_ctr_free_single(struct pd_ctr_block *b, unsigned group)
{
	struct pd_ctr_block *port = group == PD_CTR_LANE ? pd_ctr_port_find(b->parent) : NULL;
	const struct pd_shm_group *g = pd_ctr_group_at(group);
	struct pd_ctr_block *past = pd_ctr_block_at(group, pd_ctr.singles[group] + 1);
	uint64_t sum[PD_CTR_BLOCK_BYTES_MAX / 8] = {0};
	uint32_t index;

	/* Out of use first: a reader between the two sees the object missing, never counted twice.
	 */
	pd_store_release(&b->generation, pd_load_relaxed(&b->generation) + 1);
	if (port) {
		pd_ctr_fold_lane(port, b);
	} else {
		if (pd_load_relaxed(&past->generation) & 1)
			pd_ctr_sum(sum, group, past, false);
		pd_ctr_sum(sum, group, b, false);
		pd_ctr_sum_store(group, PD_SHM_PAST, sum);
	}
	index = (uint32_t)(((char *)b - pd_ctr.base - g->block_offset) / g->block_stride);
	pd_ctr.hint[group] = pd_min(pd_ctr.hint[group], index);
}

/* Write the report of a socket. Lock held. */
static void pd_ctr_report(struct pd_ctr_block *b)
{
	struct pd_ctr_block *port = pd_ctr.base ? pd_ctr_port_find(b->parent) : NULL;

	pd_ctr_report_write(b, port ? port->name : "");
}

void pd_ctr_report_all(void)
{
	struct pd_ctr_stray *s;

	pd_ctr_report_begin();
	pd_lock(&pd_ctr.lock);
	for (uint32_t i = 0; pd_ctr.base && i < pd_ctr.singles[PD_CTR_SOCKET]; i++) {
		struct pd_ctr_block *b = pd_ctr_block_at(PD_CTR_SOCKET, i);

		if (pd_load_relaxed(&b->generation) & 1)
			pd_ctr_report(b);
	}
	pd_list_for_each (s, &pd_ctr.strays, node)
		if (s->block.group == PD_CTR_SOCKET)
			pd_ctr_report(&s->block);
	pd_unlock(&pd_ctr.lock);
}

void pd_ctr_free(struct pd_ctr_block *b)
{
	struct pd_ctr_stray *s;

	if (!b || b == &pd_ctr_sink.block)
		return;
	pd_ctr_report_begin();
	pd_lock(&pd_ctr.lock);
	if (b->group == PD_CTR_SOCKET)
		pd_ctr_report(b);
	if (pd_ctr_in_region(b)) {
		if (b->group != PD_CTR_PROCESS && b->role == PD_SHM_SINGLE)
			pd_ctr_free_single(b, b->group);
	} else {
		s = pd_container_of(b, struct pd_ctr_stray, block);
		pd_ctr_sum(pd_ctr.gone[b->group], b->group, b, false);
		pd_list_del(&s->node);
		free(s);
	}
	pd_unlock(&pd_ctr.lock);
}

struct pd_ctr_block *pd_ctr_process(void)
{
	struct pd_ctr_block *b = &pd_ctr_sink.block;

	pd_lock(&pd_ctr.lock);
	if (!pd_ctr_region_make(PD_CTR_SOCKETS_DEFAULT))
		b = pd_ctr_block_at(PD_CTR_PROCESS, 0);
	pd_unlock(&pd_ctr.lock);
	return b;
}

/* Set the texts that are not NULL in `texts`, cut to their places, as one change. */
static void pd_ctr_texts_store(struct pd_ctr_block *b, const char *const texts[PD_CTR_TEXT_COUNT])
{
	if (b == &pd_ctr_sink.block)
		return;
	pd_lock(&pd_ctr.lock);
	pd_store_relaxed(&b->text_seq, b->text_seq | 1);
	for (int t = 0; t < PD_CTR_TEXT_COUNT; t++) {
		uint64_t text[PD_CTR_TEXT_BYTES_MAX / 8] = {0};
		uint64_t *to = pd_ctr_words(b) + pd_ctr_texts[t].offset / 8;
		size_t bytes = pd_ctr_texts[t].bytes;

		if (!texts[t])
			continue;
		memcpy(text, texts[t], strnlen(texts[t], bytes - 1));
		for (size_t i = 0; i < bytes / 8; i++)
			pd_store_release(&to[i], text[i]);
	}
	/* Pairs with the acquire of the sequence in pd_shm_snapshot. */
	pd_store_release(&b->text_seq, (b->text_seq | 1) + 1);
	pd_unlock(&pd_ctr.lock);
}

void pd_ctr_text(struct pd_ctr_block *b, enum pd_ctr_text which, const char *fmt, ...)
{
	const char *texts[PD_CTR_TEXT_COUNT] = {0};
	char text[PD_CTR_TEXT_BYTES_MAX];
	va_list ap;

	if ((unsigned)which >= PD_CTR_TEXT_COUNT)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	texts[which] = text;
	pd_ctr_texts_store(b, texts);
}

void pd_ctr_status(struct pd_ctr_block *b, const char *state, const char *reason,
		   const char *last_error)
{
	const char *texts[PD_CTR_TEXT_COUNT] = {
		[PD_CTR_TEXT_STATE] = state,
		[PD_CTR_TEXT_REASON] = reason,
		[PD_CTR_TEXT_LAST_ERROR] = last_error,
	};

	pd_ctr_texts_store(b, texts);
}

void pd_ctr_set_parent(struct pd_ctr_block *b, uint32_t parent)
{
	pd_store_release(&b->parent, parent);
}

/* --- fork ------------------------------------------------------------------------------------ */

void pd_ctr_before_fork(void)
{
	pd_lock(&pd_ctr.lock);
	pd_ctr.fork_held = true;
}

void pd_ctr_after_fork_in_parent(void)
{
	pd_ctr.fork_held = false;
	pd_unlock(&pd_ctr.lock);
}

/* Zero the counters of `b` and close the sides that a thread of the parent had open. Gauges stay.
 */
static void pd_ctr_block_restart(struct pd_ctr_block *b)
{
	uint64_t *words = pd_ctr_words(b);

	pd_store_relaxed(&b->text_seq, 0);
	for (size_t i = 0; i < PD_ARRAY_SIZE(pd_ctr_rows); i++)
		if (pd_ctr_rows[i].group == b->group &&
		    (pd_ctr_rows[i].is_side || pd_ctr_rows[i].kind == PD_SHM_COUNTER))
			pd_store_relaxed(&words[pd_ctr_rows[i].word], 0);
}

/* Replace the parent's file by a private copy at the same address. */
static void pd_ctr_unshare(void)
{
	void *copy = pd_sys_mmap(NULL, pd_ctr.bytes, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t *to = copy, *from = (uint64_t *)(void *)pd_ctr.base;

	if (pd_sys_is_error(copy))
		return;
	for (size_t i = 0; i < pd_ctr.bytes / 8; i++) /* the parent goes on writing */
		to[i] = pd_load_relaxed(&from[i]);
	pd_sys_mremap_to(copy, pd_ctr.bytes, pd_ctr.base);
}

void pd_ctr_after_fork_in_child(void)
{
	struct pd_ctr_stray *s;

	if (pd_ctr.fork_held)
		pd_ctr_after_fork_in_parent();
	else
		pd_lock_init(&pd_ctr.lock, PD_RANK_LEAF); /* whoever held it does not exist here */
	if (!pd_ctr.base)
		return;
	if (pd_ctr.shared)
		pd_ctr_unshare();
	pd_ctr.shared = false;
	pd_ctr_header()->magic = 0;
	pd_ctr_header()->published_ns = 0;
	memset(pd_ctr.gone, 0, sizeof(pd_ctr.gone));
	for (unsigned g = 0; g < PD_CTR_GROUP_COUNT; g++)
		for (uint32_t i = 0; i < pd_ctr_block_count(g); i++)
			if (pd_ctr_block_at(g, i)->generation & 1)
				pd_ctr_block_restart(pd_ctr_block_at(g, i));
	pd_list_for_each (s, &pd_ctr.strays, node)
		pd_ctr_block_restart(&s->block);
}
