/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * palladium_eval's parts: options and what goes together, the layout of mode stripped, its rings
 * with every kind of fault put in between, tables of settings, plots.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "eval/plot.h"
#include "eval/report.h"
#include "eval/roles.h"
#include "eval/sweep.h"

/* Options from a text as a table has it: "mode=stripped ring=64". Returns what settling says. */
static int options(struct ev_options *o, const char *text, char *why)
{
	char copy[512], *rest = copy, *item;
	int err = 0;

	ev_options_default(o);
	snprintf(copy, sizeof(copy), "%s", text);
	while (!err && (item = strsep(&rest, " "))) {
		char *value = strchr(item, '=');

		assert_non_null(value);
		*value++ = 0;
		err = ev_options_set(o, item, value, why);
	}
	return err ? err : ev_options_settle(o, why);
}

/* The same where they go together. */
static void good(struct ev_options *o, const char *text)
{
	char why[EV_WHY_MAX] = "";

	if (options(o, text, why))
		fail_msg("%s: %s", text, why);
}

/* --- options ------------------------------------------------------------------------------- */

/* Each pair of settings that does not go together is refused by name. */
static void bad_settings_are_named(void **state)
{
	static const char *const bad[][2] = {
		{"batch=0", "batch 0"},
		{"batch=1025", "1 to 1024"},
		{"batch=12x", "batch 12x"},
		{"batch=-1", "batch -1"},
		{"colour=red", "no option colour"},
		{"mode=round", "split, packed, stripped"},
		{"preset=slow", "base, fast, step1, step2"},
		{"mode=stripped batch=64 ring=32", "does not fit into a ring of 32"},
		{"mode=split batch=512 ring=1024", "with vhost-user at most 256"},
		{"mode=split ring=300", "power of two in mode split"},
		{"mode=stripped ring=300", "power of two"},
		{"mode=split headroom=64", "headroom has no meaning in mode split"},
		{"mode=packed metadata-size=64", "metadata-size has no meaning in mode packed"},
		{"mode=split preset=fast mode=split", "has no meaning in mode split"},
		{"mode=packed copy-rx=off", "copy-rx has no meaning in mode packed"},
		{"mode=stripped dialect=avip", "dialect has no meaning in mode stripped"},
		{"mode=stripped nf-side=device", "nf-side has no meaning in mode stripped"},
		{"mode=split nf=swap nf-side=device", "nf swap needs nf-side driver"},
		{"mode=stripped nf=swap copy-rx=off", "nf swap needs copy-rx on"},
		{"mode=stripped align=48", "align 48"},
		{"mode=stripped descriptor=24", "descriptor 24"},
		{"mode=stripped buffers=256", "at least twice the ring"},
		{"mode=stripped buffers=768", "power of two"},
		{"mode=stripped area=256 dataroom=64", "exclude each other"},
		{"mode=stripped area=128", "nothing behind a headroom of 128"},
		{"mode=stripped size=128 dataroom=64", "room for 64 bytes"},
		{"mode=stripped headroom=8", "headroom of at least 12"},
		{"mode=stripped metadata-size=0 metadata-place=ring",
		 "metadata-size of at least 1"},
		{"mode=stripped metadata-size=257", "0 to 256"},
		{"mode=stripped aggregation=8", "aggregation needs"},
		{"mode=stripped metadata-entries=128", "metadata-entries needs"},
		{"mode=stripped metadata-place=reused metadata-entries=16", "at least batch (32)"},
		{"cores=0-", "expected numbers"},
		{"cores=1000", "no core 1000"},
		{"cores=99999", "expected numbers"},
		{"cores=0 bound=on", "bound needs two cores"},
	};
	struct ev_options o;

	for (size_t i = 0; i < PD_ARRAY_SIZE(bad); i++) {
		char why[EV_WHY_MAX] = "";

		if (!options(&o, bad[i][0], why))
			fail_msg("%s is taken", bad[i][0]);
		if (!strstr(why, bad[i][1]))
			fail_msg("%s: %s", bad[i][0], why);
	}
}

