/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reports for programs: one JSON object a line. All values are exact totals; rates stand beside
 * them.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "print.h"

/* A text as JSON; bytes that are no UTF-8 become '?'. */
static json_t *pd_stats_json_text(const char *text)
{
	json_t *value = json_string(text);
	char copy[256];
	size_t i;

	if (value)
		return value;
	for (i = 0; text[i] && i < sizeof(copy) - 1; i++)
		copy[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
	copy[i] = '\0';
	return json_string(copy);
}

/* The counters of one block, as totals or (counters only) as rates. */
static json_t *pd_stats_json_values(const struct pd_stats_file *f, const struct pd_stats_snap *s,
				    const struct pd_stats_block *b, bool rate)
{
	const struct pd_shm_group *g = &f->groups[b->head.group];
	json_t *values = json_object();

	for (unsigned d = 0; d < g->desc_count; d++) {
		const struct pd_shm_desc *desc = &f->descs[g->desc_first + d];

		if (!rate)
			json_object_set_new(values, desc->name,
					    json_integer((json_int_t)pd_stats_total(f, s, b, d)));
		else if (desc->kind == PD_SHM_COUNTER)
			json_object_set_new(values, desc->name,
					    json_real(pd_stats_value(f, s, b, d, true)));
	}
	return values;
}

/* One block. */
static json_t *pd_stats_json_block(const struct pd_stats_file *f, const struct pd_stats_snap *s,
				   const struct pd_stats_block *b, bool rate)
{
	static const char *const roles[] = {"single", "others", "past"};
	json_t *o = json_object();
	uint64_t age;

	json_object_set_new(o, "name", pd_stats_json_text(b->head.name));
	json_object_set_new(o, "role",
			    json_string(b->head.role < 3 ? roles[b->head.role] : "unknown"));
	if (b->head.role == PD_SHM_SINGLE)
		json_object_set_new(o, "id", json_integer(b->head.id));
	if (b->head.parent != PD_SHM_NONE)
		json_object_set_new(o, "port", json_integer(b->head.parent));
	json_object_set_new(o, "state", pd_stats_json_text(b->head.state));
	json_object_set_new(o, "kind", pd_stats_json_text(b->head.kind));
	json_object_set_new(o, "path", pd_stats_json_text(b->head.path));
	json_object_set_new(o, "reason", pd_stats_json_text(b->head.reason));
	json_object_set_new(o, "last_error", pd_stats_json_text(b->head.last_error));
	if (pd_stats_age(f, s, b, "last_error_ns", &age))
		json_object_set_new(o, "last_error_age_s", json_real((double)age / 1e9));
	if (pd_stats_age(f, s, b, "last_change_ns", &age))
		json_object_set_new(o, "state_age_s", json_real((double)age / 1e9));
	json_object_set_new(o, "consistent", json_boolean(!b->torn));
	json_object_set_new(o, "counters", pd_stats_json_values(f, s, b, false));
	if (rate)
		json_object_set_new(o, "rates", pd_stats_json_values(f, s, b, true));
	return o;
}

/* What is known of a process before looking at its blocks. */
static json_t *pd_stats_json_process(const struct pd_stats_found *p)
{
	const struct pd_shm_header *h = &p->file.header;
	json_t *o = json_object();

	json_object_set_new(o, "pid", json_integer(h->pid));
	json_object_set_new(o, "program", pd_stats_json_text(h->program));
	json_object_set_new(o, "user", pd_stats_json_text(pd_stats_user(p->uid)));
	json_object_set_new(o, "library_version", pd_stats_json_text(h->version));
	json_object_set_new(o, "file", pd_stats_json_text(p->path));
	return o;
}

/* Print `o` on a line of its own and release it. */
static void pd_stats_json_line(json_t *o)
{
	json_dumpf(o, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(o);
}

void pd_stats_print_json(const struct pd_stats_found *p, const struct pd_stats_snap *s,
			 const struct pd_stats_style *style, unsigned long cycle, bool ended)
{
	const struct pd_stats_file *f = &p->file;
	json_t *o = pd_stats_json_process(p), *array;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	json_object_set_new(o, "time_s", json_real((double)now.tv_sec + (double)now.tv_nsec / 1e9));
	json_object_set_new(o, "age_s",
			    json_real((double)(int64_t)(s->now_ns - f->header.created_ns) / 1e9));
	json_object_set_new(o, "cycle", json_integer((json_int_t)cycle));
	json_object_set_new(o, "elapsed_s", json_real(s->elapsed_s));
	json_object_set_new(o, "ended", json_boolean(ended));
	for (unsigned g = 0; g < f->header.group_count; g++) {
		array = json_array();
		for (size_t i = 0; i < s->count; i++)
			if (s->blocks[i].head.group == g)
				json_array_append_new(
					array,
					pd_stats_json_block(f, s, &s->blocks[i], style->rate));
		json_object_set_new(o, f->groups[g].name, array);
	}
	pd_stats_json_line(o);
}

/* The list as text, and as JSON. */
void pd_stats_print_list(const struct pd_stats_list *list, bool json)
{
	json_t *o, *array;

	if (!json) {
		printf("%10s  %-12s  %s\n", "PID", "USER", "PROGRAM");
		for (size_t i = 0; i < list->count; i++)
			printf("%10u  %-12s  %s%s\n", list->items[i]->file.header.pid,
			       pd_stats_user(list->items[i]->uid),
			       list->items[i]->file.header.program,
			       list->items[i]->life == PD_STATS_FOREIGN
				       ? " (in another PID namespace)"
				       : "");
		return;
	}
	o = json_object();
	array = json_array();
	for (size_t i = 0; i < list->count; i++)
		json_array_append_new(array, pd_stats_json_process(list->items[i]));
	json_object_set_new(o, "processes", array);
	pd_stats_json_line(o);
}
