/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The statistics file: what the library publishes and palladium_stats reads.
 *
 * The only header of the library that a reader needs, and all that the two have in common. The file
 * describes itself: a reader walks the groups and the descriptors and knows no counter by heart, so
 * that it works with an older and a newer library of the same major version. Records are found by
 * the offsets and strides in the header, never by sizeof: a newer minor version may append fields
 * to any record.
 *
 *   header | group records | counter descriptors | blocks of group 0 | blocks of group 1 | ...
 *
 * A block is one port, lane, socket... Its head holds texts; behind it stand the sides, each a
 * sequence number and 64-bit values. Offsets inside a block are counted in 64-bit words from the
 * block's start. Numbers are in the machine's byte order: the file never leaves the machine that
 * wrote it.
 *
 * Consistency. A side has one writer at a time. The writer makes the sequence odd, stores values
 * (each a release store, hence behind the odd sequence), and makes it even with a release store.
 * The reader acquires the sequence, acquires each value, and looks at the sequence again: equal and
 * even means that the values belong together. No fences, so that ThreadSanitizer follows it. The
 * texts of a block have a sequence of their own. A block is in use while its generation is odd; a
 * reader that finds the generation changed drops what it read. A writer that dies in the middle
 * leaves an odd sequence: readers give up after some tries and say so.
 *
 * The file's name tells whose it is without opening it (pd_shm_name_parse): whether the process
 * lives is decided by pid, start time and PID namespace, so that a reused pid and another
 * container's files are told apart.
 */
#ifndef PD_COUNTERS_SHM_H
#define PD_COUNTERS_SHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PD_SHM_MAGIC 0x3130544154534450ull /* "PDSTAT01" in a little-endian dump */
#define PD_SHM_MAJOR 1                     /* a reader refuses another major */
#define PD_SHM_MINOR 1 /* fields appended since the major: 1, last_error of a block */

#define PD_SHM_DIR_PREFIX "palladium-" /* DIR/palladium-UID/, mode 0700 */
#define PD_SHM_FILE_PREFIX "stats."
#define PD_SHM_CLI_PREFIX "cli." /* the socket of the debug CLI, beside it */
#define PD_SHM_NONE UINT32_MAX

/* Where DIR is looked for when nobody named one: the first, then $XDG_RUNTIME_DIR, then the last.
 */
#define PD_SHM_DIR_FIRST "/dev/shm"
#define PD_SHM_DIR_LAST "/tmp"

enum pd_shm_state {
	PD_SHM_LIVE = 1,
	PD_SHM_CLOSED = 2, /* the process ended in good order */
};

enum pd_shm_kind {
	PD_SHM_COUNTER, /* only grows */
	PD_SHM_GAUGE,   /* the value of now */
	PD_SHM_MAX,     /* a high-water mark */
};

/* What a block stands for. */
enum pd_shm_role {
	PD_SHM_SINGLE, /* one object */
	PD_SHM_OTHERS, /* the sum of the objects that found no block of their own */
	PD_SHM_PAST,   /* the sum of the objects that are gone */
};

struct pd_shm_header {
	uint64_t magic;
	uint16_t major;
	uint16_t minor;
	uint32_t header_bytes;
	uint64_t file_bytes;
	uint32_t pid; /* in the writer's own PID namespace */
	uint32_t state;
	uint64_t start_ticks;  /* field 22 of /proc/PID/stat */
	uint64_t pidns;        /* inode of /proc/PID/ns/pid */
	uint64_t created_ns;   /* CLOCK_MONOTONIC */
	uint64_t published_ns; /* CLOCK_MONOTONIC of the last pd_ctr_publish, 0 for never */
	uint32_t group_offset;
	uint32_t group_stride;
	uint32_t group_count;
	uint32_t desc_offset;
	uint32_t desc_stride;
	uint32_t desc_count;
	uint8_t reserved[32];
	char program[64];
	char version[32];
	uint8_t reserved2[40];
};

struct pd_shm_group {
	char name[16];
	char help[64];
	uint32_t block_offset; /* bytes from the start of the file */
	uint32_t block_stride; /* bytes from block to block */
	uint32_t block_count;
	uint32_t desc_first; /* index of this group's first descriptor */
	uint32_t desc_count;
	uint8_t reserved[28];
};

