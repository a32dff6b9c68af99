/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Init functions: the list and its order.
 *
 * The constraints become a matrix, before[i][j]: i runs before j. A depth-first walk along it gives
 * the reverse of the order and meets every circle on its own path, so that it can be named. There
 * are some dozens of functions at most; the matrix is freed before anything runs.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vlib/init.h"

struct pd_init_list pd_inits;

enum pd_init_colour { PD_INIT_NEW, PD_INIT_OPEN, PD_INIT_CLOSED };

/* The state of one sorting. */
struct pd_init_sort {
	size_t n;
	struct pd_init **all;   /* in the order of registration */
	struct pd_init **order; /* filled from the end */
	size_t left;            /* places of `order` that are still free */
	uint8_t *before;        /* n x n */
	uint8_t *colour;        /* enum pd_init_colour */
	size_t *path;           /* the functions that are open, outermost first */
	size_t depth;
};

void pd_init_register(struct pd_init_list *list, struct pd_init *init)
{
	if (!list->last)
		list->last = &list->first;
	init->next = NULL;
	*list->last = init;
	list->last = &init->next;
}

/* The number of the function `name`, or n when there is none. */
static size_t pd_init_find(const struct pd_init_sort *s, const char *name)
{
	size_t i;

	for (i = 0; i < s->n && strcmp(s->all[i]->name, name); i++)
		;
	return i;
}

/* Note that `first` runs before `second`; `who` states it. */
static void pd_init_constrain(struct pd_init_sort *s, const char *who, const char *first,
			      const char *second)
{
	size_t i = pd_init_find(s, first), j = pd_init_find(s, second);

	if (i == s->n || j == s->n)
		pd_debug("init", "%s asks for %s before %s, and %s is not there", who, first,
			 second, i == s->n ? first : second);
	else
		s->before[i * s->n + j] = 1;
}

/* Enter what one function asks for. */
static void pd_init_constraints(struct pd_init_sort *s, const struct pd_init *init)
{
	for (const char *const *p = init->runs_before; p && *p; p++)
		pd_init_constrain(s, init->name, init->name, *p);
	for (const char *const *p = init->runs_after; p && *p; p++)
		pd_init_constrain(s, init->name, *p, init->name);
	for (const char *const *p = init->init_order; p && p[0] && p[1]; p++)
		pd_init_constrain(s, init->name, p[0], p[1]);
}

/* Log the circle that closes at `at`, which stands on the path. */
static void pd_init_log_circle(const struct pd_init_sort *s, size_t at)
{
	char text[512];
	size_t from = s->depth, used = 0;

	while (from > 0 && s->path[from - 1] != at)
		from--;
	for (size_t i = from - 1; i < s->depth && used < sizeof(text); i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s, then ",
					 s->all[s->path[i]]->name);
	pd_err("init", "these cannot be put in order: %s%s again", text, s->all[at]->name);
}

/* Place `at` in front of all that must run after it. Returns 0 or -ELOOP. */
static int pd_init_visit(struct pd_init_sort *s, size_t at)
{
	int ret;

	if (s->colour[at] == PD_INIT_CLOSED)
		return 0;
	if (s->colour[at] == PD_INIT_OPEN) {
		pd_init_log_circle(s, at);
		return -ELOOP;
	}
	s->colour[at] = PD_INIT_OPEN;
	s->path[s->depth++] = at;
	/* From the last, so that what is not ordered keeps the order of registration. */
	for (size_t j = s->n; j-- > 0;) {
		if (!s->before[at * s->n + j])
			continue;
		ret = pd_init_visit(s, j);
		if (ret)
			return ret;
	}
	s->depth--;
	s->colour[at] = PD_INIT_CLOSED;
	s->order[--s->left] = s->all[at];
	return 0;
}

/* Sort what is in `s->all` into `s->order`. Returns 0 or -ELOOP. */
static int pd_init_sort(struct pd_init_sort *s)
{
	int ret = 0;

	for (size_t i = 0; i < s->n; i++)
		pd_init_constraints(s, s->all[i]);
	s->left = s->n;
	for (size_t i = s->n; i-- > 0 && !ret;)
		ret = pd_init_visit(s, i);
	return ret;
}

int pd_init_run(struct pd_init_list *list)
{
	struct pd_init_sort s = {0};
	int ret = 0;

	list->failed = NULL;
	for (struct pd_init *init = list->first; init; init = init->next)
		s.n++;
	if (!s.n)
		return 0;
	s.all = calloc(s.n, sizeof(*s.all));
	s.order = calloc(s.n, sizeof(*s.order));
	s.before = calloc(s.n, s.n);
	s.colour = calloc(s.n, 1);
	s.path = calloc(s.n, sizeof(*s.path));
	if (s.all && s.order && s.before && s.colour && s.path) {
		size_t i = 0;

		for (struct pd_init *init = list->first; init; init = init->next)
			s.all[i++] = init;
		ret = pd_init_sort(&s);
	} else {
		ret = -ENOMEM;
	}
	for (size_t i = 0; i < s.n && !ret; i++) {
		if (s.order[i]->done)
			continue;
		ret = s.order[i]->fn();
		if (ret) {
			list->failed = s.order[i];
			pd_err("init", "%s failed: %s", s.order[i]->name, pd_strerror(ret));
		} else {
			s.order[i]->done = 1;
		}
	}
	free(s.path);
	free(s.colour);
	free(s.before);
	free(s.order);
	free(s.all);
	return ret;
}
