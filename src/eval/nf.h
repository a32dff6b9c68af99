/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Network functions: what nf does to packets on their way. One is a row of the table in nf.c and a
 * word of --nf.
 */
#ifndef EVAL_NF_H
#define EVAL_NF_H

#include "options.h"

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
	bool swaps_macs; /* so the packets that arrive are others than those that were sent */
};

/* The function of a word of --nf. */
const struct ev_nf *ev_nf_get(enum ev_nf_id id);

#endif /* EVAL_NF_H */
