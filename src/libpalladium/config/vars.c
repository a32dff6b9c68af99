/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The PALLADIUM_ variables: the rows of defs/vars.def as a table, and the one reader that walks it.
 *
 * The environment is walked, not asked: a name that begins with PALLADIUM_ and stands in no row is
 * probably misspelt, and its owner is told.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <termios.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/quiet.h"
#include "base/sys.h"
#include "config/config.h"
#include "config/text.h"
#include "config/vars.h"

#define PD_VAR_PREFIX "PALLADIUM_"
#define PD_VAR_TEXT_SHOWN 200 /* bytes of a wrong value that a message repeats */

#define PD_ACTS NULL
#define PD_LATER(why) "not yet: it comes with " why
#define PD_NEVER(why) why
#define PD_VAR_VMA(vma) (sizeof(vma) > 1 ? "VMA_" vma : "")

struct pd_vars pd_vars = {
#define PD_VAR_INT(NAME, field, dflt, min, max, unit, words, acts, vma, help) .field = (dflt),
#define PD_VAR_SIZE(NAME, field, dflt, min, max, unit, acts, vma, help) .field = (dflt),
#define PD_VAR_BOOL(NAME, field, dflt, acts, vma, help) .field = (dflt),
#define PD_VAR_ENUM(NAME, field, dflt, words, acts, vma, help) .field = (dflt),
#define PD_VAR_STR(NAME, field, dflt, bytes, acts, vma, help) .field = (dflt),
#include "defs/vars.def"
};

const struct pd_var_desc pd_var_descs[] = {
#define PD_VAR_INT(NAME, field, dflt, lo, hi, u, w, acts, v, h) \
	{.name = PD_VAR_PREFIX #NAME,                           \
	 .type = PD_VAR_TYPE_INT,                               \
	 .offset = offsetof(struct pd_vars, field),             \
	 .default_number = (dflt),                              \
	 .min = (lo),                                           \
	 .max = (hi),                                           \
	 .unit = (u),                                           \
	 .words = (w),                                          \
	 .idle = acts,                                          \
	 .vma = PD_VAR_VMA(v),                                  \
	 .help = (h)},
#define PD_VAR_SIZE(NAME, field, dflt, lo, hi, u, acts, v, h) \
	{.name = PD_VAR_PREFIX #NAME,                         \
	 .type = PD_VAR_TYPE_SIZE,                            \
	 .offset = offsetof(struct pd_vars, field),           \
	 .default_number = (dflt),                            \
	 .min = (lo),                                         \
	 .max = (hi),                                         \
	 .unit = (u),                                         \
	 .words = "",                                         \
	 .idle = acts,                                        \
	 .vma = PD_VAR_VMA(v),                                \
	 .help = (h)},
#define PD_VAR_BOOL(NAME, field, dflt, acts, v, h)  \
	{.name = PD_VAR_PREFIX #NAME,               \
	 .type = PD_VAR_TYPE_BOOL,                  \
	 .offset = offsetof(struct pd_vars, field), \
	 .default_number = (dflt),                  \
	 .max = 1,                                  \
	 .unit = "",                                \
	 .words = "",                               \
	 .idle = acts,                              \
	 .vma = PD_VAR_VMA(v),                      \
	 .help = (h)},
#define PD_VAR_ENUM(NAME, field, dflt, w, acts, v, h) \
	{.name = PD_VAR_PREFIX #NAME,                 \
	 .type = PD_VAR_TYPE_ENUM,                    \
	 .offset = offsetof(struct pd_vars, field),   \
	 .default_number = (dflt),                    \
	 .unit = "",                                  \
	 .words = (w),                                \
	 .idle = acts,                                \
	 .vma = PD_VAR_VMA(v),                        \
	 .help = (h)},
#define PD_VAR_STR(NAME, field, dflt, bytes, acts, v, h) \
	{.name = PD_VAR_PREFIX #NAME,                    \
	 .type = PD_VAR_TYPE_STR,                        \
	 .offset = offsetof(struct pd_vars, field),      \
	 .max = (bytes),                                 \
	 .default_text = (dflt),                         \
	 .unit = "",                                     \
	 .words = "",                                    \
	 .idle = acts,                                   \
	 .vma = PD_VAR_VMA(v),                           \
	 .help = (h)},
#include "defs/vars.def"
};
const unsigned pd_var_count = PD_ARRAY_SIZE(pd_var_descs);
_Static_assert(PD_ARRAY_SIZE(pd_var_descs) <= 64 * PD_ARRAY_SIZE(pd_vars.set_bits),
	       "set_bits has a bit for each row");

