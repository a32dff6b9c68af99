/* SPDX-License-Identifier: BSD-2-Clause */
/* vlib/generator, vlib/pcap: what streams make, and what is wrong with text and files. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "vlib/generator.h"
#include "vlib/pcap.h"
#include "vlib/worker.h"

#define LIMIT_NS (60 * PD_NS_PER_SEC)
#define KEPT 64

/* --- the node that gets the frames ----------------------------------------------------------- */

static struct {
	uint32_t len, segments;
	uint16_t flags, rx_port, tx_port;
	uint8_t data[12240], sidecar[PD_BUFFER_SIDECAR_BYTES];
} kept[KEPT];
static unsigned count; /* atomic: frames that came */
static uint32_t keep;  /* atomic: they are not freed */
static uint32_t held[8192], held_count;

static unsigned sink(struct pd_engine *e, struct pd_node *node, struct pd_vector *v)
{
	unsigned n = pd_load_relaxed(&count);

	for (unsigned i = 0; i < v->n && n + i < KEPT; i++) {
		const struct pd_buffer *b = pd_buffer_get(v->index[i]), *part = b;

		kept[n + i].len = b->total_len;
		kept[n + i].flags = b->flags;
		kept[n + i].rx_port = b->rx_port;
		kept[n + i].tx_port = b->tx_port;
		kept[n + i].segments = 1;
		for (; part->next != PD_BUFFER_NONE; part = pd_buffer_get(part->next))
			kept[n + i].segments++;
		pd_buffer_copy_out(b, 0, kept[n + i].data, sizeof(kept[0].data));
		memcpy(kept[n + i].sidecar, b->sidecar, sizeof(b->sidecar));
	}
	if (pd_load_acquire(&keep)) {
		memcpy(held + held_count, v->index, v->n * sizeof(*held));
		held_count += v->n;
	} else {
		pd_buffer_free(v->index, v->n);
	}
	pd_store_release(&count, n + v->n);
	return v->n;
}

PD_NODE_REGISTER(sink) = {.name = "g-sink", .type = PD_NODE_INTERNAL, .fn = sink};

/* --- helpers ------------------------------------------------------------------------------- */

static char folder[] = "/tmp/palladium-generator-XXXXXX";

/* Ports of the test: pd0 to pd9. */
static int port_of(void *arg, const char *name)
{
	return !strncmp(name, "pd", 2) && strlen(name) == 3 ? name[2] - '0' : -ENOENT;
}

/* Fields of the test: at N, one octet. */
static int field_of(void *arg, const char *field, const char *value,
		    uint8_t sidecar[PD_BUFFER_SIDECAR_BYTES])
{
	unsigned at;

	if (sscanf(field, "at%u", &at) != 1 || at >= PD_BUFFER_SIDECAR_BYTES)
		return -ENOENT;
	if (strlen(value) > 2)
		return -EINVAL;
	sidecar[at] = (uint8_t)strtoul(value, NULL, 16);
	return 0;
}

static const struct pd_stream_names names = {.port = port_of, .sidecar = field_of};
static char error[PD_STREAM_ERROR_BYTES];

static int run(const char *text)
{
	*error = 0;
	return pd_generator_script("s", text, strlen(text), &names, error, sizeof(error));
}

static void run_well(const char *text)
{
	int ret = run(text);

	assert_string_equal(error, "");
	assert_int_equal(ret, 0);
}

static int start(void **state)
{
	count = held_count = keep = 0;
	memset(kept, 0, sizeof(kept));
	return pd_workers_start(2, NULL);
}

static int stop(void **state)
{
	pd_workers_stop();
	if (held_count)
		pd_buffer_free(held, held_count);
	if (pd_generator_pool() && pd_generator_pool()->free_count != pd_generator_pool()->count)
		return -1;
	pd_generator_reset();
	return 0;
}

static void wait_for(unsigned n)
{
	uint64_t until = pd_clock_ns() + LIMIT_NS;

	while (pd_load_acquire(&count) < n) {
		assert_true(pd_clock_ns() < until);
		sched_yield();
	}
}