/* What follows from other options, and what a preset sets and later options override. */
static void the_rest_follows(void **state)
{
	struct ev_options o;

	good(&o, "mode=stripped ring=64 batch=20");
	assert_int_equal(o.buffers, 128);
	assert_int_equal(o.metadata_entries, 128);
	assert_int_equal(o.area, 128 + 2048);
	good(&o, "preset=fast");
	assert_int_equal(o.mode, EV_MODE_STRIPPED);
	assert_int_equal(o.descriptor, 8);
	assert_int_equal(o.headroom, 0);
	assert_int_equal(o.dataroom, 64);
	assert_int_equal(o.metadata_size + o.header + o.copy_rx + o.copy_tx, 0);
	good(&o, "preset=fast metadata-size=16 size=60");
	assert_int_equal(o.metadata_size, 16);
	good(&o, "preset=step1");
	assert_int_equal(o.metadata_size, 64);
	assert_int_equal(o.header + o.copy_rx + o.copy_tx, 3);
	good(&o, "preset=step2 aggregation=8");
	assert_int_equal(o.metadata_place, EV_PLACE_AGGREGATED);
	assert_int_equal(o.host_metadata_place, EV_PLACE_AGGREGATED);
	assert_int_equal(o.aggregation, 8);
	good(&o, "mode=packed ring=300");
	good(&o, "preset=base");
	assert_int_equal(o.metadata_size, 128);
}

/* Who runs where, by --as and the cores. */
static void roles_are_planned(void **state)
{
	struct ev_options o = {.n_cores = 2, .core = {4, 6}};
	struct ev_plan plan;
	char name[32];

	o.as = EV_AS_PROCESSES;
	ev_plan_make(&plan, &o);
	assert_int_equal(plan.n_processes, 3);
	assert_int_equal(plan.threads[EV_NF].core, 6);
	assert_int_equal(plan.threads[EV_TX].core, 4);
	assert_true(plan.threads[EV_RX].shares && plan.threads[EV_TX].shares);
	assert_false(plan.threads[EV_NF].shares);
	o.as = EV_AS_PAIR;
	ev_plan_make(&plan, &o);
	assert_int_equal(plan.n_processes, 2);
	ev_roles_name(plan.threads[0].roles, name, sizeof(name));
	assert_string_equal(name, "rx+tx");
	assert_int_equal(plan.threads[1].roles, 1 << EV_NF);
	assert_false(plan.threads[0].shares || plan.threads[1].shares);
	o.as = EV_AS_THREADS;
	ev_plan_make(&plan, &o);
	assert_int_equal(plan.n_processes, 1);
	assert_int_equal(plan.n_threads, 3);
	o.as = EV_AS_ONE;
	ev_plan_make(&plan, &o);
	assert_int_equal(plan.n_threads, 1);
	assert_int_equal(plan.threads[0].roles, 7);
}

/* --- layout -------------------------------------------------------------------------------- */

/* A map of the area: whose each byte is. */
static uint8_t *owners;
static uint64_t n_owners;

/* Bytes that nobody has yet become `who`'s. */
static void own(uint64_t at, uint64_t bytes, uint8_t who)
{
	if (at + bytes > n_owners)
		fail_msg("%d ends at %llu of %llu", who, (unsigned long long)(at + bytes),
			 (unsigned long long)n_owners);
	for (uint64_t i = at; i < at + bytes; i++) {
		if (owners[i])
			fail_msg("%d and %d both have byte %llu", owners[i], who,
				 (unsigned long long)i);
		owners[i] = who;
	}
}

