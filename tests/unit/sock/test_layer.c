/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sock/layer: what the variables say of spinning, of looks at the kernel's descriptors and of
 * moderation arrives where it is used, each at its own place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <sys/wait.h>

#include "base/clock.h"
#include "config/config.h"
#include "config/vars.h"
#include "sock/fd.h"
#include "sock/layer.h"
#include "vlib/moderation.h"
#include "vlib/progress.h"
#include "wait/spin.h"

/* Settings, NAME=value parted by blanks, and what they come to. */
struct settings {
	const char *env;
	struct pd_wait_tuning wait;
	uint32_t spin_max_ns;
	struct pd_moderation_tuning moderation;
};

#define US PD_NS_PER_US
#define MS PD_NS_PER_MS

static const struct settings cases[] = {
	{"", {-1, 10, 4, false}, 50000, {true, 48, 50 * US, 250 * MS, 5000, 560, 250 * US}},
	{"SELECT_POLL=0 SELECT_POLL_OS_RATIO=7 SELECT_SKIP_OS=3 RX_POLL_YIELD=1 "
	 "POLL_ADAPTIVE_MAX_USEC=123 CQ_MODERATION_ENABLE=0 CQ_MODERATION_COUNT=21 "
	 "CQ_MODERATION_PERIOD_USEC=22 CQ_AIM_INTERVAL_MSEC=23 CQ_AIM_INTERRUPTS_RATE_PER_SEC=24 "
	 "CQ_AIM_MAX_COUNT=25 CQ_AIM_MAX_PERIOD_USEC=26",
	 {0, 7, 3, true},
	 123000,
	 {false, 21, 22 * US, 23 * MS, 24, 25, 26 * US}},
	{"SELECT_POLL=777 SELECT_POLL_OS_FORCE=1",
	 {777, 1, 1, false},
	 50000,
	 {true, 48, 50 * US, 250 * MS, 5000, 560, 250 * US}},
	{"SELECT_POLL=forever SELECT_POLL_OS_FORCE=1 SELECT_SKIP_OS=0",
	 {INT32_MAX, 1, UINT32_MAX, false},
	 50000,
	 {true, 48, 50 * US, 250 * MS, 5000, 560, 250 * US}},
};

/* Put settings into the environment. */
static void set(const char *settings)
{
	char copy[400], name[64], *save, *word;

	snprintf(copy, sizeof(copy), "%s", settings);
	for (word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		char *value = strchr(word, '=');

		*value = '\0';
		snprintf(name, sizeof(name), "PALLADIUM_%s", word);
		setenv(name, value + 1, 1);
	}
}

/* Start the layer with these settings; the line of the first that is not where it belongs, or 0. */
static int wrong(const struct settings *s)
{
	const struct pd_moderation_tuning *m = &pd_moderation_tuning, *want = &s->moderation;
	struct pd_config *config;

	set(s->env);
	pd_progress_set_manual(true);
	pd_vars_load();
	if (pd_config_load(&config))
		return __LINE__;
	pd_fd_adopt();
	if (pd_sock_layer_start(config))
		return __LINE__;
	if (pd_wait_tuning.spin_us != s->wait.spin_us || pd_wait_tuning.yield != s->wait.yield)
		return __LINE__;
	if (pd_wait_tuning.kernel_looks != s->wait.kernel_looks ||
	    pd_wait_tuning.kernel_skips != s->wait.kernel_skips)
		return __LINE__;
	if (pd_spin_max_ns != s->spin_max_ns)
		return __LINE__;
	if (m->enabled != want->enabled || m->count != want->count ||
	    m->period_ns != want->period_ns)
		return __LINE__;
	if (m->aim_interval_ns != want->aim_interval_ns || m->aim_rate != want->aim_rate)
		return __LINE__;
	if (m->aim_count != want->aim_count || m->aim_period_ns != want->aim_period_ns)
		return __LINE__;
	return 0;
}

static void test_settings_arrive(void **state)
{
	int status;

	(void)state;
	for (unsigned i = 0; i < PD_ARRAY_SIZE(cases); i++) {
		pid_t pid = fork(); /* the layer starts once in a process */

		assert_true(pid >= 0);
		if (!pid)
			_exit(wrong(&cases[i]) & 0xff);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (status)
			fail_msg("settings %u: status 0x%x (line %% 256)", i, status);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_settings_arrive),
	};

	setenv("PALLADIUM_PORTS", "pd0=loop:pd1", 1);
	setenv("PALLADIUM_CONFIG_FILE", "/dev/null", 1);
	setenv("PALLADIUM_TRACELEVEL", "none", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