static struct pd_stream_info found;

static void find(const struct pd_stream_info *info, void *arg)
{
	if (!strcmp(info->config->name, arg))
		found = *info;
}

static const struct pd_stream_info *stream(const char *name)
{
	memset(&found, 0, sizeof(found));
	pd_generator_each(find, (void *)(uintptr_t)name);
	return &found;
}

static void wait_disabled(const char *name)
{
	uint64_t until = pd_clock_ns() + LIMIT_NS;

	while (stream(name)->enabled) {
		assert_true(pd_clock_ns() < until);
		sched_yield();
	}
}

/* --- what streams make ----------------------------------------------------------------------- */

static void test_sizes_go_round_and_data_is_filled(void **state)
{
	run_well("packet-generator new { name a limit 7 size 60-62 interface pd3\n"
		 " tx-interface pd1 node g-sink data { incrementing 30 } }\n"
		 "packet-generator enable a");
	wait_for(7);
	wait_disabled("a");
	assert_int_equal(count, 7);
	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(kept[i].len, 60 + i % 3);
		assert_int_equal(kept[i].segments, 1);
		assert_int_equal(kept[i].rx_port, 3);
		assert_int_equal(kept[i].tx_port, 1);
		assert_false(kept[i].flags & PD_BUFFER_SIDECAR);
		for (unsigned k = 0; k < 60; k++)
			assert_int_equal(kept[i].data[k], k < 30 ? k : 0);
	}
	assert_int_equal(stream("a")->sent, 7);
}

static void test_an_enabled_stream_starts_anew(void **state)
{
	run_well("packet-generator new { name a limit 2 size 60-70 node g-sink\n"
		 "data { incrementing 1 } } packet-generator enable");
	wait_for(2);
	wait_disabled("a");
	run_well("packet-generator enable");
	wait_for(4);
	wait_disabled("a");
	assert_int_equal(kept[2].len, 60);
	assert_int_equal(stream("a")->sent, 2);
	assert_int_equal(stream("a")->sent_ever, 4);
}

static void test_hex_is_cut_and_without_size_as_it_is(void **state)
{
	run_well("packet-generator new { name a limit 1 node g-sink\n"
		 "data { hex 00112233 4455 6677 8899aABb ccDD eeff 01 } }\n"
		 "packet-generator new { name b limit 1 size 14 node g-sink\n"
		 "data{hex 112233445566778899aabbccddeeff}}\n"
		 "packet-generator enable a");
	wait_for(1);
	assert_int_equal(kept[0].len, 17);
	assert_memory_equal(kept[0].data,
			    "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\x01",
			    17);
	run_well("packet-generator enable b");
	wait_for(2);
	assert_int_equal(kept[1].len, 14);
}

static void test_long_frames_are_chained(void **state)
{
	run_well("packet-generator new { name a limit 300 size 12240 node g-sink\n"
		 "data { incrementing 12240 } }\n"
		 "packet-generator enable a");
	wait_for(300);
	wait_disabled("a");
	assert_int_equal(count, 300);
	assert_int_equal(kept[9].segments, 6);
	for (unsigned i = 0; i < 12240; i++)
		assert_int_equal(kept[9].data[i], i & 0xff);
}

static void test_sidecars_and_control_frames(void **state)
{
	run_well("packet-generator new { name a limit 1 size 60 node g-sink\n"
		 "sidecar { at5 7f at47 01 } data { incrementing 4 } }\n"
		 "packet-generator new { name b limit 1 node g-sink sidecar { at2 1 }\n"
		 "data { hex } }\n"
		 "packet-generator enable a");
	wait_for(1);
	assert_int_equal(kept[0].flags & (PD_BUFFER_SIDECAR | PD_BUFFER_CONTROL),
			 PD_BUFFER_SIDECAR);
	assert_int_equal(kept[0].sidecar[5], 0x7f);
	assert_int_equal(kept[0].sidecar[47], 1);
	assert_int_equal(kept[0].rx_port, PD_BUFFER_NO_PORT);
	run_well("packet-generator enable b");
	wait_for(2);
	assert_int_equal(kept[1].len, 0);
	assert_true(kept[1].flags & PD_BUFFER_CONTROL);
}