/* One side's metadata of every packet that can be under way. */
static void own_metadata(const struct ev_layout *l, const struct ev_options *o, enum ev_side side,
			 uint8_t who)
{
	const struct ev_metadata *m = &l->metadata[side];
	uint64_t n = pd_min(l->window, l->buffer_mask + 1ull);

	if (m->place == EV_PLACE_RING)
		n = l->ring_mask + 1ull;
	for (uint64_t i = 0; i < n; i++)
		own((uintptr_t)ev_metadata_at(m, NULL, i, (uint32_t)i), o->metadata_size, who);
}

/* Lay out `text` and see that nothing has a byte of anything else. */
static void check_layout(const char *text, struct ev_layout *l)
{
	struct ev_options o;

	good(&o, text);
	ev_layout_make(l, &o);
	n_owners = l->bytes;
	owners = calloc(n_owners, 1);
	assert_non_null(owners);
	for (int hop = 0; hop < EV_HOPS; hop++) {
		/* A count has two lines to itself. */
		own(l->ring[hop].produced, 128, 1);
		own(l->ring[hop].consumed, 128, 2);
		for (uint64_t i = 0; i <= l->ring_mask; i++)
			own(l->ring[hop].slots + i * l->slot_bytes, o.descriptor, 3);
	}
	for (uint64_t i = 0; i <= l->buffer_mask; i++) {
		uint64_t at = l->buffers + i * l->buffer_bytes;

		assert_int_equal(at % o.align, 0);
		own(at + l->packet_at, o.dataroom, 4);
		own(at + l->packet_at - o.headroom, o.headroom, 5);
		if (o.header)
			assert_int_equal(l->header_at + EV_HEADER_BYTES, l->packet_at);
	}
	own(l->stamps, 8ull * (l->stamp_mask + 1), 6);
	if (o.metadata_size) {
		own_metadata(l, &o, EV_NF_SIDE, 7);
		if (!l->same_metadata)
			own_metadata(l, &o, EV_HOST_SIDE, 8);
	}
	free(owners);
}

/* Every pair of places, at sizes and alignments that fit badly. */
static void nothing_overlaps(void **state)
{
	static const char *const more[] = {
		"ring=16 batch=8",
		"ring=16 batch=8 metadata-size=1 align=1 headroom=13",
		"ring=8 batch=4 metadata-size=100 align=4096 descriptor=8",
		"ring=16 batch=16 metadata-size=256 descriptor=64 align=32 header=off headroom=0",
		"ring=4 batch=2 metadata-size=24 area=200 buffers=64 latency=on",
	};
	char text[512];
	struct ev_layout l;

	for (unsigned p = 0; ev_place_words[p]; p++)
		for (unsigned h = 0; ev_host_place_words[h]; h++)
			for (size_t i = 0; i < PD_ARRAY_SIZE(more); i++) {
				snprintf(
					text, sizeof(text),
					"mode=stripped metadata-place=%s host-metadata-place=%s %s",
					ev_place_words[p], ev_host_place_words[h], more[i]);
				check_layout(text, &l);
			}
	check_layout("mode=stripped ring=16 batch=8 metadata-size=0", &l);
	check_layout("preset=fast ring=2 batch=1", &l);
}

/* Where packet `n` has its metadata at a side. */
static uint64_t at(const struct ev_layout *l, enum ev_side side, uint64_t n)
{
	return (uintptr_t)ev_metadata_at(&l->metadata[side], NULL, n, (uint32_t)n & l->buffer_mask);
}

