/* SPDX-License-Identifier: BSD-2-Clause */
/* Nodes of plug-ins as network functions (theory and contracts in nf_plugin.h). */
#include "nf_plugin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vlib/lane_plugins.h"
#include "vlib/plugin.h"

#define STATIONS_MAX 16
#define PART 32   /* packets that a node gets at a time, as in the library */
#define ROUNDS 16 /* of a packet that is sent to and fro; it counts as dropped then */

/* Where a packet goes that a node has worked on; else the number of a station. */
enum { TO_TX = -1, TO_NOWHERE = -2 };

/* A node that packets may come to. */
struct station {
	const struct palladium_node *node;
	struct palladium_node_state state;
	int to[PALLADIUM_NODE_OWN_MAX]; /* where its own nexts lead */
	uint8_t data[PALLADIUM_NODE_DATA_BYTES] PD_CACHE_ALIGNED;
};

struct ev_nf_place {
	struct station stations[STATIONS_MAX];
	unsigned n;
	struct pd_buffer standing[PART]; /* for packets that are bytes and nothing else */
	uint8_t *expected;
};

/* Packets on their way through a place. */
struct walk {
	struct palladium_frame frames[PART];
	int at[PART];
	unsigned n;
};

/* --- places ---------------------------------------------------------------------------------- */

/* The node of that name of a plug-in in use, or NULL. */
static const struct palladium_node *node_of(const char *name)
{
	for (const struct pd_plugin *p = pd_plugins; p; p = p->next)
		for (uint32_t i = 0; !p->refused && i < p->table->node_count; i++)
			if (!strcmp(p->table->nodes[i].name, name))
				return &p->table->nodes[i];
	return NULL;
}

/* The station of a node, which is added if need be; or -ENOSPC. */
static int station_of(struct ev_nf_place *place, const struct palladium_node *node)
{
	for (unsigned i = 0; i < place->n; i++)
		if (place->stations[i].node == node)
			return (int)i;
	if (place->n == STATIONS_MAX)
		return -ENOSPC;
	place->stations[place->n].node = node;
	return (int)place->n++;
}

/* Where the next called `name` leads into *to. Returns 0, -ENOENT or -ENOSPC. */
static int lead(struct ev_nf_place *place, const char *name, int *to)
{
	const struct palladium_node *node = node_of(name);

	*to = TO_TX;
	if (node)
		*to = station_of(place, node);
	else if (!strcmp(name, "drop") || !strcmp(name, "error-drop"))
		*to = TO_NOWHERE;
	else if (strcmp(name, "punt") && strcmp(name, "plugin-output"))
		return -ENOENT;
	return node && *to < 0 ? *to : 0;
}

/* Fill in the stations from `node` on. Returns 0 or -EINVAL with the reason in `why`. */
static int lay_out(struct ev_nf_place *place, const struct palladium_node *node, char *why)
{
	int err;

	station_of(place, node);
	for (unsigned i = 0; i < place->n; i++) {
		struct station *s = &place->stations[i];

		for (uint32_t k = 0; k < s->node->next_count; k++) {
			err = lead(place, s->node->nexts[k], &s->to[k]);
			if (err == -ENOENT)
				return ev_no(why, "%s sends packets to %s, which no plug-in has",
					     s->node->name, s->node->nexts[k]);
			if (err)
				return ev_no(why, "from %s packets come to more than %d nodes",
					     node->name, STATIONS_MAX);
		}
	}
	return 0;
}

struct ev_nf_place *ev_nf_place_new(const struct palladium_node *node, uint32_t bytes)
{
	struct ev_nf_place *place = aligned_alloc(PD_CACHE_LINE, sizeof(*place));
	char why[EV_WHY_MAX];

	if (!place)
		return NULL;
	memset(place, 0, sizeof(*place));
	if (lay_out(place, node, why))
		goto err_place;
	place->expected = malloc(bytes);
	if (!place->expected)
		goto err_place;
	for (unsigned i = 0; i < place->n; i++) {
		struct station *s = &place->stations[i];

		s->state = (struct palladium_node_state){.counter_count = s->node->text_count,
							 .data = s->data};
		s->state.counters = calloc(s->node->text_count + 1, sizeof(uint64_t));
		if (!s->state.counters)
			goto err_place;
	}
	return place;

err_place:
	ev_nf_place_free(place);
	return NULL;
}

void ev_nf_place_free(struct ev_nf_place *place)
{
	if (!place)
		return;
	for (unsigned i = 0; i < place->n; i++)
		free(place->stations[i].state.counters);
	free(place->expected);
	free(place);
}

/* --- finding --------------------------------------------------------------------------------- */

/* Load the plug-ins, once, and have their nodes as functions. */
static void load(void)
{
	static bool loaded;

	if (loaded)
		return;
	loaded = true;
	pd_plugins_load(getenv("PALLADIUM_PLUGIN_PATH"));
	pd_lane_plugins_wanted = false; /* nodes run at nf, and not where a port receives */
	for (const struct pd_plugin *p = pd_plugins; p; p = p->next)
		for (uint32_t i = 0; !p->refused && i < p->table->node_count; i++)
			if (!ev_nf_add(&p->table->nodes[i]))
				return;
}