/* A stream with a rate goes on by itself, however long its worker slept in between. */
static void test_a_rate_is_kept_up_asleep(void **state)
{
	uint64_t begin = pd_clock_ns();

	run_well("packet-generator new { name a limit 12 rate 200 size 60 node g-sink\n"
		 "data { incrementing 1 } worker 2 }\n"
		 "packet-generator enable a");
	wait_for(12);
	wait_disabled("a");
	/* Never before it is due: the first at once, the last 11 periods later. */
	assert_true(pd_clock_ns() - begin >= 11 * PD_NS_PER_SEC / 200);
	assert_int_equal(count, 12);
}

static void test_disable_and_delete_stop_it(void **state)
{
	unsigned n;

	run_well("packet-generator new { name a size 60 node g-sink data { incrementing 1 } }\n"
		 "packet-generator new { name b size 60 node g-sink data { incrementing 1 } }\n"
		 "packet-generator enable");
	wait_for(1000);
	assert_true(stream("a")->enabled && stream("b")->enabled);
	run_well("packet-generator disable a\npacket-generator delete b");
	assert_false(stream("a")->enabled);
	assert_null(stream("b")->config);
	/* What was under way arrives; then nothing does. */
	do {
		n = pd_load_acquire(&count);
		usleep(2000);
	} while (n != pd_load_acquire(&count));
	run_well("packet-generator enable a");
	wait_for(n + 1);
	run_well("packet-generator disable");
}

static void test_want_of_buffers_is_counted(void **state)
{
	struct pd_node *node = pd_engine_node(pd_worker_engine(1), "pg-input");
	uint64_t until = pd_clock_ns() + LIMIT_NS;

	pd_store_release(&keep, 1);
	run_well("packet-generator new { name a size 60 node g-sink data { incrementing 1 } }\n"
		 "packet-generator enable");
	while (!pd_load_relaxed(&node->errors[0]))
		assert_true(pd_clock_ns() < until);
	wait_for(pd_generator_pool()->count);
	assert_int_equal(count, pd_generator_pool()->count);
	run_well("packet-generator disable");
	/* The teardown gives them back. */
}

static void test_streams_end_with_their_workers(void **state)
{
	run_well("packet-generator new { name a size 60 node g-sink data { incrementing 1 } }\n"
		 "packet-generator enable");
	wait_for(1);
	pd_workers_stop();
	assert_false(stream("a")->enabled);
	assert_int_equal(run("packet-generator enable"), -ESRCH);
	assert_string_equal(error, "s:1: the worker that is to run it is not there");
	assert_int_equal(pd_workers_start(1, NULL), 0);
	count = 0;
	run_well("packet-generator enable");
	wait_for(1);
}

/* --- capture files --------------------------------------------------------------------------- */

static uint8_t file[4096];
static size_t file_n;

static void put(uint32_t word, bool swapped)
{
	word = swapped ? __builtin_bswap32(word) : word;
	memcpy(file + file_n, &word, 4);
	file_n += 4;
}

/* A file of frames of 14, 15, ... octets, each of which is its number. */
static void make_file(uint32_t magic, bool swapped, uint32_t link, unsigned frames)
{
	file_n = 0;
	put(magic, swapped);
	put(swapped ? 0x00020004 : 0x00040002, swapped); /* two halves; nobody looks */
	put(0, swapped);
	put(0, swapped);
	put(65535, swapped);
	put(link, swapped);
	for (unsigned i = 0; i < frames; i++) {
		put(1000 + i, swapped);
		put(i, swapped);
		put(14 + i, swapped);
		put(60, swapped);
		memset(file + file_n, (int)i, 14 + i);
		file_n += 14 + i;
	}
}