/* What each place means. */
static void places_are_what_they_say(void **state)
{
	struct ev_layout l;

	check_layout("mode=stripped ring=16 batch=8 metadata-place=buffer metadata-size=40", &l);
	assert_int_equal(at(&l, EV_NF_SIDE, 3), l.buffers + 3 * l.buffer_bytes);
	assert_int_equal(l.packet_at, 40 + 128);
	assert_true(l.same_metadata);
	check_layout("mode=stripped ring=16 batch=8 metadata-place=separate metadata-size=40", &l);
	assert_int_equal(at(&l, EV_NF_SIDE, 1) - at(&l, EV_NF_SIDE, 0), 64);
	assert_int_equal(l.packet_at, 128);
	check_layout("mode=stripped ring=16 batch=4 metadata-place=reused metadata-entries=8", &l);
	assert_int_equal(at(&l, EV_NF_SIDE, 8), at(&l, EV_NF_SIDE, 0));
	assert_int_not_equal(at(&l, EV_NF_SIDE, 7), at(&l, EV_NF_SIDE, 0));
	assert_int_equal(l.window, 8);
	check_layout("mode=stripped ring=16 batch=8 metadata-place=aggregated metadata-size=24 "
		     "aggregation=4",
		     &l);
	assert_int_equal(at(&l, EV_NF_SIDE, 1) - at(&l, EV_NF_SIDE, 0), 24);
	assert_int_equal(at(&l, EV_NF_SIDE, 4) - at(&l, EV_NF_SIDE, 0), 128);
	check_layout("mode=stripped ring=16 batch=8 metadata-place=ring metadata-size=20 "
		     "descriptor=8",
		     &l);
	assert_int_equal(l.slot_bytes, 32);
	assert_int_equal(at(&l, EV_NF_SIDE, 2), l.ring[EV_NF_TO_TX].slots + 2 * 32 + 8);
	assert_int_equal(at(&l, EV_HOST_SIDE, 2), l.ring[EV_RX_TO_NF].slots + 2 * 32 + 8);
	assert_false(l.same_metadata);
	check_layout("mode=stripped ring=16 batch=8 metadata-place=aggregated "
		     "host-metadata-place=buffer",
		     &l);
	assert_false(l.same_metadata);
	assert_int_equal(at(&l, EV_HOST_SIDE, 1), l.buffers + l.buffer_bytes);
}

/* --- the rings ----------------------------------------------------------------------------- */

/* Three roles over one area, stepped by hand. */
struct bench {
	struct ev_options o;
	struct ev_layout l;
	struct ev_control control;
	struct ev_role role[EV_ROLES];
	uint8_t *area;
};

/* Set it up. */
static void bench_open(struct bench *b, const char *text)
{
	memset(b, 0, sizeof(*b));
	good(&b->o, text);
	b->o.check = 1;
	ev_layout_make(&b->l, &b->o);
	b->area = aligned_alloc(4096, (b->l.bytes + 4095) & ~4095ull);
	assert_non_null(b->area);
	memset(b->area, 0, b->l.bytes);
	for (unsigned i = 0; i < EV_ROLES; i++) {
		b->role[i] = (struct ev_role){.id = i,
					      .o = &b->o,
					      .l = &b->l,
					      .area = b->area,
					      .control = &b->control,
					      .told = &b->control.told[i]};
		assert_int_equal(ev_stripped_role(&b->role[i]), 0);
	}
}

/* And end it. */
static void bench_close(struct bench *b)
{
	for (unsigned i = 0; i < EV_ROLES; i++) {
		ev_patterns_free(&b->role[i].patterns);
		free(b->role[i].copies);
	}
	free(b->area);
}

/* One step of a role. */
static unsigned step(struct bench *b, enum ev_role_id id)
{
	unsigned n = b->role[id].step(&b->role[id]);

	b->role[id].n += n;
	return n;
}

/* What nf and tx found wrong so far. */
static uint64_t wrong(const struct bench *b)
{
	return ev_tally_sum(&b->control.told[EV_NF].tally) +
	       ev_tally_sum(&b->control.told[EV_TX].tally);
}

