/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading a statistics file: mapping, validation, snapshots. */
#ifndef PD_STATS_READER_H
#define PD_STATS_READER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "counters/shm.h"

/* A mapped and validated file. The records are copies, with texts that end and can be printed. */
struct pd_stats_file {
	const char *map;
	size_t bytes;
	int fd;
	struct pd_shm_owner owner;
	struct pd_shm_header header;
	struct pd_shm_group *groups; /* header.group_count */
	struct pd_shm_desc *descs;   /* header.desc_count */
};

/* One block as it was at one moment. */
struct pd_stats_block {
	struct pd_ctr_block head;
	unsigned index; /* its place in its group */
	bool torn; /* the parts may not belong together: its writer was always in the middle, or died there */
	uint64_t *values;                    /* by descriptor of the group */
	const struct pd_stats_block *before; /* itself a cycle ago, or NULL */
};

struct pd_stats_snap {
	uint64_t now_ns;
	double elapsed_s; /* since the snapshot before, 0 for the first */
	const struct pd_stats_snap *before;
	size_t count;
	struct pd_stats_block *blocks; /* group by group, in the file's order */
	uint64_t *values;
};

/*
 * Map the open file `fd` (taken on success). Returns 0; -EAGAIN while its writer is setting it up;
 * -EPROTO when it is of another major version; -EBADMSG when it contradicts itself; another -errno.
 */
int pd_stats_file_open(int fd, const struct pd_shm_owner *owner, struct pd_stats_file *out);
void pd_stats_file_close(struct pd_stats_file *f);

/* True when the writer has said goodbye or the file has no name any more. */
bool pd_stats_file_ended(const struct pd_stats_file *f);

/*
 * Take a snapshot of all blocks in use. `before` (or NULL) is the one of a cycle ago; it must
 * outlive the new one and is what the rates are measured from. Returns 0 or -ENOMEM.
 */
int pd_stats_snap_take(const struct pd_stats_file *f, const struct pd_stats_snap *before,
		       struct pd_stats_snap *out);
void pd_stats_snap_free(struct pd_stats_snap *s);

/*
 * How long ago the moment in the gauge `name` of block `b` was, in ns; false when there is none
 * such.
 */
bool pd_stats_age(const struct pd_stats_file *f, const struct pd_stats_snap *s,
		  const struct pd_stats_block *b, const char *name, uint64_t *age_ns);

/*
 * The index of the group, or of the counter within a group, called `name`; -1 when the library has
 * none.
 */
int pd_stats_group_find(const struct pd_stats_file *f, const char *name);
int pd_stats_desc_find(const struct pd_stats_file *f, unsigned group, const char *name);

/*
 * The counter `d` (within its group) of block `b`; a port's with those of its lanes. With `rate`,
 * per second since the snapshot before (gauges as they are).
 */
double pd_stats_value(const struct pd_stats_file *f, const struct pd_stats_snap *s,
		      const struct pd_stats_block *b, unsigned d, bool rate);

/* The same as a total, exact. */
uint64_t pd_stats_total(const struct pd_stats_file *f, const struct pd_stats_snap *s,
			const struct pd_stats_block *b, unsigned d);

#endif /* PD_STATS_READER_H */