/* What a profile changes. */
static const struct pd_var_spec {
	const char *profile;
	uint32_t offset;
	int64_t value;
} pd_var_specs[] = {
#define PD_SPEC(name, field, number) {#name, offsetof(struct pd_vars, field), (number)},
#include "defs/vars.def"
};

/* One reading of an environment. */
struct pd_vars_reader {
	struct pd_vars *vars;
	pd_var_message_fn message;
	void *ctx;
	int mistakes;
};

/* Hand a message on; warnings count as mistakes. */
static PD_PRINTF(3, 4) void pd_vars_say(struct pd_vars_reader *r, enum pd_log_level level,
					const char *fmt, ...)
{
	char text[900];
	va_list ap;

	r->mistakes += level <= PD_LOG_WARN;
	if (!r->message)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	r->message(r->ctx, level, text);
}

/* The field of a row, in `vars`. */
static void *pd_var_field(struct pd_vars *vars, const struct pd_var_desc *desc)
{
	return (char *)vars + desc->offset;
}

/* Set a field that is not a string. */
static void pd_var_set_number(struct pd_vars *vars, const struct pd_var_desc *desc, int64_t v)
{
	void *field = pd_var_field(vars, desc);

	if (desc->type == PD_VAR_TYPE_BOOL)
		*(bool *)field = v != 0;
	else if (desc->type == PD_VAR_TYPE_SIZE)
		*(uint64_t *)field = (uint64_t)v;
	else
		*(int *)field = (int)v;
}

/* A field that is not a string, as a number. */
static int64_t pd_var_number(const struct pd_vars *vars, const struct pd_var_desc *desc)
{
	const void *field = (const char *)vars + desc->offset;

	if (desc->type == PD_VAR_TYPE_BOOL)
		return *(const bool *)field;
	if (desc->type == PD_VAR_TYPE_SIZE)
		return (int64_t) * (const uint64_t *)field;
	return *(const int *)field;
}

/* The string of a row. */
static const char **pd_var_string(struct pd_vars *vars, const struct pd_var_desc *desc)
{
	return pd_var_field(vars, desc);
}

/* `number` as the row shows it: its word or its digits. Returns `out`. */
static const char *pd_var_format_number(const struct pd_var_desc *desc, int64_t number, char *out,
					size_t size)
{
	size_t len;
	const char *word = pd_text_word_of(desc->words, number, &len);

	if (word)
		snprintf(out, size, "%.*s", (int)len, word);
	else
		snprintf(out, size, "%lld", (long long)number);
	return out;
}

const char *pd_var_format(const struct pd_vars *vars, const struct pd_var_desc *desc, char *out,
			  size_t size)
{
	if (desc->type != PD_VAR_TYPE_STR)
		return pd_var_format_number(desc, pd_var_number(vars, desc), out, size);
	snprintf(out, size, "%s", *pd_var_string((struct pd_vars *)vars, desc));
	return out;
}

const char *pd_var_format_default(const struct pd_var_desc *desc, char *out, size_t size)
{
	if (desc->type != PD_VAR_TYPE_STR)
		return pd_var_format_number(desc, desc->default_number, out, size);
	snprintf(out, size, "%s", desc->default_text);
	return out;
}

/* Append the names of "name=number|..." to `out` as "a, b or c". */
static void pd_var_append_words(char *out, size_t size, const char *words)
{
	size_t n = strlen(out);

	for (const char *p = words; *p;) {
		const char *eq = strchr(p, '=');

		n += (size_t)snprintf(out + n, size - n, "%s%.*s",
				      p == words       ? ""
				      : strchr(p, '|') ? ", "
						       : " or ",
				      (int)(eq - p), p);
		n = pd_min(n, size - 1);
		p = strchrnul(p, '|');
		p += *p == '|';
	}
}