struct pd_shm_desc {
	char name[32];
	char unit[16];
	char help[96];
	uint32_t group;    /* index of the group */
	uint32_t kind;     /* enum pd_shm_kind */
	uint32_t word;     /* where the value stands in a block */
	uint32_t seq_word; /* where the sequence of its side stands */
};

/* The head of every block; the sides follow it. */
struct pd_ctr_block {
	uint32_t generation; /* odd: in use */
	uint32_t group;
	int64_t id;      /* port index, queue number, fd */
	uint32_t parent; /* id of the port it belongs to, or PD_SHM_NONE */
	uint32_t role;   /* enum pd_shm_role */
	uint64_t born_ns;
	uint64_t text_seq;
	uint8_t reserved[24];
	char name[32];
	char state[16];
	char kind[16];        /* transport, or kind of socket */
	char path[128];       /* socket path, or bound address */
	char reason[128];     /* why it is in this state, or why it is not offloaded */
	char last_error[128]; /* what went wrong last, whatever the state is now; minor 1 */
};

#define PD_SHM_BLOCK_HEAD_WORDS (sizeof(struct pd_ctr_block) / 8)

/* How many words the head of a block has in a file of that minor version. */
static inline size_t pd_shm_head_words(unsigned minor)
{
	return minor ? PD_SHM_BLOCK_HEAD_WORDS : offsetof(struct pd_ctr_block, last_error) / 8;
}

