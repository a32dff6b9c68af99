/* SPDX-License-Identifier: BSD-2-Clause */
/* config/vars: the table of PALLADIUM_ variables and its reader. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/compiler.h"
#include "config/text.h"
#include "config/vars.h"

/* What a reading said, one line each: "warn: text\n". */
struct said {
	char text[8192];
};

static void say(void *ctx, enum pd_log_level level, const char *text)
{
	struct said *said = ctx;
	size_t n = strlen(said->text);

	snprintf(said->text + n, sizeof(said->text) - n, "%s: %s\n", pd_log_level_name(level),
		 text);
}

static struct pd_vars vars;
static struct said said;

/* Read a NULL-terminated list of entries into `vars` and `said`; returns the number of mistakes. */
static int read_env(char *first, ...)
{
	char *env[32];
	size_t n = 0;
	va_list ap;

	va_start(ap, first);
	for (char *p = first; p; p = va_arg(ap, char *))
		env[n++] = p;
	va_end(ap);
	env[n] = NULL;
	if (vars.config_file)
		pd_vars_reset(&vars);
	said.text[0] = 0;
	return pd_vars_parse(&vars, env, say, &said);
}

static int teardown(void **state)
{
	if (vars.config_file)
		pd_vars_reset(&vars);
	return 0;
}

static void test_nothing_set_gives_the_defaults(void **state)
{
	assert_int_equal(read_env("HOME=/", "PALLADIUM=1", NULL), 0);
	assert_string_equal(said.text, "");
	assert_int_equal(vars.rx_poll, PD_POLL_ADAPTIVE);
	assert_int_equal(vars.tracelevel, PD_LOG_INFO);
	assert_int_equal(vars.rx_bytes_min, 65536);
	assert_true(vars.offloaded_sockets);
	assert_string_equal(vars.stats_shmem_dir, "/dev/shm");
	assert_string_equal(vars.ports, "");
	assert_int_equal(pd_vars.rx_poll, PD_POLL_ADAPTIVE); /* also before any reading */
	assert_string_equal(pd_vars.config_file, vars.config_file);
	assert_false(pd_vars_is_set(&vars, &vars.rx_poll));
}

static void test_values_of_every_type(void **state)
{
	assert_int_equal(read_env("PALLADIUM_RX_POLL=250", "PALLADIUM_RX_BYTES_MIN=2M",
				  "PALLADIUM_FORK=off", "PALLADIUM_METADATA=Inline",
				  "PALLADIUM_CONFIG_FILE=/x y", "PALLADIUM_TRACELEVEL=all",
				  "PALLADIUM_SELECT_POLL=2ms", "PALLADIUM_SEND_WHEN_DOWN=wait",
				  "PALLADIUM_RECONNECT_MIN_MS=0x10", NULL),
			 0);
	assert_string_equal(said.text, "");
	assert_int_equal(vars.rx_poll, 250);
	assert_int_equal(vars.rx_bytes_min, 2 << 20);
	assert_false(vars.fork);
	assert_int_equal(vars.metadata, PD_METADATA_INLINE);
	assert_string_equal(vars.config_file, "/x y");
	assert_int_equal(vars.tracelevel, PD_LOG_FINER);
	assert_int_equal(vars.select_poll, 2000);
	assert_int_equal(vars.send_when_down, PD_SEND_WHEN_DOWN_WAIT);
	assert_int_equal(vars.reconnect_min_ms, 16);
	assert_true(pd_vars_is_set(&vars, &vars.rx_poll));
	assert_true(pd_vars_is_set(&vars, &vars.config_file));
	assert_false(pd_vars_is_set(&vars, &vars.rx_bufs));
}

