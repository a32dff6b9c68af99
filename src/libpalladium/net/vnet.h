/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames that are not finished: what a struct virtio_net_hdr in front of one asks for (virtio 1.2,
 * 5.1.6.2), and doing it.
 *
 *   NEEDS_CSUM       the field at csum_start + csum_offset holds the sum of a pseudo header; the
 *                    checksum over all bytes from csum_start on takes its place
 *   gso_type         a TCP segment larger than the network takes: to be sent as segments of
 *                    gso_size octets; or UDP that is to be sent as datagrams of so many
 *                    (GSO_UDP_L4)
 *
 * The functions work on bytes in private memory, in one piece, and on a header that was copied from
 * wherever it came; both may say anything. Nothing outside the frame is read or written. What
 * cannot be done as it stands (a header that points past the frame, a fragment, another protocol
 * than gso_type says) is -EINVAL, never a guess.
 *
 * Not known here: fragmentation of UDP (VIRTIO_NET_HDR_GSO_UDP; deprecated, and removed from most
 * drivers).
 */
#ifndef PD_NET_VNET_H
#define PD_NET_VNET_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the header's fields are read in place");

/* The header as rings and PACKET_VNET_HDR have it. */
#define PD_VNET_BYTES 10
_Static_assert(sizeof(struct virtio_net_hdr) == PD_VNET_BYTES, "the legacy header");

/* In the kernel's headers since 6.2. */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#	define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

/*
 * Ethernet, IP and TCP headers of a large frame stand within its first bytes: so many at the most.
 */
#define PD_VNET_FRONT 256

/* What is to be done with a frame. */
enum pd_vnet_task { PD_VNET_NOTHING, PD_VNET_CSUM, PD_VNET_CUT };

/* A large frame, and how it is cut. */
struct pd_vnet_cut {
	uint32_t ip;      /* where the IP header starts */
	uint32_t l4;      /* and the TCP or UDP header */
	uint32_t headers; /* bytes before the payload, at most PD_VNET_FRONT */
	uint32_t payload;
	uint32_t mss;      /* payload of each segment but the last */
	uint32_t segments; /* at least 1 */
	bool ipv6, udp;
};

/*
 * What the header `h` asks for a frame of `total` bytes, whose first min(total, PD_VNET_FRONT)
 * stand at `front`. Returns an enum pd_vnet_task, with *cut filled for PD_VNET_CUT, or -EINVAL.
 * Afterwards `h` says no more than that: unknown flags are gone, fields that mean nothing are 0,
 * hdr_len is right; a segment that fits gso_size is no large one.
 */
int pd_vnet_read(struct virtio_net_hdr *h, const uint8_t *front, uint32_t total,
		 struct pd_vnet_cut *cut);

/*
 * Let no segment have more than `octets` of IP header and what follows. Returns 0, or -EINVAL when
 * that leaves no room for payload, or less than the datagrams of UDP are to have.
 */
int pd_vnet_cut_limit(struct pd_vnet_cut *cut, uint32_t octets);

/* Complete the checksum of `frame`, `len` bytes, as `h` asks, which pd_vnet_read has seen. */
void pd_vnet_complete(uint8_t *frame, uint32_t len, const struct virtio_net_hdr *h);

/*
 * Segment `i` of a large frame: its headers go to `out` (cut->headers bytes), complete; where its
 * payload stands in `frame`, to *at and *len.
 */
void pd_vnet_segment(const struct pd_vnet_cut *cut, const uint8_t *frame, uint32_t i, uint8_t *out,
		     uint32_t *at, uint32_t *len);

#endif /* PD_NET_VNET_H */
