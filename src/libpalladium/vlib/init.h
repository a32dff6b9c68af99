/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Init functions: what runs once before the engine does, in an order that each states for itself.
 *
 *   static int my_init(void) { ... return 0; }
 *   PD_INIT_FUNCTION(my_init) = {
 *           .runs_before = PD_INITS("start_polling"),
 *           .runs_after = PD_INITS("make_pools", "read_tables"),
 *   };
 *
 * A constructor enters each into a list when its object is loaded; pd_init_run sorts the list and
 * calls every function once. `.init_order = PD_INITS("a", "b", "c")` asks for a before b before c,
 * whoever states it. Functions without an order among them run in the order of registration.
 */
#ifndef PD_VLIB_INIT_H
#define PD_VLIB_INIT_H

#include <stddef.h>

#include "base/compiler.h"

struct pd_init {
	const char *name; /* of the function; constraints name it by this */
	int (*fn)(void);  /* 0 or -errno */
	/* Each NULL, or NULL-terminated. */
	const char *const *runs_before;
	const char *const *runs_after;
	const char *const *init_order;
	struct pd_init *next; /* private */
	int done;             /* private */
};

/* A list of init functions; the library's own is pd_inits. */
struct pd_init_list {
	struct pd_init *first, **last;
	const struct pd_init *failed; /* the one that pd_init_run stopped at; NULL: none */
};

extern struct pd_init_list pd_inits;

#define PD_INITS(...)             \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}

/*
 * Declare function `f` an init function; an initialiser follows (`= {}` when there is nothing to
 * say).
 */
#define PD_INIT_FUNCTION(f)                                         \
	static struct pd_init pd_init_of_##f;                       \
	static PD_CONSTRUCTOR_EARLY void pd_init_register_##f(void) \
	{                                                           \
		pd_init_of_##f.name = #f;                           \
		pd_init_of_##f.fn = f;                              \
		pd_init_register(&pd_inits, &pd_init_of_##f);       \
	}                                                           \
	static struct pd_init pd_init_of_##f

/* Append `init` to `list`; it is borrowed for good. */
void pd_init_register(struct pd_init_list *list, struct pd_init *init);

/*
 * Sort `list` and call each function that has not run yet. Control path, one thread. Stops at the
 * first failure and names it in the log. Returns 0, what the function returned, -ELOOP when the
 * constraints contradict each other (the circle is logged by name, and nothing runs), or -ENOMEM.
 * A constraint that names a function that is not there is ignored, with a line at debug level.
 */
int pd_init_run(struct pd_init_list *list);

#endif /* PD_VLIB_INIT_H */
