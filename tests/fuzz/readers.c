/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tools read: a statistics file that its writer made wrong (palladium_stats), and headers
 * as hex, as bytes and as a capture (palladium_decode, all of it, with its output thrown away).
 */
#include <getopt.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../src/stats/reader.h"
#include "fuzz.h"

/* The program as it is, under another name. */
int decode_main(int argc, char **argv);
#define main decode_main
#include "../../src/decode/palladium_decode.c"
#undef main

static const char *const kinds[] = {"statistics", "headers"};
static int file; /* of the run */

/* Make the file hold these bytes and nothing else. */
static void fill_file(const void *bytes, size_t n)
{
	MUST(!ftruncate(file, 0) && pwrite(file, bytes, n, 0) == (ssize_t)n);
}

/*
 * --- statistics --------------------------------------------------------------------------------
 */

#define GROUPS 3u
#define DESCS 6u
#define BLOCKS 4u
#define BLOCK_BYTES 1024u

/* A file in which all is right, but for what is drawn. */
struct image {
	struct pd_shm_header header;
	struct pd_shm_group groups[GROUPS];
	struct pd_shm_desc descs[DESCS];
	uint64_t blocks[GROUPS][BLOCKS][BLOCK_BYTES / 8];
};

static void image_make(struct image *m)
{
	memset(m, 0, sizeof(*m));
	m->header = (struct pd_shm_header){
		.magic = PD_SHM_MAGIC,
		.major = PD_SHM_MAJOR,
		.minor = PD_SHM_MINOR,
		.header_bytes = sizeof(m->header),
		.file_bytes = sizeof(*m),
		.group_offset = offsetof(struct image, groups),
		.group_stride = sizeof(m->groups[0]),
		.group_count = GROUPS,
		.desc_offset = offsetof(struct image, descs),
		.desc_stride = sizeof(m->descs[0]),
		.desc_count = DESCS,
	};
	for (uint32_t g = 0; g < GROUPS; g++) {
		m->groups[g] = (struct pd_shm_group){
			.block_offset = (uint32_t)(offsetof(struct image, blocks) +
						   g * sizeof(m->blocks[0])),
			.block_stride = BLOCK_BYTES,
			.block_count = BLOCKS,
			.desc_first = g * (DESCS / GROUPS),
			.desc_count = DESCS / GROUPS,
		};
		snprintf(m->groups[g].name, sizeof(m->groups[g].name), "group%u", g);
	}
	for (uint32_t d = 0; d < DESCS; d++) {
		m->descs[d] = (struct pd_shm_desc){
			.group = d / (DESCS / GROUPS),
			.kind = rnd(4),
			.word = PD_SHM_BLOCK_HEAD_WORDS + 1 + rnd(20),
			.seq_word = PD_SHM_BLOCK_HEAD_WORDS,
		};
		snprintf(m->descs[d].name, sizeof(m->descs[d].name), "counter%u", d);
	}
	for (uint32_t i = 0; i < GROUPS * BLOCKS; i++) {
		struct pd_ctr_block *b = (struct pd_ctr_block *)m->blocks[i / BLOCKS][i % BLOCKS];

		b->generation = rnd(2);
		b->parent = one_in(2) ? PD_SHM_NONE : rnd(4);
		b->group = i / BLOCKS;
	}
	/*
	 * Numbers of the header and of the records, or any byte; sequences stay even, or reading
	 * would wait.
	 */
	for (uint32_t n = one_in(4) ? 0 : 1 + rnd(4); n; n--) {
		uint32_t at = 4 * rnd(offsetof(struct image, blocks) / 4);
		uint32_t value = one_in(2) ? rnd(70000) : rnd(UINT32_MAX);

		memcpy((uint8_t *)m + at, &value, one_in(3) ? 1 : 4);
	}
}

