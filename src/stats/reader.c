/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading a statistics file.
 *
 * Header and records never change once the magic is there, so they are copied and checked once;
 * nothing is used that has not been checked in the copy. Blocks are read as counters/shm.h says. A
 * file that its owner cuts short under us gives SIGBUS; main.c turns that into a message.
 */
#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "reader.h"

#define PD_STATS_GROUPS_MAX 64
#define PD_STATS_DESCS_MAX 4096
#define PD_STATS_BLOCK_MAX 65536

/*
 * Tries for one side: a burst, then some with a pause, for a writer that lost its core in the
 * middle.
 */
#define PD_STATS_TRIES 100
#define PD_STATS_PAUSES 20

/* True when `count` records of `stride` bytes from `offset` lie within `bytes` and are aligned. */
static bool pd_stats_range_ok(uint64_t offset, uint64_t stride, uint64_t count, uint64_t bytes)
{
	return offset % 8 == 0 && stride % 8 == 0 && offset <= bytes &&
	       count * stride <= bytes - offset;
}

/* End a text of `bytes` bytes and take out what would move a terminal's cursor. */
static void pd_stats_text_clean(char *text, size_t bytes)
{
	text[bytes - 1] = '\0';
	for (char *p = text; *p; p++)
		if (iscntrl((unsigned char)*p))
			*p = '?';
}

/* Check the copied header. Returns 0 or -errno as pd_stats_file_open. */
static int pd_stats_header_check(const struct pd_shm_header *h, size_t bytes)
{
	if (h->major != PD_SHM_MAJOR)
		return -EPROTO;
	if (h->header_bytes < sizeof(*h) || h->file_bytes != bytes ||
	    h->group_count > PD_STATS_GROUPS_MAX || h->desc_count > PD_STATS_DESCS_MAX ||
	    h->group_stride < sizeof(struct pd_shm_group) ||
	    h->desc_stride < sizeof(struct pd_shm_desc) ||
	    !pd_stats_range_ok(h->group_offset, h->group_stride, h->group_count, bytes) ||
	    !pd_stats_range_ok(h->desc_offset, h->desc_stride, h->desc_count, bytes))
		return -EBADMSG;
	return 0;
}

/* Copy and check groups and descriptors. Returns 0 or -errno; the caller frees on an error. */
static int pd_stats_records_load(struct pd_stats_file *f)
{
	const struct pd_shm_header *h = &f->header;

	f->groups = calloc(h->group_count + 1u, sizeof(*f->groups));
	f->descs = calloc(h->desc_count + 1u, sizeof(*f->descs));
	if (!f->groups || !f->descs)
		return -ENOMEM;
	for (unsigned i = 0; i < h->group_count; i++) {
		struct pd_shm_group *g = &f->groups[i];

		memcpy(g, f->map + h->group_offset + (size_t)i * h->group_stride, sizeof(*g));
		pd_stats_text_clean(g->name, sizeof(g->name));
		pd_stats_text_clean(g->help, sizeof(g->help));
		if (!pd_stats_range_ok(g->block_offset, g->block_stride, g->block_count,
				       f->bytes) ||
		    g->block_stride < 8 * pd_shm_head_words(h->minor) ||
		    g->block_stride > PD_STATS_BLOCK_MAX ||
		    (uint64_t)g->desc_first + g->desc_count > h->desc_count)
			return -EBADMSG;
	}
	for (unsigned i = 0; i < h->desc_count; i++) {
		struct pd_shm_desc *d = &f->descs[i];
		uint32_t words;

		memcpy(d, f->map + h->desc_offset + (size_t)i * h->desc_stride, sizeof(*d));
		pd_stats_text_clean(d->name, sizeof(d->name));
		pd_stats_text_clean(d->unit, sizeof(d->unit));
		pd_stats_text_clean(d->help, sizeof(d->help));
		if (d->group >= h->group_count)
			return -EBADMSG;
		words = f->groups[d->group].block_stride / 8;
		if (d->word >= words || d->seq_word >= words ||
		    d->word < pd_shm_head_words(h->minor) ||
		    d->seq_word < pd_shm_head_words(h->minor))
			return -EBADMSG;
	}
	/* A group's descriptors are its own: their words were checked against its stride. */
	for (unsigned i = 0; i < h->group_count; i++)
		for (unsigned d = 0; d < f->groups[i].desc_count; d++)
			if (f->descs[f->groups[i].desc_first + d].group != i)
				return -EBADMSG;
	return 0;
}

