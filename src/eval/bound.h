/* SPDX-License-Identifier: BSD-2-Clause */
/* What the machine can do, for figures of the same run to be held against. */
#ifndef EVAL_BOUND_H
#define EVAL_BOUND_H

#include "options.h"

/*
 * Millions of packets a second from one core to another, a single producer and a single consumer,
 * each packet copied into one of a few buffers and out of it, in batches: of the size and batch of
 * the options, on the first two different cores of them. Takes a third of a second. 0 when it
 * cannot be measured.
 */
double ev_bound(const struct ev_options *o);

#endif /* EVAL_BOUND_H */
