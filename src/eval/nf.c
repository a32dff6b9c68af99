/* SPDX-License-Identifier: BSD-2-Clause */
/* The network functions: those that are built in, and behind them the nodes of plug-ins. */
#include "nf.h"

#include <stdio.h>
#include <string.h>

#define MAC_BYTES 6

/* Count packets and bytes. */
static void count(struct ev_nf_state *state, uint8_t *const *packets, const uint32_t *lens,
		  unsigned n)
{
	state->packets += n;
	for (unsigned i = 0; i < n; i++)
		state->bytes += lens[i];
}

/* Exchange destination and source of each packet, as one who answers does. */
static void swap(struct ev_nf_state *state, uint8_t *const *packets, const uint32_t *lens,
		 unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint8_t macs[2 * MAC_BYTES];

		memcpy(macs, packets[i], sizeof(macs));
		memcpy(packets[i], macs + MAC_BYTES, MAC_BYTES);
		memcpy(packets[i] + MAC_BYTES, macs, MAC_BYTES);
	}
	count(state, packets, lens, n);
}

const char *ev_nf_words[EV_NFS + EV_NF_NODES_MAX + 1] = {"forward", "count", "swap",
							 EV_NF_PREFIX "NODE"};

static struct ev_nf functions[EV_NFS + EV_NF_NODES_MAX] = {
	[EV_NF_COUNT] = {.work = count},
	[EV_NF_SWAP] = {.work = swap, .touches = true, .writes = true, .swaps_macs = true},
};

const struct ev_nf *ev_nf_get(uint64_t id)
{
	return &functions[id];
}

bool ev_nf_add(const struct palladium_node *node)
{
	unsigned n = EV_NFS;
	char *word;

	while (ev_nf_words[n])
		n++;
	if (n == EV_NFS + EV_NF_NODES_MAX || asprintf(&word, EV_NF_PREFIX "%s", node->name) < 0)
		return false;
	functions[n] = (struct ev_nf){.work = count, .touches = true, .writes = true, .node = node};
	ev_nf_words[n] = word;
	return true;
}