static void write_file(char *path, size_t size)
{
	int fd;

	snprintf(path, size, "%s/frames.pcap", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, file, file_n), file_n);
	close(fd);
}

static void test_capture_files_of_all_forms(void **state)
{
	static const uint32_t magics[] = {0xa1b2c3d4, 0xa1b23c4d};

	for (unsigned form = 0; form < 4; form++) {
		uint32_t unit = form & 1 ? 1 : 1000;
		struct pd_pcap_frame frame;
		struct pd_pcap pcap;

		make_file(magics[form & 1], form & 2, 1 | 0x10000000, 5);
		assert_int_equal(pd_pcap_open(&pcap, file, file_n), 0);
		for (unsigned i = 0; i < 5; i++) {
			assert_int_equal(pd_pcap_next(&pcap, &frame), 1);
			assert_int_equal(frame.captured, 14 + i);
			assert_int_equal(frame.length, 60);
			assert_int_equal(frame.bytes[13], i);
			assert_int_equal(frame.time_ns, (1000 + i) * PD_NS_PER_SEC + i * unit);
		}
		assert_int_equal(pd_pcap_next(&pcap, &frame), 0);
		assert_int_equal(pd_pcap_next(&pcap, &frame), 0);
	}
}

static void test_broken_capture_files(void **state)
{
	struct pd_pcap_frame frame;
	struct pd_pcap pcap;

	make_file(0xa1b2c3d5, false, 1, 1);
	assert_int_equal(pd_pcap_open(&pcap, file, file_n), -EINVAL);
	make_file(0xa1b2c3d4, false, 113, 1);
	assert_int_equal(pd_pcap_open(&pcap, file, file_n), -EOPNOTSUPP);
	make_file(0xa1b2c3d4, false, 1, 1);
	for (size_t n = 0; n < 24; n++)
		assert_int_equal(pd_pcap_open(&pcap, file, n), -EINVAL);
	for (size_t n = 25; n < file_n; n++) {
		assert_int_equal(pd_pcap_open(&pcap, file, n), 0);
		assert_int_equal(pd_pcap_next(&pcap, &frame), -EINVAL);
	}
	/* A length that is more than there is, or than anybody captures. */
	memset(file + 24 + 8, 0xff, 4);
	assert_int_equal(pd_pcap_open(&pcap, file, file_n), 0);
	assert_int_equal(pd_pcap_next(&pcap, &frame), -EINVAL);
}

/* Whatever the octets are, nothing outside of them is read: a copy of the exact size shows it. */
static void test_random_capture_files(void **state)
{
	uint32_t seed = 1;

	for (unsigned round = 0; round < 3000; round++) {
		struct pd_pcap_frame frame;
		struct pd_pcap pcap;
		unsigned sum = 0;
		uint8_t *copy;
		size_t n;

		make_file(0xa1b2c3d4, round & 1, 1, 8);
		for (unsigned i = 0; i < 4; i++) {
			seed = seed * 1664525u + 1013904223u;
			file[(seed >> 8) % file_n] = (uint8_t)(seed >> 24);
		}
		n = (seed >> 4) % (file_n + 1);
		copy = malloc(n + !n);
		memcpy(copy, file, n);
		if (!pd_pcap_open(&pcap, copy, n))
			while (pd_pcap_next(&pcap, &frame) > 0)
				for (uint32_t i = 0; i < frame.captured; i++)
					sum += frame.bytes[i];
		assert_true(sum < 1u << 30);
		free(copy);
	}
}