int pd_stats_file_open(int fd, const struct pd_shm_owner *owner, struct pd_stats_file *out)
{
	struct pd_stats_file f = {.fd = fd, .owner = *owner};
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < (off_t)sizeof(struct pd_shm_header))
		return -EAGAIN;
	f.bytes = (size_t)st.st_size;
	f.map = mmap(NULL, f.bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (f.map == MAP_FAILED)
		return -errno;
	ret = -EAGAIN;
	/* Pairs with the release store of the magic in pd_ctr_open. */
	if (!__atomic_load_n((const uint64_t *)(const void *)f.map, __ATOMIC_ACQUIRE))
		goto err;
	memcpy(&f.header, f.map, sizeof(f.header));
	ret = -EBADMSG;
	if (f.header.magic != PD_SHM_MAGIC)
		goto err;
	pd_stats_text_clean(f.header.program, sizeof(f.header.program));
	pd_stats_text_clean(f.header.version, sizeof(f.header.version));
	ret = pd_stats_header_check(&f.header, f.bytes);
	if (!ret)
		ret = pd_stats_records_load(&f);
	if (ret)
		goto err;
	*out = f;
	return 0;
err:
	free(f.groups);
	free(f.descs);
	munmap((void *)(uintptr_t)f.map, f.bytes);
	return ret;
}

void pd_stats_file_close(struct pd_stats_file *f)
{
	free(f->groups);
	free(f->descs);
	munmap((void *)(uintptr_t)f->map, f->bytes);
	close(f->fd);
}

bool pd_stats_file_ended(const struct pd_stats_file *f)
{
	const struct pd_shm_header *h = (const void *)f->map;
	struct stat st;

	return __atomic_load_n(&h->state, __ATOMIC_ACQUIRE) == PD_SHM_CLOSED ||
	       fstat(f->fd, &st) < 0 || !st.st_nlink;
}