/* What a row takes, in words for a message. Returns `out`. */
static const char *pd_var_expected(const struct pd_var_desc *desc, char *out, size_t size)
{
	int n = 0;

	out[0] = 0;
	switch (desc->type) {
	case PD_VAR_TYPE_BOOL:
		snprintf(out, size, "1 or 0");
		break;
	case PD_VAR_TYPE_STR:
		snprintf(out, size, "at most %lld bytes", (long long)desc->max - 1);
		break;
	case PD_VAR_TYPE_INT:
	case PD_VAR_TYPE_SIZE:
		n = snprintf(out, size, "a number from %lld to %lld%s%s%s", (long long)desc->min,
			     (long long)desc->max, *desc->unit ? " (" : "", desc->unit,
			     *desc->unit ? ")" : "");
		if (*desc->words)
			snprintf(out + n, size - (size_t)n, ", or ");
		/* fallthrough */
	case PD_VAR_TYPE_ENUM:
		pd_var_append_words(out, size, desc->words);
		break;
	}
	return out;
}

/*
 * Read the text of a row that is no string. Returns 0, -EINVAL when it is not what the row takes,
 * -ERANGE when it is outside; *out on success only.
 */
static int pd_var_read_number(const struct pd_var_desc *desc, const char *text, int64_t *out)
{
	size_t len = strlen(text), ignored;
	int64_t v = 0;
	bool yes;
	int ret;

	if (desc->type == PD_VAR_TYPE_BOOL) {
		if (!pd_text_bool(text, len, &yes))
			return -EINVAL;
		*out = yes;
		return 0;
	}
	if (pd_text_word(desc->words, text, len, out))
		return 0;
	if (desc->type == PD_VAR_TYPE_SIZE)
		ret = pd_text_size(text, len, &v);
	else
		ret = pd_text_number(text, len, &v);
	if (ret == -EINVAL && desc->type == PD_VAR_TYPE_INT)
		ret = pd_text_duration(text, len, desc->unit, &v);
	if (!ret && desc->type == PD_VAR_TYPE_ENUM)
		ret = pd_text_word_of(desc->words, v, &ignored) ? 0 : -ERANGE;
	else if (!ret && (v < desc->min || v > desc->max))
		ret = -ERANGE;
	if (!ret)
		*out = v;
	return ret;
}

/* Say that `text` is not what the row takes, and what stands instead. */
static void pd_var_refuse(struct pd_vars_reader *r, const struct pd_var_desc *desc,
			  const char *text, int err)
{
	char expected[300], stands[300];

	pd_var_format_default(desc, stands, sizeof(stands));
	pd_vars_say(r, PD_LOG_WARN, "%s=%.*s%s: expected %s; using %s", desc->name,
		    PD_VAR_TEXT_SHOWN, text, err == -ERANGE ? " is out of range" : "",
		    pd_var_expected(desc, expected, sizeof(expected)),
		    *stands ? stands : "the empty default");
}

/* Take `text` as the value of a row. Returns 0 (also when it was refused) or -ENOMEM. */
static int pd_var_take(struct pd_vars_reader *r, const struct pd_var_desc *desc, const char *text)
{
	size_t row = (size_t)(desc - pd_var_descs);
	int64_t number;
	char *copy;
	int err;

	if (desc->type == PD_VAR_TYPE_STR) {
		if (strlen(text) >= (size_t)desc->max) {
			pd_var_refuse(r, desc, text, -ERANGE);
			return 0;
		}
		copy = strdup(text);
		if (!copy)
			return -ENOMEM;
		*pd_var_string(r->vars, desc) = copy;
	} else if (!*text) {
		pd_vars_say(r, PD_LOG_DETAILS, "%s is empty: taken as not set", desc->name);
		return 0;
	} else {
		err = pd_var_read_number(desc, text, &number);
		if (err) {
			pd_var_refuse(r, desc, text, err);
			return 0;
		}
		pd_var_set_number(r->vars, desc, number);
	}
	r->vars->set_bits[row / 64] |= 1ull << (row % 64);
	if (desc->idle)
		pd_vars_say(r, PD_LOG_WARN, "%s=%.*s has no effect (%s)", desc->name,
			    PD_VAR_TEXT_SHOWN, text, desc->idle);
	return 0;
}