/* All packets come whole in every place, though rings and entries go round many times. */
static void all_places_carry(void **state)
{
	static const char *const more[] = {
		"",
		"metadata-size=1 descriptor=8 align=1 headroom=13 size=33",
		"metadata-size=7 copy-tx=off",
		"metadata-size=13 header=off headroom=0 nf=count",
		"metadata-size=256 copy-rx=off nf=count descriptor=32",
		"metadata-size=16 nf=swap size=1500 latency=on",
	};
	char text[512];
	static struct bench b;

	for (unsigned p = 0; ev_place_words[p]; p++)
		for (unsigned h = 0; ev_host_place_words[h]; h++)
			for (size_t i = 0; i < PD_ARRAY_SIZE(more); i++) {
				snprintf(text, sizeof(text),
					 "mode=stripped ring=16 batch=5 packets=1003 "
					 "metadata-place=%s host-metadata-place=%s%s%s",
					 ev_place_words[p], ev_host_place_words[h],
					 *more[i] ? " " : "", more[i]);
				bench_open(&b, text);
				for (int k = 0; k < 5000 && b.role[EV_TX].n < 1003; k++) {
					step(&b, EV_RX);
					if (k % 3)
						step(&b, EV_NF);
					if (k % 7 < 5)
						step(&b, EV_TX);
				}
				assert_int_equal(b.role[EV_TX].n, 1003);
				if (wrong(&b))
					fail_msg("%s: %llu wrong", text,
						 (unsigned long long)wrong(&b));
				if (b.o.nf != EV_NF_FORWARD)
					assert_int_equal(b.control.told[EV_NF].nf.bytes,
							 1003 * b.o.size);
				bench_close(&b);
			}
}

/* rx stops when the ring is full, or where the metadata entries are used up. */
static void nothing_is_overrun(void **state)
{
	static struct bench b;
	unsigned n = 0;

	bench_open(&b, "mode=stripped ring=16 batch=5");
	while (step(&b, EV_RX))
		n++;
	assert_int_equal(n, 3); /* a fourth batch would be part of one */
	while (step(&b, EV_NF) || step(&b, EV_RX))
		;
	assert_int_equal(b.role[EV_RX].n, 30);
	assert_int_equal(b.role[EV_NF].n, 16);
	bench_close(&b);
	bench_open(&b, "mode=stripped ring=64 batch=4 metadata-place=reused metadata-entries=8");
	while (step(&b, EV_RX) || step(&b, EV_NF))
		;
	assert_int_equal(b.role[EV_RX].n, 8);
	assert_int_equal(step(&b, EV_TX), 4);
	assert_int_equal(step(&b, EV_RX), 4);
	bench_close(&b);
}

/* The tally of one kind. */
#define TALLY(kind) offsetof(struct ev_tally, kind)

/* One altered byte between nf and tx, or rx and nf, is found, and as what it is. */
static void each_fault_is_found(void **state)
{
	static const struct fault {
		const char *name;
		bool before_nf;
		int where; /* 0: packet, 1: descriptor, 2: metadata, 3: header */
		uint64_t at;
		size_t kind;
	} faults[] = {
		{"first byte", false, 0, 0, TALLY(contents)},
		{"last byte", false, 0, 63, TALLY(contents)},
		{"number", false, 0, EV_NUMBER_AT, TALLY(order)},
		{"buffer", false, 1, 0, TALLY(order)},
		{"length", false, 1, 4, TALLY(length)},
		{"tag", false, 1, 6, TALLY(descriptor)},
		{"long number", false, 1, 15, TALLY(descriptor)},
		{"metadata's number", false, 2, 0, TALLY(metadata)},
		{"metadata's mark", false, 2, EV_MARK_AT, TALLY(metadata)},
		{"metadata's last byte", true, 2, 127, TALLY(metadata)},
		{"header", false, 3, 3, TALLY(header)},
		{"header at nf", true, 3, 10, TALLY(header)},
	};
	static struct bench b;

	for (size_t i = 0; i < PD_ARRAY_SIZE(faults); i++) {
		const struct fault *f = &faults[i];
		enum ev_hop hop = f->before_nf ? EV_RX_TO_NF : EV_NF_TO_TX;
		uint8_t *places[4];
		const struct ev_tally *t;
		uint64_t count;

		bench_open(&b, "mode=stripped ring=16 batch=4");
		assert_int_equal(step(&b, EV_RX), 4);
		if (!f->before_nf)
			assert_int_equal(step(&b, EV_NF), 4);
		places[0] = b.area + b.l.buffers + 2 * b.l.buffer_bytes + b.l.packet_at;
		places[1] = b.area + b.l.ring[hop].slots + 2 * b.l.slot_bytes;
		places[2] = b.area + at(&b.l, EV_NF_SIDE, 2);
		places[3] = places[0] - EV_HEADER_BYTES;
		places[f->where][f->at] ^= 1;
		if (f->before_nf)
			assert_int_equal(step(&b, EV_NF), 4);
		assert_int_equal(step(&b, EV_TX), 4);
		t = &b.control.told[f->before_nf && f->where == 3 ? EV_NF : EV_TX].tally;
		memcpy(&count, (const char *)t + f->kind, sizeof(count));
		if (count != 1 || t->first != 2)
			fail_msg("%s: counted %llu, first at %llu", f->name,
				 (unsigned long long)count, (unsigned long long)t->first);
		bench_close(&b);
	}
}