/* A snapshot under `seq` as pd_shm_snapshot, with patience. Returns false when it may be torn. */
static bool pd_stats_words(const uint64_t *seq, const uint64_t *src, uint64_t *dst, size_t n)
{
	struct timespec pause = {.tv_nsec = 500000};

	for (int i = 0; i < PD_STATS_PAUSES; i++) {
		if (pd_shm_snapshot(seq, src, dst, n, PD_STATS_TRIES))
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

/* Read the counters of the block at `words`: side by side, each under its own sequence. */
static void pd_stats_sides_read(const struct pd_stats_file *f, const struct pd_shm_group *g,
				const uint64_t *words, struct pd_stats_block *b)
{
	const struct pd_shm_desc *d = &f->descs[g->desc_first];
	uint64_t raw[PD_STATS_BLOCK_MAX / 8];

	for (unsigned i = 0, end; i < g->desc_count; i = end) {
		uint32_t low = d[i].word, high = d[i].word;

		for (end = i; end < g->desc_count && d[end].seq_word == d[i].seq_word; end++) {
			low = d[end].word < low ? d[end].word : low;
			high = d[end].word > high ? d[end].word : high;
		}
		if (!pd_stats_words(&words[d[i].seq_word], &words[low], raw, high - low + 1))
			b->torn = true;
		for (unsigned j = i; j < end; j++)
			b->values[j] = raw[d[j].word - low];
	}
}

/* Read block `i` of group `group`. Returns false when it is not in use. */
static bool pd_stats_block_read(const struct pd_stats_file *f, unsigned group, unsigned i,
				struct pd_stats_block *b)
{
	const struct pd_shm_group *g = &f->groups[group];
	const char *at = f->map + g->block_offset + (size_t)i * g->block_stride;
	const struct pd_ctr_block *shared = (const void *)at;
	const uint64_t *words = (const void *)at;
	uint64_t *head = (void *)&b->head;
	const size_t text = offsetof(struct pd_ctr_block, name) / 8;

	memset(&b->head, 0, sizeof(b->head)); /* what the file's version does not have */
	for (int tries = 0; tries < 3; tries++) {
		/* Pairs with the release store of the generation in pd_ctr_alloc. */
		uint32_t generation = __atomic_load_n(&shared->generation, __ATOMIC_ACQUIRE);
		uint64_t texts = __atomic_load_n(&shared->text_seq, __ATOMIC_ACQUIRE);

		if (!(generation & 1))
			return false;
		b->torn = false;
		b->index = i;
		for (size_t w = 1; w < text; w++)
			head[w] = __atomic_load_n(&words[w], __ATOMIC_ACQUIRE);
		if (!pd_stats_words(&shared->text_seq, words + text, head + text,
				    pd_shm_head_words(f->header.minor) - text))
			b->torn = true;
		pd_stats_sides_read(f, g, words, b);
		b->head.generation = generation;
		b->head.group = group;
		/*
		 * With newer texts: what was counted of the change may be among the values, so that
		 * it would be there without its reason.
		 */
		if (__atomic_load_n(&shared->text_seq, __ATOMIC_RELAXED) == texts &&
		    __atomic_load_n(&shared->generation, __ATOMIC_RELAXED) == generation)
			break;
	}
	pd_stats_text_clean(b->head.name, sizeof(b->head.name));
	pd_stats_text_clean(b->head.state, sizeof(b->head.state));
	pd_stats_text_clean(b->head.kind, sizeof(b->head.kind));
	pd_stats_text_clean(b->head.path, sizeof(b->head.path));
	pd_stats_text_clean(b->head.reason, sizeof(b->head.reason));
	pd_stats_text_clean(b->head.last_error, sizeof(b->head.last_error));
	return true;
}

/* Find `b` in the snapshot of a cycle ago: the same tenant of the same place. */
static void pd_stats_before_find(const struct pd_stats_snap *before, struct pd_stats_block *b)
{
	b->before = NULL;
	for (size_t i = 0; before && i < before->count; i++) {
		const struct pd_stats_block *o = &before->blocks[i];

		if (o->head.group == b->head.group && o->index == b->index &&
		    o->head.generation == b->head.generation) {
			b->before = o;
			return;
		}
	}
}

int pd_stats_snap_take(const struct pd_stats_file *f, const struct pd_stats_snap *before,
		       struct pd_stats_snap *out)
{
	size_t blocks = 0, values = 0;
	struct timespec ts;
	uint64_t *v;

	for (unsigned g = 0; g < f->header.group_count; g++) {
		blocks += f->groups[g].block_count;
		values += (size_t)f->groups[g].block_count * f->groups[g].desc_count;
	}
	*out = (struct pd_stats_snap){.blocks = calloc(blocks + 1, sizeof(*out->blocks)),
				      .values = calloc(values + 1, sizeof(*out->values))};
	if (!out->blocks || !out->values) {
		pd_stats_snap_free(out);
		return -ENOMEM;
	}
	clock_gettime(CLOCK_MONOTONIC, &ts);
	out->now_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	out->before = before;
	out->elapsed_s = before ? (double)(out->now_ns - before->now_ns) / 1e9 : 0;
	v = out->values;
	for (unsigned g = 0; g < f->header.group_count; g++)
		for (unsigned i = 0; i < f->groups[g].block_count; i++) {
			struct pd_stats_block *b = &out->blocks[out->count];

			b->values = v;
			if (!pd_stats_block_read(f, g, i, b))
				continue;
			pd_stats_before_find(before, b);
			v += f->groups[g].desc_count;
			out->count++;
		}
	return 0;
}

void pd_stats_snap_free(struct pd_stats_snap *s)
{
	free(s->blocks);
	free(s->values);
	*s = (struct pd_stats_snap){0};
}

int pd_stats_group_find(const struct pd_stats_file *f, const char *name)
{
	for (unsigned g = 0; g < f->header.group_count; g++)
		if (!strcmp(f->groups[g].name, name))
			return (int)g;
	return -1;
}

int pd_stats_desc_find(const struct pd_stats_file *f, unsigned group, const char *name)
{
	const struct pd_shm_group *g = &f->groups[group];

	for (unsigned d = 0; d < g->desc_count; d++)
		if (!strcmp(f->descs[g->desc_first + d].name, name))
			return (int)d;
	return -1;
}

uint64_t pd_stats_total(const struct pd_stats_file *f, const struct pd_stats_snap *s,
			const struct pd_stats_block *b, unsigned d)
{
	int port = pd_stats_group_find(f, "port"), lane = pd_stats_group_find(f, "lane"), in_lane;
	const struct pd_shm_desc *desc = &f->descs[f->groups[b->head.group].desc_first + d];
	uint64_t sum = b->values[d];

	if (lane < 0 || (int)b->head.group != port || b->head.role != PD_SHM_SINGLE ||
	    desc->kind != PD_SHM_COUNTER)
		return sum;
	in_lane = pd_stats_desc_find(f, (unsigned)lane, desc->name);
	for (size_t i = 0; in_lane >= 0 && i < s->count; i++) {
		const struct pd_stats_block *l = &s->blocks[i];

		if ((int)l->head.group == lane && (int64_t)l->head.parent == b->head.id)
			sum += l->values[in_lane];
	}
	return sum;
}

double pd_stats_value(const struct pd_stats_file *f, const struct pd_stats_snap *s,
		      const struct pd_stats_block *b, unsigned d, bool rate)
{
	const struct pd_shm_desc *desc = &f->descs[f->groups[b->head.group].desc_first + d];
	uint64_t now = pd_stats_total(f, s, b, d), then;

	if (!rate || desc->kind != PD_SHM_COUNTER)
		return (double)now;
	if (s->elapsed_s <= 0)
		return 0;
	then = b->before ? pd_stats_total(f, s->before, b->before, d) : 0;
	/* A lane that goes away while we read can be missed for one cycle. */
	return now > then ? (double)(now - then) / s->elapsed_s : 0;
}

bool pd_stats_age(const struct pd_stats_file *f, const struct pd_stats_snap *s,
		  const struct pd_stats_block *b, const char *name, uint64_t *age_ns)
{
	int d = pd_stats_desc_find(f, b->head.group, name);
	uint64_t then = d < 0 ? 0 : b->values[d];

	if (!then)
		return false;
	*age_ns = s->now_ns > then ? s->now_ns - then : 0;
	return true;
}
