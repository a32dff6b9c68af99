/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of the configuration share: reading a text, and keeping what is said about it. */
#ifndef TESTS_CONF_RIG_H
#define TESTS_CONF_RIG_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/compiler.h"
#include "config/config.h"
#include "config/vars.h"

/* Messages since begin(), one line each: "error f:3:5: text\n". */
extern char said[1 << 16];
/* What was read since. */
extern struct pd_config *cfg;

/* Where messages go: into `said`. */
void say(void *ctx, enum pd_conf_severity severity, const struct pd_conf_place *place,
	 const char *text);

/* Begin afresh. */
void begin(void);

/* Read `text` as the file "f" and finish. */
void file(const char *text);

/* Read `text` as PALLADIUM_PORTS ("env") on top of the file `below` and finish. */
void ports_over(const char *below, const char *text);

/* A group's tear-down. */
int conf_teardown(void **state);

#endif /* TESTS_CONF_RIG_H */