/* Every byte of packets and of metadata counts. */
static void every_byte_is_compared(void **state)
{
	static const uint32_t sizes[] = {32, 61, 64, 128, 129, 1500};
	uint8_t metadata[EV_METADATA_MAX];
	struct ev_patterns p;

	for (size_t k = 0; k < PD_ARRAY_SIZE(sizes); k++) {
		uint8_t copy[1500];

		assert_int_equal(ev_patterns_make(&p, sizes[k], 61, k % 2), 0);
		memcpy(copy, ev_packet_make(&p, 77), sizes[k]);
		for (uint32_t i = 0; i < sizes[k]; i++) {
			struct ev_tally t = {0};

			copy[i] ^= 0x80;
			ev_packet_check(&p, &t, 77, copy, sizes[k]);
			assert_int_equal(ev_tally_sum(&t), 1);
			copy[i] ^= 0x80;
			ev_packet_check(&p, &t, 77, copy, sizes[k]);
			assert_int_equal(ev_tally_sum(&t), 1);
		}
		ev_metadata_make(&p, metadata, 5);
		assert_false(ev_metadata_right(&p, metadata, 5)); /* nf has not marked it */
		ev_metadata_mark(metadata, 61);
		assert_true(ev_metadata_right(&p, metadata, 5));
		assert_false(ev_metadata_right(&p, metadata, 6));
		for (unsigned i = 0; i < 61; i++) {
			metadata[i] ^= 4;
			assert_false(ev_metadata_right(&p, metadata, 5));
			metadata[i] ^= 4;
		}
		ev_patterns_free(&p);
	}
}

/* Neighbours in number have different contents, not only numbers. */
static void packets_differ(void **state)
{
	struct ev_patterns p;
	uint8_t other[64];

	assert_int_equal(ev_patterns_make(&p, 64, 0, false), 0);
	memcpy(other, ev_packet_make(&p, 8), 64);
	for (uint64_t n = 9; n < 16; n++)
		assert_memory_not_equal(ev_packet_make(&p, n) + 22, other + 22, 42);
	ev_patterns_free(&p);
}

/* A figure is a result only when all was checked and right. */
static void figures_have_the_right_name(void **state)
{
	static struct ev_result r;
	struct ev_options o = {.check = 1};

	r = (struct ev_result){0};
	assert_string_equal(ev_verdict(&o, &r), "result");
	o.check = 0;
	assert_string_equal(ev_verdict(&o, &r), "unchecked");
	r.told.told[EV_NF].tally.header = 1;
	assert_string_equal(ev_verdict(&o, &r), "failed");
	o.check = 1;
	assert_string_equal(ev_verdict(&o, &r), "failed");
	r = (struct ev_result){.failure = "tx ended by signal 9 (Killed)"};
	assert_string_equal(ev_verdict(&o, &r), "failed");
}

