/* SPDX-License-Identifier: BSD-2-Clause */
/* config/: files, their ends and sizes, and texts that no one would write. */
#include <sys/stat.h>

#include "conf_rig.h"

static void test_terminals_are_spared(void **state)
{
	file("\033[31mred\n");
	assert_non_null(strstr(said, "not \"?[31mred\""));
}

static void test_reading_files(void **state)
{
	char path[] = "/tmp/pd-test-conf-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "port pd0 loop:pd1\nx\n", 20), 20);
	begin();
	assert_int_equal(pd_config_read_file(cfg, path, say, NULL), 0);
	assert_int_equal(cfg->port_count, 1);
	assert_memory_equal(said, "error /tmp/pd-test-conf-", 24);
	assert_string_equal(cfg->ports[0].place.file, path);
	begin();
	assert_int_equal(ftruncate(fd, PD_CONF_FILE_BYTES_MAX), 0);
	assert_int_equal(pd_config_read_file(cfg, path, NULL, NULL), 0);
	assert_int_equal(ftruncate(fd, PD_CONF_FILE_BYTES_MAX + 1), 0);
	assert_int_equal(pd_config_read_file(cfg, path, say, NULL), -EFBIG);
	unlink(path);
	close(fd);
	assert_int_equal(pd_config_read_file(cfg, path, say, NULL), -ENOENT);
	assert_int_equal(pd_config_read_file(cfg, "/tmp", say, NULL), -EISDIR);
	assert_int_equal(pd_config_read_file(cfg, "/dev/null", say, NULL), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(pd_config_read_file(cfg, path, say, NULL), 0); /* does not wait */
	unlink(path);
}

/* Who installs under a prefix has no file there at first; the one of /etc counts then. */
static void test_the_other_file_is_read_where_the_first_is_missing(void **state)
{
	char there[] = "/tmp/pd-test-conf-XXXXXX", missing[] = "/tmp/pd-test-conf-XXXXXX";
	int fd = mkstemp(there), gone = mkstemp(missing);
	const char *path = missing;

	assert_true(fd >= 0 && gone >= 0);
	unlink(missing);
	assert_int_equal(write(fd, "port pd0 loop:pd1\n", 18), 18);
	begin();
	assert_int_equal(pd_config_read_either(cfg, &path, NULL, say, NULL), -ENOENT);
	assert_ptr_equal(path, missing);
	assert_int_equal(pd_config_read_either(cfg, &path, there, say, NULL), 0);
	assert_ptr_equal(path, there);
	assert_int_equal(cfg->port_count, 1);
	/* One that is there counts alone, whatever it says. */
	begin();
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pd_config_read_either(cfg, &path, missing, say, NULL), 0);
	assert_ptr_equal(path, there);
	path = "/tmp";
	assert_int_equal(pd_config_read_either(cfg, &path, there, say, NULL), -EISDIR);
	unlink(there);
	close(fd);
	close(gone);
}

/* The example of the tree is understood to the last word. */
static void test_the_example_is_clean(void **state)
{
	const char *top = getenv("srcdir");
	char path[4096];

	snprintf(path, sizeof(path), "%s/palladium.conf", top ? top : ".");
	begin();
	assert_int_equal(pd_config_read_file(cfg, path, say, NULL), 0);
	pd_config_finish(cfg, say, NULL);
	assert_string_equal(said, "");
}

/* Bytes from a fixed seed (xorshift). */
static uint32_t random_next(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

static void test_random_bytes_never_hurt(void **state)
{
	char text[400];
	uint32_t seed = 20180812;

	for (int i = 0; i < 10000; i++) {
		size_t len = random_next(&seed) % sizeof(text);

		for (size_t j = 0; j < len; j++)
			text[j] = (char)random_next(&seed);
		begin();
		assert_int_equal(pd_config_parse(cfg, "f", text, len, NULL, NULL), 0);
		assert_int_equal(pd_config_parse_ports(cfg, "env", text, len, NULL, NULL), 0);
		pd_config_finish(cfg, NULL, NULL);
	}
}

/* Words of the grammar in any order get further into it than bytes do. */
static void test_random_words_never_hurt(void **state)
{
	static const char *const words[] = {
		"application-id",
		"use",
		"port",
		"log",
		"palladium",
		"os",
		"tcp_client",
		"udp_connect",
		"packet",
		"*:*",
		"10.0.0.1",
		":",
		"/",
		"-",
		"*",
		"[::1]",
		"80",
		"\n",
		"\n",
		"\n",
		"=",
		"mtu=9000",
		"mtu",
		"path=",
		"\"",
		"\"a b\"",
		"#",
		"pd0",
		"pd1",
		"loop",
		"loop:pd1",
		"vhost-user:/x",
		";",
		",",
		"min-level",
		"destination",
		"file",
		"ip=",
		"ip=1.2.3.4/8",
		"peer=pd0",
		"\t",
		"\\",
	};
	char text[1000];
	uint32_t seed = 1;

	for (int i = 0; i < 10000; i++) {
		size_t n = 0, count = random_next(&seed) % 60;

		for (size_t j = 0; j < count; j++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s",
					      words[random_next(&seed) % PD_ARRAY_SIZE(words)],
					      random_next(&seed) % 4 ? " " : "");
		begin();
		assert_int_equal(pd_config_parse(cfg, "f", text, n, NULL, NULL), 0);
		assert_int_equal(pd_config_parse_ports(cfg, "env", text, n, NULL, NULL), 0);
		pd_config_finish(cfg, NULL, NULL);
		for (uint32_t j = 0; j < cfg->port_count; j++) {
			assert_true(*cfg->ports[j].path || *cfg->ports[j].peer);
			assert_in_range(cfg->ports[j].mtu, 68, 12226);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_terminals_are_spared),
		cmocka_unit_test(test_reading_files),
		cmocka_unit_test(test_the_other_file_is_read_where_the_first_is_missing),
		cmocka_unit_test(test_the_example_is_clean),
		cmocka_unit_test(test_random_bytes_never_hurt),
		cmocka_unit_test(test_random_words_never_hurt),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, conf_teardown);
}