static void test_booleans_as_people_write_them(void **state)
{
	static const char *const yes[] = {"1", "yes", "on", "true", "Enable", "ENABLED"};
	static const char *const no[] = {"0", "no", "off", "False", "disable", "disabled"};
	char entry[64];

	for (size_t i = 0; i < PD_ARRAY_SIZE(yes); i++) {
		snprintf(entry, sizeof(entry), "PALLADIUM_LOG_COLORS=%s", yes[i]);
		assert_int_equal(read_env("PALLADIUM_LOG_COLORS=no", NULL), 0);
		assert_false(vars.log_colors);
		assert_int_equal(read_env(entry, NULL), 0);
		assert_true(vars.log_colors);
		snprintf(entry, sizeof(entry), "PALLADIUM_FORK=%s", no[i]);
		assert_int_equal(read_env(entry, NULL), 0);
		assert_false(vars.fork);
	}
	assert_int_equal(read_env("PALLADIUM_FORK=2", NULL), 1);
	assert_true(vars.fork);
	assert_string_equal(said.text, "warn: PALLADIUM_FORK=2: expected 1 or 0; using 1\n");
}

static void test_out_of_range_names_the_range_and_keeps_the_default(void **state)
{
	assert_int_equal(read_env("PALLADIUM_MTU=99999", NULL), 1);
	assert_string_equal(said.text, "warn: PALLADIUM_MTU=99999 is out of range: expected a "
				       "number from 0 to 12226 (octets); using 0\n");
	assert_int_equal(vars.mtu, 0);
	assert_int_equal(read_env("PALLADIUM_MTU=10", NULL), 1);
	assert_string_equal(said.text,
			    "warn: PALLADIUM_MTU=10 is out of range: expected a number from 68 to "
			    "12226 (octets), or 0, which leaves the MTU at 1500; using 0\n");
	assert_int_equal(vars.mtu, 0);
	assert_int_equal(read_env("PALLADIUM_MTU=68", NULL), 0);
	assert_int_equal(vars.mtu, 68);
	assert_int_equal(read_env("PALLADIUM_RX_POLL=-3", NULL), 1);
	assert_string_equal(said.text,
			    "warn: PALLADIUM_RX_POLL=-3 is out of range: expected a number from -1 "
			    "to 100000000 (loops), or adaptive or forever; using adaptive\n");
	assert_int_equal(read_env("PALLADIUM_RX_POLL=99999999999999999999", NULL), 1);
	assert_non_null(strstr(said.text, "out of range"));
	assert_int_equal(read_env("PALLADIUM_RX_BUFS=9999999999999G", NULL), 1);
	assert_non_null(strstr(said.text, "out of range"));
	assert_int_equal(read_env("PALLADIUM_MEM_ALLOC_TYPE=3", NULL), 1);
	assert_string_equal(said.text, "warn: PALLADIUM_MEM_ALLOC_TYPE=3 is out of range: expected "
				       "anon, contig or hugepages; using contig\n");
	assert_int_equal(vars.mem_alloc_type, PD_MEM_CONTIG);
}

static void test_what_is_no_value_is_refused(void **state)
{
	static char *const wrong[] = {
		"PALLADIUM_RX_POLL=many",       "PALLADIUM_RX_POLL=10x",
		"PALLADIUM_RX_POLL= 10",        "PALLADIUM_RX_BYTES_MIN=64q",
		"PALLADIUM_METADATA=both",      "PALLADIUM_RECONNECT_MIN_MS=1500us",
		"PALLADIUM_RECONNECT_MIN_MS=-", "PALLADIUM_MTU=0x",
	};

	for (size_t i = 0; i < PD_ARRAY_SIZE(wrong); i++) {
		assert_int_equal(read_env(wrong[i], NULL), 1);
		assert_non_null(strstr(said.text, ": expected "));
		assert_int_equal(vars.rx_poll, PD_POLL_ADAPTIVE);
		assert_int_equal(vars.reconnect_min_ms, 20);
	}
	assert_int_equal(read_env("PALLADIUM_RX_POLL=", NULL), 0);
	assert_string_equal(said.text, "details: PALLADIUM_RX_POLL is empty: taken as not set\n");
}

