/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading capture files (contract in pcap.h). */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "vlib/pcap.h"

#define PD_PCAP_MAGIC_US 0xa1b2c3d4u
#define PD_PCAP_MAGIC_NS 0xa1b23c4du
#define PD_PCAP_HEADER_BYTES 24
#define PD_PCAP_RECORD_BYTES 16
/* The link type shares its word with the length of the FCS. */
#define PD_PCAP_LINK_MASK 0x0fffffffu
#define PD_PCAP_LINK_ETHERNET 1

/* The word at byte `at`, which is there, in the file's order. */
static uint32_t pd_pcap_word(const struct pd_pcap *pcap, size_t at)
{
	uint32_t word;

	memcpy(&word, pcap->bytes + at, sizeof(word));
	return pcap->swapped ? __builtin_bswap32(word) : word;
}

int pd_pcap_open(struct pd_pcap *pcap, const void *bytes, size_t n)
{
	uint32_t magic;

	*pcap = (struct pd_pcap){.bytes = bytes, .n = n, .at = PD_PCAP_HEADER_BYTES};
	if (n < PD_PCAP_HEADER_BYTES)
		return -EINVAL;
	magic = pd_pcap_word(pcap, 0);
	pcap->swapped = magic == __builtin_bswap32(PD_PCAP_MAGIC_US) ||
			magic == __builtin_bswap32(PD_PCAP_MAGIC_NS);
	magic = pd_pcap_word(pcap, 0);
	if (magic != PD_PCAP_MAGIC_US && magic != PD_PCAP_MAGIC_NS)
		return -EINVAL;
	pcap->nanoseconds = magic == PD_PCAP_MAGIC_NS;
	if ((pd_pcap_word(pcap, 20) & PD_PCAP_LINK_MASK) != PD_PCAP_LINK_ETHERNET)
		return -EOPNOTSUPP;
	return 0;
}

int pd_pcap_next(struct pd_pcap *pcap, struct pd_pcap_frame *frame)
{
	size_t left = pcap->n - pcap->at;
	uint32_t captured;

	if (!left)
		return 0;
	if (left < PD_PCAP_RECORD_BYTES)
		return -EINVAL;
	captured = pd_pcap_word(pcap, pcap->at + 8);
	if (captured > PD_PCAP_RECORD_MAX || captured > left - PD_PCAP_RECORD_BYTES)
		return -EINVAL;
	*frame = (struct pd_pcap_frame){
		.bytes = pcap->bytes + pcap->at + PD_PCAP_RECORD_BYTES,
		.captured = captured,
		.length = pd_pcap_word(pcap, pcap->at + 12),
		.time_ns =
			pd_pcap_word(pcap, pcap->at) * PD_NS_PER_SEC +
			pd_pcap_word(pcap, pcap->at + 4) * (pcap->nanoseconds ? 1 : PD_NS_PER_US),
	};
	pcap->at += PD_PCAP_RECORD_BYTES + captured;
	return 1;
}