/* Returns whether the file was taken for one. */
static bool statistics(void)
{
	static struct image image;
	struct pd_stats_file f;
	struct pd_stats_snap one, two;
	int ret, fd;

	image_make(&image);
	fill_file(&image, rarely(8) ? rnd(sizeof(image)) : sizeof(image));
	fd = dup(file);
	ret = pd_stats_file_open(fd, &(struct pd_shm_owner){0}, &f);
	if (ret) {
		MUST(ret == -EAGAIN || ret == -EPROTO || ret == -EBADMSG);
		close(fd);
		return false;
	}
	MUST(!pd_stats_snap_take(&f, NULL, &one) && !pd_stats_snap_take(&f, &one, &two));
	for (size_t b = 0; b < two.count; b++) {
		uint32_t group = two.blocks[b].head.group;

		for (unsigned d = 0; group < f.header.group_count && d < f.groups[group].desc_count;
		     d++) {
			pd_stats_value(&f, &two, &two.blocks[b], d, one_in(2));
			pd_stats_total(&f, &two, &two.blocks[b], d);
		}
	}
	pd_stats_group_find(&f, "group1");
	if (f.header.group_count)
		pd_stats_desc_find(&f, rnd(f.header.group_count), "counter1");
	pd_stats_file_ended(&f);
	pd_stats_snap_free(&two);
	pd_stats_snap_free(&one);
	pd_stats_file_close(&f);
	return true;
}

/*
 * --- headers -------------------------------------------------------------------------------------
 */

/* A capture of some packets, into `to`; returns its bytes. */
static size_t capture(uint8_t *to, size_t room)
{
	struct pcap_file_header head = {.magic = one_in(2) ? 0xa1b2c3d4 : 0xa1b23c4d,
					.version_major = 2,
					.version_minor = 4,
					.snaplen = 65535,
					.linktype = one_in(4) ? 1 : 147};
	size_t n = sizeof(head);

	memcpy(to, &head, n);
	for (uint32_t k = rnd(4); k; k--) {
		uint32_t bytes = rarely(4) ? rnd(60) : 48;
		uint32_t packet[4] = {rnd(65536), rnd(1000000), bytes, bytes + rnd(2)};

		if (rarely(8))
			packet[2] = rnd(UINT32_MAX);
		if (n + sizeof(packet) + bytes > room)
			break;
		memcpy(to + n, packet, sizeof(packet));
		n += sizeof(packet);
		while (bytes--)
			to[n++] = (uint8_t)rnd(256);
	}
	if (rarely(8))
		to[rnd((uint32_t)n)] = (uint8_t)rnd(256);
	return n;
}

/* Returns whether they were read to their end. */
static bool headers(void)
{
	static const char *const words[] = {"00",
					    "ff",
					    "0x",
					    " ",
					    ":",
					    "-",
					    "\n",
					    ",",
					    "ae7ea125561b0000",
					    "000000d4b3a27378b415a98e20cfdad3"};
	char path[32], text[1024], *argv[8] = {"palladium_decode", one_in(2) ? "-j" : "-t"};
	static uint8_t bytes[4096];
	int argc = 2, status;
	size_t n = 0;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	if (one_in(3))
		argv[argc++] = "-1";
	switch (rnd(3)) {
	case 0:
		any_text(text, sizeof(text), words, PD_ARRAY_SIZE(words));
		argv[argc++] = "--";
		argv[argc++] = *text ? text : "00";
		if (!strcmp(argv[argc - 1], "-")) /* standard input */
			return false;
		break;
	case 1:
		for (n = rnd(200); n; n--)
			bytes[n] = (uint8_t)rnd(256);
		n = rnd(200);
		argv[argc++] = "-r";
		argv[argc++] = path;
		break;
	default:
		n = capture(bytes, sizeof(bytes));
		if (one_in(2))
			argv[argc++] = "-i";
		argv[argc++] = "-p";
		argv[argc++] = path;
	}
	fill_file(bytes, n);
	optind = 0;
	status = decode_main(argc, argv);
	MUST(status == 0 || status == DEC_EXIT_INPUT);
	return !status;
}

/*
 * --- the fuzzer ----------------------------------------------------------------------------------
 */

static bool run(unsigned kind)
{
	static FILE *nowhere;
	FILE *out = stdout, *err = stderr;
	bool good;

	if (!kind)
		return statistics();
	if (!nowhere)
		nowhere = fopen("/dev/null", "we");
	MUST(nowhere);
	stdout = stderr = nowhere;
	good = headers();
	stdout = out;
	stderr = err;
	return good;
}

static void prepare(void)
{
	file = memfd_create("fuzz", MFD_CLOEXEC);
	MUST(file >= 0);
}

const struct fuzz_target fuzz_target = {
	.name = "readers",
	FUZZ_KINDS(kinds),
	.good = "read to the end",
	.seeds = 5000,
	.prepare = prepare,
	.run = run,
};