static void test_a_stream_from_a_file(void **state)
{
	char path[128], script[512];

	make_file(0xa1b23c4d, true, 1, 3);
	write_file(path, sizeof(path));
	snprintf(script, sizeof(script),
		 "packet-generator new { name a limit 7 node g-sink data { pcap %s } }\n"
		 "packet-generator enable a",
		 path);
	run_well(script);
	wait_for(7);
	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(kept[i].len, 14 + i % 3);
		assert_int_equal(kept[i].data[13], i % 3);
	}
	/* Cut off, empty, and of frames that are none. */
	file_n -= 1;
	write_file(path, sizeof(path));
	script[strlen("packet-generator new { name ")] = 'b';
	assert_int_equal(run(script), -EINVAL);
	assert_non_null(strstr(error, "frames.pcap: cut off behind frame 2"));
	make_file(0xa1b2c3d4, false, 1, 0);
	write_file(path, sizeof(path));
	assert_int_equal(run(script), -EINVAL);
	assert_non_null(strstr(error, "frames.pcap: no frame in it"));
	make_file(0xa1b2c3d4, false, 1, 1);
	memset(file + 24 + 8, 0, 4);
	file_n = 24 + 16;
	write_file(path, sizeof(path));
	assert_int_equal(run(script), -EINVAL);
	assert_non_null(strstr(error, "frames.pcap: frame 1 has 0 octets"));
	file_n = 3;
	write_file(path, sizeof(path));
	assert_int_equal(run(script), -EINVAL);
	assert_non_null(strstr(error, "no capture file of the classic pcap format"));
	unlink(path);
	assert_int_equal(run(script), -ENOENT);
	assert_non_null(strstr(error, "No such file"));
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(run(script), -EINVAL);
	assert_non_null(strstr(error, "no regular file"));
	unlink(path);
}

/* --- what is wrong with a script ------------------------------------------------------------- */

#define GOOD "name a node g-sink size 60 data { incrementing 1 }"

static void test_mistakes_are_named_with_their_line(void **state)
{
	static const struct {
		const char *script, *error;
	} mistakes[] = {
		{"\n\nfrobnicate", "s:3: expected packet-generator, found frobnicate"},
		{"packet-generator", "s:1: packet-generator: expected new, enable, disable or "
				     "delete, found the end"},
		{"packet-generator new", "s:1: expected '{', found the end"},
		{"packet-generator new {\nname a\n",
		 "s:3: expected a word of a stream, found the end"},
		{"packet-generator new {\n\n nme a }",
		 "s:3: expected a word of a stream, found nme"},
		{"packet-generator new { name }", "s:1: name: expected a name, found }"},
		{"packet-generator new { name 12345678901234567890123456789012 }",
		 "s:1: name: a name has at most 31 characters"},
		{"packet-generator new { limit -1 }",
		 "s:1: limit: expected a number up to 18446744073709551615, found -1"},
		{"packet-generator new { limit 18446744073709551616 }",
		 "s:1: limit: expected a number up to 18446744073709551615, found "
		 "18446744073709551616"},
		{"packet-generator new { rate 1000000001 }",
		 "s:1: rate: expected a number up to 1000000000, found 1000000001"},
		{"packet-generator new { size 13-60 }",
		 "s:1: size: expected 14-12240, or less, found 13-60"},
		{"packet-generator new { size 60-59 }",
		 "s:1: size: expected 14-12240, or less, found 60-59"},
		{"packet-generator new { size 60- }",
		 "s:1: size: expected 14-12240, or less, found 60-"},
		{"packet-generator new { size 60-12241 }",
		 "s:1: size: expected 14-12240, or less, found 60-12241"},
		{"packet-generator new { interface eth0 }",
		 "s:1: interface: there is no port eth0"},
		{"packet-generator new { node nowhere }", "s:1: node: there is no node nowhere"},
		{"packet-generator new { node pg-input }",
		 "s:1: node: pg-input takes frames from its neighbours alone"},
		{"packet-generator new { node error-drop }",
		 "s:1: node: error-drop takes frames from its neighbours alone"},
		{"packet-generator new { worker 0 }", "s:1: worker: the first is 1"},
		{"packet-generator new { worker 65 }",
		 "s:1: worker: expected a number up to 64, found 65"},
		{"packet-generator new { data 30 }", "s:1: expected '{', found 30"},
		{"packet-generator new { data { }",
		 "s:1: data: expected incrementing, hex or pcap, found }"},
		{"packet-generator new { data { incrementing 12241 } }",
		 "s:1: incrementing: expected a number up to 12240, found 12241"},
		{"packet-generator new { data { hex 0g } }",
		 "s:1: hex: expected pairs of digits, found 0g"},
		{"packet-generator new { data { hex 001 } }",
		 "s:1: hex: expected pairs of digits, found 001"},
		{"packet-generator new { data { hex 00 } data { hex 00 } }",
		 "s:1: data: a second one"},
		{"packet-generator new { sidecar { at99 1 } }",
		 "s:1: sidecar: at99 1: there is no such field"},
		{"packet-generator new { sidecar { at1 123 } }",
		 "s:1: sidecar: at1 123: the field cannot have this value"},
		{"packet-generator new { sidecar {",
		 "s:1: sidecar: expected a field or '}', found the end"},
		{"packet-generator new { node g-sink data { hex 00 } }",
		 "s:1: the stream has no name"},
		{"packet-generator new { name a data { hex 00 } }", "s:1: the stream has no node"},
		{"packet-generator new { name a node g-sink }", "s:1: the stream has no data"},
		{"packet-generator new { name a node g-sink data { hex 00 } }",
		 "s:1: its frames are not of 14 to 12240 octets; say size"},
		{"packet-generator new { " GOOD " }\npacket-generator new {\n" GOOD "\n}",
		 "s:4: there is a stream a already"},
		{"packet-generator enable b", "s:1: there is no stream b"},
		{"packet-generator delete", "s:1: which stream?"},
	};

	for (size_t i = 0; i < PD_ARRAY_SIZE(mistakes); i++) {
		assert_true(run(mistakes[i].script) < 0);
		assert_string_equal(error, mistakes[i].error);
		pd_generator_delete("a");
	}
	assert_int_equal(run("# nothing\n   # at all"), 0);
	assert_int_equal(run("packet-generator disable"), -ENOENT);
	assert_string_equal(error, "s:1: there is no stream");
	assert_int_equal(pd_generator_script("s", "a\0b", 3, NULL, error, sizeof(error)), -EINVAL);
	assert_string_equal(error, "s:1: a byte is zero");
	assert_int_equal(pd_generator_script(NULL, "x", 1, NULL, error, sizeof(error)), -EINVAL);
	assert_string_equal(error, "expected packet-generator, found x");
}