/* Say that no variable has this name, and which one may have been meant. */
static void pd_vars_unknown(struct pd_vars_reader *r, const char *name, size_t len)
{
	const size_t prefix = strlen(PD_VAR_PREFIX);
	struct pd_text_nearest nearest;
	const char *best;
	size_t best_len;

	pd_text_nearest_begin(&nearest, name + prefix, len - prefix);
	for (unsigned i = 0; i < pd_var_count; i++)
		pd_text_nearest_offer(&nearest, pd_var_descs[i].name + prefix,
				      strlen(pd_var_descs[i].name) - prefix);
	best = pd_text_nearest_end(&nearest, &best_len);
	if (best)
		pd_vars_say(r, PD_LOG_WARN,
			    "there is no variable %.*s: did you mean " PD_VAR_PREFIX "%s?",
			    (int)len, name, best);
	else
		pd_vars_say(r, PD_LOG_WARN, "there is no variable %.*s", (int)len, name);
}

/* Take one "NAME=value". Returns 0 or -ENOMEM. */
static int pd_vars_take_entry(struct pd_vars_reader *r, const char *entry)
{
	const char *eq = strchr(entry, '=');
	size_t len;

	if (!eq || strncmp(entry, PD_VAR_PREFIX, strlen(PD_VAR_PREFIX)))
		return 0;
	len = (size_t)(eq - entry);
	for (unsigned i = 0; i < pd_var_count; i++) {
		const struct pd_var_desc *desc = &pd_var_descs[i];

		if (strlen(desc->name) != len || strncmp(desc->name, entry, len))
			continue;
		/* As getenv: of two entries of one name the first counts. */
		if (r->vars->set_bits[i / 64] >> (i % 64) & 1)
			return 0;
		return pd_var_take(r, desc, eq + 1);
	}
	pd_vars_unknown(r, entry, pd_min(len, (size_t)PD_VAR_TEXT_SHOWN));
	return 0;
}

/* The row of the field at `offset`. */
static unsigned pd_var_row(size_t offset)
{
	unsigned row = 0;

	while (pd_var_descs[row].offset != offset)
		row++;
	return row;
}

bool pd_vars_is_set(const struct pd_vars *vars, const void *field)
{
	unsigned row = pd_var_row((size_t)((const char *)field - (const char *)vars));

	return vars->set_bits[row / 64] >> (row % 64) & 1;
}

/* Change the defaults that PALLADIUM_SPEC names, unless the environment gave the variable itself.
 */
static void pd_vars_apply_spec(struct pd_vars *vars)
{
	const struct pd_var_desc *profiles =
		&pd_var_descs[pd_var_row(offsetof(struct pd_vars, spec))];
	int64_t profile;

	for (size_t i = 0; i < PD_ARRAY_SIZE(pd_var_specs); i++) {
		const struct pd_var_spec *spec = &pd_var_specs[i];
		const struct pd_var_desc *desc = &pd_var_descs[pd_var_row(spec->offset)];

		if (pd_text_word(profiles->words, spec->profile, strlen(spec->profile), &profile) &&
		    profile == vars->spec &&
		    !pd_vars_is_set(vars, (const char *)vars + spec->offset))
			pd_var_set_number(vars, desc, spec->value);
	}
}

void pd_vars_reset(struct pd_vars *vars)
{
	for (unsigned i = 0; i < pd_var_count; i++) {
		const struct pd_var_desc *desc = &pd_var_descs[i];
		bool set = vars->set_bits[i / 64] >> (i % 64) & 1;

		if (desc->type != PD_VAR_TYPE_STR) {
			pd_var_set_number(vars, desc, desc->default_number);
			continue;
		}
		if (set)
			free((char *)*pd_var_string(vars, desc));
		*pd_var_string(vars, desc) = desc->default_text;
	}
	memset(vars->set_bits, 0, sizeof(vars->set_bits));
}