static void test_a_misspelt_name_gets_the_nearest(void **state)
{
	assert_int_equal(read_env("PALLADIUM_RX_POL=1", NULL), 1);
	assert_string_equal(said.text, "warn: there is no variable PALLADIUM_RX_POL: did you mean "
				       "PALLADIUM_RX_POLL?\n");
	assert_int_equal(read_env("PALLADIUM_TRACE_LEVEL=debug", NULL), 1);
	assert_non_null(strstr(said.text, "did you mean PALLADIUM_TRACELEVEL?"));
	assert_int_equal(read_env("PALLADIUM_PROTS=", NULL), 1);
	assert_non_null(strstr(said.text, "did you mean PALLADIUM_PORTS?"));
	assert_int_equal(read_env("PALLADIUM_ZEPPELIN=1", NULL), 1);
	assert_string_equal(said.text, "warn: there is no variable PALLADIUM_ZEPPELIN\n");
	assert_int_equal(read_env("PALLADIUM_=1", NULL), 1);
}

static void test_a_variable_that_cannot_act_is_said(void **state)
{
	assert_int_equal(read_env("PALLADIUM_TCP_NODELAY=1", NULL), 1);
	assert_string_equal(said.text, "warn: PALLADIUM_TCP_NODELAY=1 has no effect (not yet: it "
				       "comes with TCP)\n");
	assert_true(vars.tcp_nodelay);
}

static void test_the_first_of_two_counts(void **state)
{
	assert_int_equal(read_env("PALLADIUM_LOG_FILE=/a", "PALLADIUM_LOG_FILE=/b", NULL), 0);
	assert_string_equal(vars.log_file, "/a");
}

static void test_a_profile_changes_defaults_only(void **state)
{
	assert_int_equal(read_env("PALLADIUM_RX_POLL=7", "PALLADIUM_SPEC=latency", NULL), 0);
	assert_int_equal(vars.rx_poll, 7);
	assert_int_equal(vars.select_poll, PD_POLL_FOREVER);
	assert_int_equal(vars.mem_alloc_type, PD_MEM_HUGEPAGES);
	assert_int_equal(vars.ring_allocation_logic_rx, 0);
	assert_int_equal(read_env("PALLADIUM_SPEC=multi_ring_latency", NULL), 0);
	assert_int_equal(vars.ring_allocation_logic_rx, 20);
}

static void test_reconnect_times_are_kept_in_order(void **state)
{
	assert_int_equal(read_env("PALLADIUM_RECONNECT_MIN_MS=5s", NULL), 1);
	assert_int_equal(vars.reconnect_min_ms, 5000);
	assert_int_equal(vars.reconnect_max_ms, 5000);
	assert_int_equal(read_env("PALLADIUM_RECONNECT_MAX_MS=10", NULL), 1);
	assert_string_equal(said.text,
			    "warn: PALLADIUM_RECONNECT_MAX_MS=10 is out of range: expected a "
			    "number from 20 (PALLADIUM_RECONNECT_MIN_MS) to 600000 (ms); using "
			    "1000\n");
	assert_int_equal(vars.reconnect_max_ms, 1000);
}

/* A string as long as allowed is kept, one byte more is refused. */
static void test_strings_have_a_limit(void **state)
{
	static char entry[400] = "PALLADIUM_APPLICATION_ID=";

	memset(entry + 25, 'x', 255);
	assert_int_equal(read_env(entry, NULL), 0);
	assert_int_equal(strlen(vars.application_id), 255);
	entry[25 + 255] = 'x';
	assert_int_equal(read_env(entry, NULL), 1);
	assert_string_equal(vars.application_id, "PALLADIUM_DEFAULT_APPLICATION_ID");
}