static void test_a_word_that_does_not_end(void **state)
{
	size_t n = 10000;
	char *text = malloc(n);

	memset(text, 'x', n);
	assert_int_equal(pd_generator_script("s", text, n, NULL, error, sizeof(error)), -EINVAL);
	assert_string_equal(error, "s:1: a word is too long");
	/* Messages are cut, not written beyond their room. */
	assert_int_equal(pd_generator_script("s", "y", 1, NULL, error, 8), -EINVAL);
	assert_string_equal(error, "s:1: ex");
	free(text);
}

#define WITH_WORKERS(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_WORKERS(test_sizes_go_round_and_data_is_filled),
		WITH_WORKERS(test_an_enabled_stream_starts_anew),
		WITH_WORKERS(test_hex_is_cut_and_without_size_as_it_is),
		WITH_WORKERS(test_long_frames_are_chained),
		WITH_WORKERS(test_sidecars_and_control_frames),
		WITH_WORKERS(test_a_rate_is_kept_up_asleep),
		WITH_WORKERS(test_disable_and_delete_stop_it),
		WITH_WORKERS(test_want_of_buffers_is_counted),
		WITH_WORKERS(test_streams_end_with_their_workers),
		WITH_WORKERS(test_a_stream_from_a_file),
		WITH_WORKERS(test_mistakes_are_named_with_their_line),
		cmocka_unit_test(test_a_word_that_does_not_end),
		cmocka_unit_test(test_capture_files_of_all_forms),
		cmocka_unit_test(test_broken_capture_files),
		cmocka_unit_test(test_random_capture_files),
	};
	int ret;

	if (!mkdtemp(folder))
		return 99;
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(folder);
	return ret;
}
