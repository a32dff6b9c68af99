/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Network functions: what nf does to packets on their way. One is a row of the table in nf.c and a
 * word of --nf. The nodes of plug-ins become rows when the first of them is asked for.
 */
#ifndef EVAL_NF_H
#define EVAL_NF_H

#include "options.h"
#include "palladium_plugin.h"

/* What a function keeps. */
struct ev_nf_state {
	uint64_t packets, bytes;
};

/*
 * Work on `n` packets, in order: each stands at packets[i] and is lens[i] bytes long; of one in
 * several mergeable buffers the first piece stands there. They may be written to where the row says
 * so.
 */
typedef void ev_nf_fn(struct ev_nf_state *state, uint8_t *const *packets, const uint32_t *lens,
		      unsigned n);

struct ev_nf {
	ev_nf_fn *work;  /* NULL: nothing to do */
	bool touches;    /* the packets themselves */
	bool writes;     /* to them */
	bool swaps_macs; /* so the packets that arrive are others than those that were sent */
	/* Of a plug-in, or NULL: it works before `work` does (nf_plugin.h). */
	const struct palladium_node *node;
};

/* What stands in front of a node's name. */
#define EV_NF_PREFIX "plugin:"
/* Nodes of plug-ins, at most. */
#define EV_NF_NODES_MAX 256

/* The function of a word of --nf, by its index. */
const struct ev_nf *ev_nf_get(uint64_t id);

/* Have a node of a plug-in behind the functions and words there are. False: there is no room. */
bool ev_nf_add(const struct palladium_node *node);

#endif /* EVAL_NF_H */