/* --- sweeps -------------------------------------------------------------------------------- */

/* All combinations come once, the last setting turning fastest. */
static void combinations_are_complete(void **state)
{
	static struct ev_axes axes;
	char why[EV_WHY_MAX];
	unsigned value[EV_AXES_MAX];

	assert_int_equal(ev_axes_add(&axes, "batch=1,32,256", why), 0);
	assert_int_equal(ev_axes_add(&axes, "mode=split,stripped", why), 0);
	assert_int_equal(ev_axes_combinations(&axes), 6);
	for (uint64_t i = 0; i < 6; i++) {
		ev_axes_pick(&axes, i, value);
		assert_int_equal(value[0], i / 2);
		assert_int_equal(value[1], i % 2);
	}
	assert_string_equal(axes.axis[0].values[2], "256");
}

/* A table with a mistake is refused before anything runs. */
static void bad_tables_are_named(void **state)
{
	static const char *const bad[][2] = {
		{"batch", "expected NAME=VALUE"},   {"=1", "expected NAME=VALUE"},
		{"batch=", "1 to 64 values"},       {"batch=1,,2", "1 to 64 values"},
		{"batch=1,x", "batch x"},           {"size=64", "twice"},
		{"colour=red", "no option"},        {"csv=a", "no meaning in a table"},
		{"cores=`id`", "expected letters"},
	};
	static struct ev_axes axes;
	char why[EV_WHY_MAX];

	assert_int_equal(ev_axes_add(&axes, "size=64,128", why), 0);
	for (size_t i = 0; i < PD_ARRAY_SIZE(bad); i++) {
		if (!ev_axes_add(&axes, bad[i][0], why))
			fail_msg("%s is taken", bad[i][0]);
		if (!strstr(why, bad[i][1]))
			fail_msg("%s: %s", bad[i][0], why);
	}
	assert_int_equal(axes.n, 1);
}

/* The script has a line for each other setting, its points in order, and none without points. */
static void plots_have_a_line_for_each(void **state)
{
	static struct ev_axes axes;
	struct ev_row rows[6] = {0};
	char why[EV_WHY_MAX], text[8192];
	FILE *out = fmemopen(text, sizeof(text), "w");

	assert_non_null(out);
	ev_axes_add(&axes, "mode=split,packed,stripped", why);
	ev_axes_add(&axes, "batch=1,32", why);
	for (unsigned i = 0; i < 6; i++) {
		ev_axes_pick(&axes, i, rows[i].value);
		rows[i].verdict = i < 4 ? "result" : "refused";
		rows[i].mpps = i < 4 ? 1 + i : 0;
	}
	ev_plot_script(out, "a.svg", &axes, rows, 6);
	fclose(out);
	assert_non_null(strstr(text, "set terminal svg"));
	assert_non_null(strstr(text, "set xlabel 'batch'"));
	assert_non_null(strstr(text, "0 \"1\" 3.0000\n1 \"32\" 4.0000\n"));
	assert_non_null(strstr(text, "title \"mode=split, result\""));
	assert_non_null(strstr(text, "title \"mode=packed, result\""));
	assert_null(strstr(text, "mode=stripped"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_settings_are_named),
		cmocka_unit_test(the_rest_follows),
		cmocka_unit_test(roles_are_planned),
		cmocka_unit_test(nothing_overlaps),
		cmocka_unit_test(places_are_what_they_say),
		cmocka_unit_test(all_places_carry),
		cmocka_unit_test(nothing_is_overrun),
		cmocka_unit_test(each_fault_is_found),
		cmocka_unit_test(every_byte_is_compared),
		cmocka_unit_test(packets_differ),
		cmocka_unit_test(figures_have_the_right_name),
		cmocka_unit_test(combinations_are_complete),
		cmocka_unit_test(bad_tables_are_named),
		cmocka_unit_test(plots_have_a_line_for_each),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