/* The enums of vars.h are the words of vars.def. */
static void test_words_and_enums_agree(void **state)
{
	static const struct {
		const char *name, *word;
		int value;
	} rows[] = {
		{"PALLADIUM_METADATA", "cmsg", PD_METADATA_CMSG},
		{"PALLADIUM_METADATA", "inline", PD_METADATA_INLINE},
		{"PALLADIUM_SEND_WHEN_DOWN", "error", PD_SEND_WHEN_DOWN_ERROR},
		{"PALLADIUM_SEND_WHEN_DOWN", "wait", PD_SEND_WHEN_DOWN_WAIT},
		{"PALLADIUM_RX_BACKPRESSURE", "drop", PD_BACKPRESSURE_DROP},
		{"PALLADIUM_RX_BACKPRESSURE", "port", PD_BACKPRESSURE_PORT},
		{"PALLADIUM_MEM_ALLOC_TYPE", "anon", PD_MEM_ANON},
		{"PALLADIUM_MEM_ALLOC_TYPE", "contig", PD_MEM_CONTIG},
		{"PALLADIUM_MEM_ALLOC_TYPE", "hugepages", PD_MEM_HUGEPAGES},
		{"PALLADIUM_RX_POLL", "adaptive", PD_POLL_ADAPTIVE},
		{"PALLADIUM_RX_POLL", "forever", PD_POLL_FOREVER},
		{"PALLADIUM_SELECT_POLL", "adaptive", PD_POLL_ADAPTIVE},
		{"PALLADIUM_SELECT_POLL", "forever", PD_POLL_FOREVER},
	};

	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++) {
		int64_t value = 999;

		for (unsigned row = 0; row < pd_var_count; row++)
			if (!strcmp(pd_var_descs[row].name, rows[i].name))
				assert_true(pd_text_word(pd_var_descs[row].words, rows[i].word,
							 strlen(rows[i].word), &value));
		assert_int_equal(value, rows[i].value);
	}
	for (int level = 0; level < PD_LOG_LEVEL_COUNT; level++) {
		const char *name = pd_log_level_name(level);
		int64_t value = -1;

		assert_true(pd_text_word(pd_var_descs[0].words, name, strlen(name), &value));
		assert_int_equal(value, level);
	}
}

/* Every row is whole: unique name, default within its range, words well formed, help given. */
static void test_every_row_is_sound(void **state)
{
	char text[300];

	for (unsigned i = 0; i < pd_var_count; i++) {
		const struct pd_var_desc *d = &pd_var_descs[i];
		int64_t v;

		for (unsigned j = 0; j < i; j++) {
			assert_string_not_equal(d->name, pd_var_descs[j].name);
			assert_true(!*d->vma || strcmp(d->vma, pd_var_descs[j].vma));
		}
		assert_true(strlen(d->help) > 5);
		if (d->type == PD_VAR_TYPE_STR) {
			assert_true(strlen(d->default_text) < (size_t)d->max);
			continue;
		}
		pd_var_format(&pd_vars, d, text, sizeof(text));
		if (d->type == PD_VAR_TYPE_ENUM || d->default_number < d->min)
			assert_true(pd_text_word(d->words, text, strlen(text), &v));
		else
			assert_in_range(d->default_number + 10, d->min + 10, d->max + 10);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_nothing_set_gives_the_defaults, teardown),
		cmocka_unit_test_teardown(test_values_of_every_type, teardown),
		cmocka_unit_test_teardown(test_booleans_as_people_write_them, teardown),
		cmocka_unit_test_teardown(test_out_of_range_names_the_range_and_keeps_the_default,
					  teardown),
		cmocka_unit_test_teardown(test_what_is_no_value_is_refused, teardown),
		cmocka_unit_test_teardown(test_a_misspelt_name_gets_the_nearest, teardown),
		cmocka_unit_test_teardown(test_a_variable_that_cannot_act_is_said, teardown),
		cmocka_unit_test_teardown(test_the_first_of_two_counts, teardown),
		cmocka_unit_test_teardown(test_a_profile_changes_defaults_only, teardown),
		cmocka_unit_test_teardown(test_reconnect_times_are_kept_in_order, teardown),
		cmocka_unit_test_teardown(test_strings_have_a_limit, teardown),
		cmocka_unit_test(test_words_and_enums_agree),
		cmocka_unit_test(test_every_row_is_sound),
	};

	return cmocka_run_group_tests_name("config/vars", tests, NULL, NULL);
}