#define PD_SHM_AT(type, field, off) \
	_Static_assert(offsetof(struct type, field) == (off), "layout of " #type "." #field)
PD_SHM_AT(pd_shm_header, magic, 0);
PD_SHM_AT(pd_shm_header, major, 8);
PD_SHM_AT(pd_shm_header, minor, 10);
PD_SHM_AT(pd_shm_header, header_bytes, 12);
PD_SHM_AT(pd_shm_header, file_bytes, 16);
PD_SHM_AT(pd_shm_header, pid, 24);
PD_SHM_AT(pd_shm_header, state, 28);
PD_SHM_AT(pd_shm_header, start_ticks, 32);
PD_SHM_AT(pd_shm_header, pidns, 40);
PD_SHM_AT(pd_shm_header, created_ns, 48);
PD_SHM_AT(pd_shm_header, published_ns, 56);
PD_SHM_AT(pd_shm_header, group_offset, 64);
PD_SHM_AT(pd_shm_header, group_stride, 68);
PD_SHM_AT(pd_shm_header, group_count, 72);
PD_SHM_AT(pd_shm_header, desc_offset, 76);
PD_SHM_AT(pd_shm_header, desc_stride, 80);
PD_SHM_AT(pd_shm_header, desc_count, 84);
PD_SHM_AT(pd_shm_header, reserved, 88);
PD_SHM_AT(pd_shm_header, program, 120);
PD_SHM_AT(pd_shm_header, version, 184);
PD_SHM_AT(pd_shm_header, reserved2, 216);
_Static_assert(sizeof(struct pd_shm_header) == 256, "layout of pd_shm_header");
PD_SHM_AT(pd_shm_group, name, 0);
PD_SHM_AT(pd_shm_group, help, 16);
PD_SHM_AT(pd_shm_group, block_offset, 80);
PD_SHM_AT(pd_shm_group, block_stride, 84);
PD_SHM_AT(pd_shm_group, block_count, 88);
PD_SHM_AT(pd_shm_group, desc_first, 92);
PD_SHM_AT(pd_shm_group, desc_count, 96);
PD_SHM_AT(pd_shm_group, reserved, 100);
_Static_assert(sizeof(struct pd_shm_group) == 128, "layout of pd_shm_group");
PD_SHM_AT(pd_shm_desc, name, 0);
PD_SHM_AT(pd_shm_desc, unit, 32);
PD_SHM_AT(pd_shm_desc, help, 48);
PD_SHM_AT(pd_shm_desc, group, 144);
PD_SHM_AT(pd_shm_desc, kind, 148);
PD_SHM_AT(pd_shm_desc, word, 152);
PD_SHM_AT(pd_shm_desc, seq_word, 156);
_Static_assert(sizeof(struct pd_shm_desc) == 160, "layout of pd_shm_desc");
PD_SHM_AT(pd_ctr_block, generation, 0);
PD_SHM_AT(pd_ctr_block, group, 4);
PD_SHM_AT(pd_ctr_block, id, 8);
PD_SHM_AT(pd_ctr_block, parent, 16);
PD_SHM_AT(pd_ctr_block, role, 20);
PD_SHM_AT(pd_ctr_block, born_ns, 24);
PD_SHM_AT(pd_ctr_block, text_seq, 32);
PD_SHM_AT(pd_ctr_block, reserved, 40);
PD_SHM_AT(pd_ctr_block, name, 64);
PD_SHM_AT(pd_ctr_block, state, 96);
PD_SHM_AT(pd_ctr_block, kind, 112);
PD_SHM_AT(pd_ctr_block, path, 128);
PD_SHM_AT(pd_ctr_block, reason, 256);
PD_SHM_AT(pd_ctr_block, last_error, 384);
_Static_assert(sizeof(struct pd_ctr_block) == 512, "layout of pd_ctr_block");

/*
 * Copy `n` words from `src` (shared, not trusted) to `dst` under the sequence at `seq`, trying
 * `tries` times. Returns true when the words belong together; false when a writer was in the middle
 * each time (it is fast, or it died): then `dst` holds the words of the last try, each of them
 * whole.
 */
static inline bool pd_shm_snapshot(const uint64_t *seq, const uint64_t *src, uint64_t *dst,
				   size_t n, unsigned tries)
{
	while (tries--) {
		/* Pairs with the release store of the even sequence in pd_ctr_end. */
		uint64_t before = __atomic_load_n(seq, __ATOMIC_ACQUIRE);

		/* Each pairs with a value's release store: seeing it implies seeing its odd
		 * sequence. */
		for (size_t i = 0; i < n; i++)
			dst[i] = __atomic_load_n(&src[i], __ATOMIC_ACQUIRE);
		if (!(before & 1) && __atomic_load_n(seq, __ATOMIC_RELAXED) == before)
			return true;
	}
	return false;
}

/* Whose file it is, from its name. */
struct pd_shm_owner {
	uint32_t pid;
	uint64_t start_ticks; /* 0: not known */
	uint64_t pidns;       /* 0: not known */
};

/*
 * Take apart the name PREFIX with "PID.START.PIDNS.RANDOM" (all decimal but RANDOM). Returns 0, or
 * -1 when `name` is not of that form; then `out` is untouched.
 */
static inline int pd_shm_name_parse(const char *prefix, const char *name, struct pd_shm_owner *out)
{
	unsigned long long part[3];
	const char *p = name + strlen(prefix);
	char *end;

	if (strncmp(name, prefix, strlen(prefix)))
		return -1;
	for (int i = 0; i < 3; i++) {
		if (*p < '0' || *p > '9')
			return -1;
		part[i] = strtoull(p, &end, 10);
		if (*end != '.')
			return -1;
		p = end + 1;
	}
	if (!part[0] || part[0] > INT32_MAX || !*p || strspn(p, "0123456789abcdef") != strlen(p))
		return -1;
	out->pid = (uint32_t)part[0];
	out->start_ticks = part[1];
	out->pidns = part[2];
	return 0;
}

/*
 * Field `n`, 3 (the state) or a later one, in the text of a /proc/PID/stat, by proc(5)'s numbers;
 * NULL when the text has none.
 */
static inline const char *pd_shm_stat_field(const char *stat, int n)
{
	const char *p = strrchr(stat, ')'); /* the program's name may hold anything */

	for (int field = 2; p && field < n; field++) {
		p = strchr(p, ' ');
		p = p ? p + 1 : NULL;
	}
	return p;
}

/* The start time of a process from the text of its /proc/PID/stat; 0 when the text makes no sense.
 */
static inline uint64_t pd_shm_start_ticks(const char *stat)
{
	const char *p = pd_shm_stat_field(stat, 22);

	return p ? strtoull(p, NULL, 10) : 0;
}

#endif /* PD_COUNTERS_SHM_H */
