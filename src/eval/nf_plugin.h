/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The node of a plug-in as the network function.
 *
 * The node runs as in the library (palladium_plugin.h), in a place of its own, but nothing else of
 * the graph does: what it sends on, or to the program, goes to tx; what it sends to another node of
 * a plug-in, that one works on next. What it drops goes to tx too, and counts as wrong: a run is
 * over when every packet has come.
 *
 * What a node makes of packets is for nobody to know but the node. So that every packet can be
 * checked nevertheless, tx has a place of the node too: there it works on what was sent, and what
 * came has to be the same.
 */
#ifndef EVAL_NF_PLUGIN_H
#define EVAL_NF_PLUGIN_H

#include "check.h"
#include "vlib/buffer.h"

struct ev_nf_place;

/*
 * The index of the word `text`, EV_NF_PREFIX and the name of a node, into *value. The first call
 * loads the plug-ins. Returns 0, or -EINVAL with the reason in `why` (EV_WHY_MAX), which names the
 * nodes there are.
 */
int ev_nf_find(const char *text, uint64_t *value, char *why);

/*
 * A place where `node` runs, of which ev_nf_find knows, for packets of up to `bytes`. NULL without
 * memory.
 */
struct ev_nf_place *ev_nf_place_new(const struct palladium_node *node, uint32_t bytes);

/* Free it. NULL is allowed. */
void ev_nf_place_free(struct ev_nf_place *place);

/* Have the node work on `n` packets from number `first` on; count in `t` what it drops. */
void ev_nf_place_work(struct ev_nf_place *place, struct ev_tally *t, uint64_t first,
		      struct pd_buffer *const *bufs, unsigned n);

/* The same where packets are bytes and nothing else. */
void ev_nf_place_work_bytes(struct ev_nf_place *place, struct ev_tally *t, uint64_t first,
			    uint8_t *const *packets, const uint32_t *lens, unsigned n);

/*
 * Compare a packet of `len` bytes, and its sidecar unless it is NULL, with what the node makes of
 * packet `n`, the next that should come.
 */
void ev_nf_place_check(struct ev_nf_place *place, const struct ev_patterns *p, struct ev_tally *t,
		       uint64_t n, const uint8_t *packet, uint32_t len, const uint8_t *sidecar);

#endif /* EVAL_NF_PLUGIN_H */
