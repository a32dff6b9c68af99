/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration tests' rig. */
#include "conf_rig.h"

char said[1 << 16];
struct pd_config *cfg;

void say(void *ctx, enum pd_conf_severity severity, const struct pd_conf_place *place,
	 const char *text)
{
	static const char *const names[] = {"error", "warning", "detail"};
	size_t n = strlen(said);

	snprintf(said + n, sizeof(said) - n, "%s %s:%u:%u: %s\n", names[severity], place->file,
		 place->line, place->column, text);
}

void begin(void)
{
	pd_config_free(cfg);
	cfg = pd_config_new();
	assert_non_null(cfg);
	said[0] = 0;
}

void file(const char *text)
{
	begin();
	assert_int_equal(pd_config_parse(cfg, "f", text, strlen(text), say, NULL), 0);
	pd_config_finish(cfg, say, NULL);
}

void ports_over(const char *below, const char *text)
{
	begin();
	assert_int_equal(pd_config_parse(cfg, "f", below, strlen(below), say, NULL), 0);
	assert_int_equal(pd_config_parse_ports(cfg, "env", text, strlen(text), say, NULL), 0);
	pd_config_finish(cfg, say, NULL);
}

int conf_teardown(void **state)
{
	pd_config_free(cfg);
	cfg = NULL;
	return 0;
}