/* Say that a node is not there, and which are. Returns -EINVAL. */
static int unknown(const char *name, char *why)
{
	char list[EV_WHY_MAX] = "";

	for (unsigned i = EV_NFS; ev_nf_words[i]; i++)
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s",
			 *list ? ", " : "", ev_nf_words[i] + strlen(EV_NF_PREFIX));
	if (!*list)
		return ev_no(why, "nf: there is no node %s: PALLADIUM_PLUGIN_PATH has no plug-in",
			     name);
	return ev_no(why, "nf: there is no node %s; the plug-ins have %s", name, list);
}

int ev_nf_find(const char *text, uint64_t *value, char *why)
{
	struct ev_nf_place trial = {0};
	unsigned i = EV_NFS;
	int err;

	load();
	while (ev_nf_words[i] && strcmp(ev_nf_words[i], text))
		i++;
	if (!ev_nf_words[i])
		return unknown(text + strlen(EV_NF_PREFIX), why);
	err = lay_out(&trial, ev_nf_get(i)->node, why);
	if (!err)
		*value = i;
	return err;
}

/* --- work ------------------------------------------------------------------------------------ */

/* Where a packet goes that the node of station `s` sends to `next`. */
static int leads(const struct station *s, uint16_t next)
{
	if (next == PALLADIUM_NEXT_ON || next == PALLADIUM_NEXT_PUNT)
		return TO_TX;
	if (next < PALLADIUM_NEXT_OWN || next - PALLADIUM_NEXT_OWN >= (int)s->node->next_count)
		return TO_NOWHERE;
	return s->to[next - PALLADIUM_NEXT_OWN];
}

/* Have the node of station `s` work on the packets that are there. Returns how many. */
static unsigned work_at(struct ev_nf_place *place, unsigned s, struct walk *w)
{
	struct station *station = &place->stations[s];
	struct palladium_frame *frames[PART];
	uint16_t next[PART];
	unsigned who[PART], n = 0;

	for (unsigned i = 0; i < w->n; i++) {
		if (w->at[i] != (int)s)
			continue;
		who[n] = i;
		next[n] = PALLADIUM_NEXT_ON;
		frames[n++] = &w->frames[i];
	}
	if (n)
		pd_plugin_work(station->node, &station->state, frames, next, n);
	for (unsigned i = 0; i < n; i++)
		w->at[who[i]] = leads(station, next[i]);
	return n;
}

/* Put up to PART packets through the place. */
static void walk(struct ev_nf_place *place, struct walk *w, struct pd_buffer *const *bufs,
		 unsigned n)
{
	unsigned worked = n;

	w->n = n;
	for (unsigned i = 0; i < n; i++) {
		pd_plugin_show(&w->frames[i], bufs[i]);
		w->at[i] = 0;
	}
	for (unsigned round = 0; worked && round < ROUNDS; round++) {
		worked = 0;
		for (unsigned s = 0; s < place->n; s++)
			worked += work_at(place, s, w);
	}
}

void ev_nf_place_work(struct ev_nf_place *place, struct ev_tally *t, uint64_t first,
		      struct pd_buffer *const *bufs, unsigned n)
{
	struct walk w;

	for (unsigned at = 0; at < n; at += w.n) {
		walk(place, &w, bufs + at, pd_min(n - at, (unsigned)PART));
		for (unsigned i = 0; i < w.n; i++)
			if (pd_unlikely(w.at[i] != TO_TX))
				ev_tally_add(t, &t->dropped, first + at + i);
	}
}

/* A buffer around the bytes of a packet. */
static struct pd_buffer around(uint8_t *packet, uint32_t len)
{
	return (struct pd_buffer){.data = packet,
				  .len = len,
				  .total_len = len,
				  .next = PD_BUFFER_NONE,
				  .flags = PD_BUFFER_EXTERNAL};
}

void ev_nf_place_work_bytes(struct ev_nf_place *place, struct ev_tally *t, uint64_t first,
			    uint8_t *const *packets, const uint32_t *lens, unsigned n)
{
	struct pd_buffer *bufs[PART];

	for (unsigned at = 0; at < n; at += PART) {
		unsigned part = pd_min(n - at, (unsigned)PART);

		for (unsigned i = 0; i < part; i++) {
			place->standing[i] = around(packets[at + i], lens[at + i]);
			bufs[i] = &place->standing[i];
		}
		ev_nf_place_work(place, t, first + at, bufs, part);
	}
}

/* --- checking -------------------------------------------------------------------------------- */

void ev_nf_place_check(struct ev_nf_place *place, const struct ev_patterns *p, struct ev_tally *t,
		       uint64_t n, const uint8_t *packet, uint32_t len, const uint8_t *sidecar)
{
	struct pd_buffer *b = &place->standing[0];
	struct walk w;

	memcpy(place->expected, p->bytes + (n % EV_PATTERNS) * p->stride, p->size);
	memcpy(place->expected + EV_NUMBER_AT, &n, sizeof(n));
	*b = around(place->expected, p->size);
	if (sidecar) {
		b->flags |= PD_BUFFER_SIDECAR;
		memcpy(b->sidecar + EV_SIDECAR_NUMBER_AT, &n, sizeof(n));
	}
	walk(place, &w, &b, 1);
	if (len != p->size)
		ev_tally_add(t, &t->length, n);
	else if (memcmp(packet, place->expected, len))
		ev_tally_add(t, &t->contents, n);
	if (sidecar &&
	    memcmp(sidecar + EV_SIDECAR_NUMBER_AT, b->sidecar + EV_SIDECAR_NUMBER_AT, sizeof(n)))
		ev_tally_add(t, &t->metadata, n);
}
