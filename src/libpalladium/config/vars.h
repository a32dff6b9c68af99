/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The PALLADIUM_ variables, as fields: made from defs/vars.def.
 *
 * The environment is read once, by pd_vars_load, on the control path before any port is used; from
 * then on pd_vars does not change, so the data path reads it without a lock. Before that it holds
 * the defaults.
 */
#ifndef PD_CONFIG_VARS_H
#define PD_CONFIG_VARS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/mem.h" /* enum pd_mem_type */

#ifndef PD_SYSCONFDIR
#	define PD_SYSCONFDIR "/etc"
#endif

/* Values of enum variables that code asks for by name; a test holds vars.def to them. */
enum { PD_METADATA_CMSG, PD_METADATA_INLINE };
enum { PD_SEND_WHEN_DOWN_ERROR, PD_SEND_WHEN_DOWN_WAIT };
enum { PD_BACKPRESSURE_DROP, PD_BACKPRESSURE_PORT };
enum { PD_BATCHING_NONE, PD_BATCHING_RECLAIM, PD_BATCHING_KEEP };
enum {
	PD_EXCEPTION_EXIT = -2,
	PD_EXCEPTION_QUIET,
	PD_EXCEPTION_LEAVE,
	PD_EXCEPTION_LEAVE_LOUDLY,
	PD_EXCEPTION_LOUD,
	PD_EXCEPTION_ABORT
};
enum { PD_POLL_ADAPTIVE = -2, PD_POLL_FOREVER = -1 };

/* Strings are never NULL and live as long as the process. */
struct pd_vars {
#define PD_VAR_INT(NAME, field, dflt, min, max, unit, words, acts, vma, help) int field;
#define PD_VAR_SIZE(NAME, field, dflt, min, max, unit, acts, vma, help) uint64_t field;
#define PD_VAR_BOOL(NAME, field, dflt, acts, vma, help) bool field;
#define PD_VAR_ENUM(NAME, field, dflt, words, acts, vma, help) int field;
#define PD_VAR_STR(NAME, field, dflt, bytes, acts, vma, help) const char *field;
#include "defs/vars.def"
	uint64_t set_bits[4]; /* by row: the environment gave it */
};

extern struct pd_vars pd_vars;

enum pd_var_type {
	PD_VAR_TYPE_INT,
	PD_VAR_TYPE_SIZE,
	PD_VAR_TYPE_BOOL,
	PD_VAR_TYPE_ENUM,
	PD_VAR_TYPE_STR,
};

/* A row of vars.def. */
struct pd_var_desc {
	const char *name; /* "PALLADIUM_RX_POLL" */
	enum pd_var_type type;
	uint32_t offset;                  /* of the field in struct pd_vars */
	int64_t default_number, min, max; /* of a string: max is its largest size, NUL included */
	const char *default_text;
	const char *unit, *words;
	const char *idle; /* why it does nothing, or NULL when it acts */
	const char *vma;  /* "VMA_RX_POLL" or "" */
	const char *help;
};

extern const struct pd_var_desc pd_var_descs[];
extern const unsigned pd_var_count;

/* Told about each thing worth a log line. `text` is the caller's. */
typedef void (*pd_var_message_fn)(void *ctx, enum pd_log_level level, const char *text);

/*
 * Read the environment into pd_vars, set the log up as it asks, and log what is wrong with it.
 * Control path, once per process; later calls do nothing. In a set-user-id program the environment
 * is not trusted and not read.
 */
void pd_vars_load(void);

/*
 * Log the settings: those that differ from their default at info, the rest at details. For the
 * first use of a port, so that the many programs that use none say nothing. Control path, once per
 * process; later calls do nothing.
 */
void pd_vars_log_settings(void);

/*
 * The step of pd_vars_load that reads: fills *vars from the NULL-terminated `env` ("NAME=value").
 * Values that are kept are copied. `message` may be NULL. Returns how many mistakes were found, or
 * -ENOMEM.
 */
int pd_vars_parse(struct pd_vars *vars, char *const *env, pd_var_message_fn message, void *ctx);

/* Give the strings of *vars back and set every field to its default. */
void pd_vars_reset(struct pd_vars *vars);

/* True when the environment (not a profile, not the default) gave the variable that stands at
 * `field`. */
bool pd_vars_is_set(const struct pd_vars *vars, const void *field);

/* The value of a variable as text, words where it has some; returns `out`. */
const char *pd_var_format(const struct pd_vars *vars, const struct pd_var_desc *desc, char *out,
			  size_t size);

/* Its default, likewise. */
const char *pd_var_format_default(const struct pd_var_desc *desc, char *out, size_t size);

#endif /* PD_CONFIG_VARS_H */
