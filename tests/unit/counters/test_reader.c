/* SPDX-License-Identifier: BSD-2-Clause */
/* What palladium_stats shows of a block that is written to while it reads. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/compiler.h"
#include "counters/counters.h"
#include "../../../src/stats/reader.h"

static struct pd_ctr_block *port;
static unsigned pauses;

/*
 * The reader pauses, as it finds a side of the block in the middle of an update: it has read the
 * texts by then, and not the counters. The writer goes on.
 */
int nanosleep(const struct timespec *time, struct timespec *left)
{
	if (!pauses++) {
		pd_ctr_status(port, "down", "it went", "it went");
		pd_ctr_count(port, PD_CTR_PORT_PROTOCOL_ERRORS, 1);
		pd_ctr_end(port, PD_CTR_PORT_RX);
	}
	return 0;
}

static void what_is_counted_has_its_reason(void **state)
{
	char dir[] = "/tmp/pd-reader-XXXXXX", sub[64];
	struct pd_stats_snap snap;
	struct pd_stats_file file;
	int group, errors, found = 0;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(pd_ctr_open(dir, 1), 0);
	port = pd_ctr_alloc(PD_CTR_PORT, 0, PD_SHM_NONE, "pd0");
	pd_ctr_status(port, "up", "", NULL);
	pd_ctr_begin(port, PD_CTR_PORT_RX);
	assert_int_equal(pd_stats_file_open(open(pd_ctr_path(), O_RDONLY | O_CLOEXEC),
					    &(struct pd_shm_owner){0}, &file),
			 0);
	group = pd_stats_group_find(&file, "port");
	assert_true(group >= 0);
	errors = pd_stats_desc_find(&file, (unsigned)group, "protocol_errors");
	assert_true(errors >= 0);
	assert_int_equal(pd_stats_snap_take(&file, NULL, &snap), 0);
	for (size_t i = 0; i < snap.count; i++) {
		const struct pd_stats_block *b = &snap.blocks[i];

		if (b->head.group != (unsigned)group || strcmp(b->head.name, "pd0"))
			continue;
		found++;
		assert_false(b->torn);
		assert_int_equal(b->values[errors], 1);
		assert_string_equal(b->head.state, "down");
		assert_string_equal(b->head.reason, "it went");
		assert_string_equal(b->head.last_error, "it went");
	}
	assert_int_equal(found, 1);
	assert_int_equal(pauses, 1);
	pd_stats_snap_free(&snap);
	pd_stats_file_close(&file);
	pd_ctr_close();
	snprintf(sub, sizeof(sub), "%s/palladium-%u", dir, getuid());
	assert_int_equal(rmdir(sub), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_counted_has_its_reason)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