/* Ranges that the table cannot say. */
static void pd_vars_check(struct pd_vars_reader *r)
{
	struct pd_vars *vars = r->vars;
	const struct pd_var_desc *max_ms =
		&pd_var_descs[pd_var_row(offsetof(struct pd_vars, reconnect_max_ms))];

	if (vars->mtu && vars->mtu < PD_CONF_MTU_MIN) {
		pd_vars_say(r, PD_LOG_WARN,
			    "PALLADIUM_MTU=%d is out of range: expected a number from %d to %d "
			    "(octets), or 0, which leaves the MTU at %d; using 0",
			    vars->mtu, PD_CONF_MTU_MIN, PD_CONF_MTU_MAX, PD_CONF_MTU_DEFAULT);
		vars->mtu = 0;
	}
	if (vars->reconnect_max_ms < vars->reconnect_min_ms) {
		int using = pd_max((int)max_ms->default_number, vars->reconnect_min_ms);

		pd_vars_say(r, PD_LOG_WARN,
			    "PALLADIUM_RECONNECT_MAX_MS=%d is out of range: expected a number from "
			    "%d (PALLADIUM_RECONNECT_MIN_MS) to %lld (ms); using %d",
			    vars->reconnect_max_ms, vars->reconnect_min_ms, (long long)max_ms->max,
			    using);
		vars->reconnect_max_ms = using;
	}
}

int pd_vars_parse(struct pd_vars *vars, char *const *env, pd_var_message_fn message, void *ctx)
{
	struct pd_vars_reader r = {.vars = vars, .message = message, .ctx = ctx};
	int ret;

	memset(vars, 0, sizeof(*vars));
	pd_vars_reset(vars);
	for (; env && *env; env++) {
		ret = pd_vars_take_entry(&r, *env);
		if (ret < 0)
			return ret;
	}
	pd_vars_apply_spec(vars);
	pd_vars_check(&r);
	return r.mistakes;
}

/* Write a message to the log. */
static void pd_vars_log_message(void *ctx, enum pd_log_level level, const char *text)
{
	pd_log(level, "config", "%s", text);
}

/* Set the log up as the variables ask; a file that cannot be opened is said where the log was. */
static void pd_vars_apply_log(const struct pd_vars *vars)
{
	/* base/log knows three kinds of prefix, VMA four: its 1 and 2 are our 1. */
	int details = vars->log_details ? (vars->log_details + 1) / 2 : 0, ret;
	struct termios terminal;
	bool colours;

	pd_log_set_level((enum pd_log_level)vars->tracelevel);
	colours = vars->log_colors && !*vars->log_file && !pd_sys_ioctl(2, TCGETS, &terminal);
	pd_log_set_details(details, colours);
	if (!*vars->log_file)
		return;
	ret = pd_log_set_file(vars->log_file);
	if (ret < 0)
		pd_warn("config", "PALLADIUM_LOG_FILE=%s: %s; logging to standard error",
			vars->log_file, pd_quiet_strerror(ret));
}

/* pd_vars_log_settings, once. */
static void pd_vars_log_settings_once(void)
{
	const struct pd_vars *vars = &pd_vars;

	for (unsigned i = 0; i < pd_var_count; i++) {
		const struct pd_var_desc *desc = &pd_var_descs[i];
		char value[300], dflt[300];
		bool same;

		pd_var_format(vars, desc, value, sizeof(value));
		pd_var_format_default(desc, dflt, sizeof(dflt));
		same = !strcmp(value, dflt);
		pd_log(same ? PD_LOG_DETAILS : PD_LOG_INFO, "config", "%-44s %s%s%s%s", desc->name,
		       value, same ? "" : " (default ",
		       same    ? ""
		       : *dflt ? dflt
			       : "empty",
		       same ? "" : ")");
	}
}

void pd_vars_log_settings(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, pd_vars_log_settings_once);
}

/* pd_vars_load, once. */
static void pd_vars_load_once(void)
{
	char *const *env = environ;
	int ret;

	if (getauxval(AT_SECURE)) {
		pd_info("config", "a set-user-id program: PALLADIUM_ variables are not read");
		return;
	}
	/* First without messages: they should go where the variables send them. */
	ret = pd_vars_parse(&pd_vars, env, NULL, NULL);
	if (ret >= 0) {
		pd_vars_apply_log(&pd_vars);
		pd_vars_reset(&pd_vars);
		ret = pd_vars_parse(&pd_vars, env, pd_vars_log_message, NULL);
	}
	if (ret < 0)
		pd_err("config", "reading the environment: %s", pd_strerror(ret));
}

void pd_vars_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, pd_vars_load_once);
}
