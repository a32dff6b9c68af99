/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading capture files of the classic pcap format, for the packet generator.
 *
 * The library links no libpcap (the tools do), so that preloading costs nothing. This reads a file
 * that is in memory: both byte orders, microseconds and nanoseconds, Ethernet. Nothing in it is
 * trusted: every length is checked against what is there.
 *
 * The format: a header of 24 bytes (magic, version, two words nobody uses, the longest capture, the
 * link type), then for each frame 16 bytes (seconds, fraction, bytes captured, bytes on the wire)
 * and what was captured.
 */
#ifndef PD_VLIB_PCAP_H
#define PD_VLIB_PCAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No record is longer, as in libpcap. */
#define PD_PCAP_RECORD_MAX 262144

/* A place in a file; `bytes` is borrowed. */
struct pd_pcap {
	const uint8_t *bytes;
	size_t n, at;
	bool swapped, nanoseconds;
};

struct pd_pcap_frame {
	const uint8_t *bytes;
	uint32_t captured, length; /* bytes that are there; bytes it had on the wire */
	uint64_t time_ns;
};

/*
 * Begin to read `n` bytes. Returns 0, -EINVAL when they are no classic pcap file, or -EOPNOTSUPP
 * when it holds something else than Ethernet frames.
 */
int pd_pcap_open(struct pd_pcap *pcap, const void *bytes, size_t n);

/* The next frame. Returns 1; 0 at the end; -EINVAL when the rest is cut off, or no record. */
int pd_pcap_next(struct pd_pcap *pcap, struct pd_pcap_frame *frame);

#endif /* PD_VLIB_PCAP_H */
