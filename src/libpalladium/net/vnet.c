/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading the header of an unfinished frame, completing checksums, cutting TCP segments and UDP
 * datagrams.
 *
 * Of a segment's headers the IP lengths, IPv4's identification (one more each) and header checksum,
 * TCP's sequence number and checksum are its own; FIN and PSH stand in the last one only, CWR in
 * the first (RFC 3168, section 6.1.2); everything else is copied. The checksum is computed from the
 * addresses: senders do not agree on whether the sum of the pseudo header in a large frame counts
 * its length. UDP's own are its length and checksum.
 */
#include "net/vnet.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <string.h>

#include "base/assert.h"
#include "base/compiler.h"
#include "net/csum.h"

#define IPV4_BYTES 20
#define IPV6_BYTES 40
#define TCP_BYTES 20
#define TCP_CSUM_AT 16
#define UDP_BYTES 8
#define UDP_LENGTH_AT 4
#define UDP_CSUM_AT 6
/* The most datagrams that the kernel makes of one. */
#define UDP_SEGMENTS_MAX 128
#define TCP_FLAGS_AT 13
#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_CWR 0x80
/* VLAN tags in front of an IP header. */
#define TAGS_MAX 2
/* The kernel's mark for something else; no size. */
#define GSO_BY_FRAGS 0xffff

static uint16_t load16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t load32(const uint8_t *p)
{
	return (uint32_t)load16(p) << 16 | load16(p + 2);
}

static void store16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void store32(uint8_t *p, uint32_t v)
{
	store16(p, v >> 16);
	store16(p + 2, v);
}

/* Store a checksum: its bytes are in the right order already. */
static void store_sum(uint8_t *p, uint16_t sum)
{
	memcpy(p, &sum, sizeof(sum));
}

/* Find the IP header, in cut->ip. Returns its EtherType, or 0 when there is none in `n` bytes. */
static uint16_t find_ip(const uint8_t *front, uint32_t n, struct pd_vnet_cut *cut)
{
	uint32_t at = ETH_HLEN;

	for (unsigned tags = 0; at <= n; tags++, at += 4) {
		uint16_t type = load16(front + at - 2);

		cut->ip = at;
		if (type != ETH_P_8021Q && type != ETH_P_8021AD)
			return type;
		if (tags == TAGS_MAX)
			break;
	}
	return 0;
}

/* The header of `proto` behind an IPv4 header, in cut->l4. Returns 0 or -EINVAL. */
static int find_l4_v4(const uint8_t *front, uint32_t n, uint8_t proto, struct pd_vnet_cut *cut)
{
	const uint8_t *ip = front + cut->ip;
	uint32_t bytes;

	if (cut->ip + IPV4_BYTES > n || ip[0] >> 4 != 4)
		return -EINVAL;
	bytes = 4 * (ip[0] & 15u);
	/* No fragment: neither an offset nor more to come. */
	if (bytes < IPV4_BYTES || ip[9] != proto || load16(ip + 6) & 0x3fff)
		return -EINVAL;
	cut->l4 = cut->ip + bytes;
	return 0;
}

/*
 * The header of `proto` behind an IPv6 header and those options that each segment repeats. Returns
 * 0 or -EINVAL: also with a routing header, which hides the address that the checksum is about.
 */
static int find_l4_v6(const uint8_t *front, uint32_t n, uint8_t proto, struct pd_vnet_cut *cut)
{
	const uint8_t *ip = front + cut->ip;
	uint32_t at = cut->ip + IPV6_BYTES;
	uint8_t next;

	if (at > n || ip[0] >> 4 != 6)
		return -EINVAL;
	for (next = ip[6]; next != proto; at += 8 + 8u * front[at + 1]) {
		if ((next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS) || at + 8 > n)
			return -EINVAL;
		next = front[at];
	}
	cut->l4 = at;
	cut->ipv6 = true;
	return 0;
}

/* Where in the transport's header its checksum stands. */
static uint32_t csum_at(const struct pd_vnet_cut *cut)
{
	return cut->udp ? UDP_CSUM_AT : TCP_CSUM_AT;
}

/*
 * Find out how to cut a frame of `total` bytes, `n` of which stand at `front`. Returns 0 or
 * -EINVAL.
 */
static int find_cut(const struct virtio_net_hdr *h, const uint8_t *front, uint32_t n,
		    uint32_t total, struct pd_vnet_cut *cut)
{
	unsigned type = h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
	bool udp = h->gso_type == VIRTIO_NET_HDR_GSO_UDP_L4;
	uint8_t proto = udp ? IPPROTO_UDP : IPPROTO_TCP;
	uint32_t least = udp ? UDP_BYTES : TCP_BYTES;
	uint16_t ether_type = find_ip(front, n, cut);
	int err = -EINVAL;

	cut->ipv6 = false;
	cut->udp = udp;
	if ((udp || type == VIRTIO_NET_HDR_GSO_TCPV4) && ether_type == ETH_P_IP)
		err = find_l4_v4(front, n, proto, cut);
	else if ((udp || type == VIRTIO_NET_HDR_GSO_TCPV6) && ether_type == ETH_P_IPV6)
		err = find_l4_v6(front, n, proto, cut);
	if (err || cut->l4 + least > n)
		return -EINVAL;
	cut->headers = cut->l4 + (udp ? UDP_BYTES : 4u * (front[cut->l4 + 12] >> 4));
	if (cut->headers < cut->l4 + least || cut->headers > n || !h->gso_size ||
	    h->gso_size == GSO_BY_FRAGS)
		return -EINVAL;
	if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM
		    ? h->csum_start != cut->l4 || h->csum_offset != csum_at(cut)
		    : udp) /* the kernel wants it open */
		return -EINVAL;
	cut->payload = total - cut->headers;
	cut->mss = h->gso_size;
	cut->segments = (cut->payload + cut->mss - 1) / cut->mss;
	return udp && cut->segments > UDP_SEGMENTS_MAX ? -EINVAL : 0;
}

int pd_vnet_read(struct virtio_net_hdr *h, const uint8_t *front, uint32_t total,
		 struct pd_vnet_cut *cut)
{
	bool needs_csum = h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	uint32_t n = pd_min(total, (uint32_t)PD_VNET_FRONT);

	if (needs_csum && (uint32_t)h->csum_start + h->csum_offset + 2 > total)
		return -EINVAL;
	if (h->gso_type != VIRTIO_NET_HDR_GSO_NONE && find_cut(h, front, n, total, cut))
		return -EINVAL;
	h->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
	if (!needs_csum)
		h->csum_start = h->csum_offset = 0;
	else /* nothing is known to be valid while it is not there */
		h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	if (h->gso_type != VIRTIO_NET_HDR_GSO_NONE && cut->segments > 1) {
		h->hdr_len = (uint16_t)cut->headers;
		return PD_VNET_CUT;
	}
	h->gso_type = VIRTIO_NET_HDR_GSO_NONE;
	h->gso_size = h->hdr_len = 0;
	return needs_csum ? PD_VNET_CSUM : PD_VNET_NOTHING;
}

int pd_vnet_cut_limit(struct pd_vnet_cut *cut, uint32_t octets)
{
	uint32_t own = cut->headers - cut->ip;

	if (octets <= own || (cut->udp && cut->mss > octets - own))
		return -EINVAL;
	cut->mss = pd_min(cut->mss, octets - own);
	cut->segments = (cut->payload + cut->mss - 1) / cut->mss;
	return 0;
}

/*
 * The complement of a sum, as frames have it: 0 would mean none to UDP, and to others both are the
 * same.
 */
static uint16_t finish(uint64_t sum)
{
	uint16_t folded = (uint16_t)~pd_csum_fold(sum);

	return folded ? folded : 0xffff;
}

void pd_vnet_complete(uint8_t *frame, uint32_t len, const struct virtio_net_hdr *h)
{
	uint32_t start = h->csum_start, at = start + h->csum_offset;

	pd_assert(at + 2 <= len);
	store_sum(frame + at, finish(pd_csum_add(0, frame + start, len - start)));
}

/*
 * The sum of a pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1) for `len` octets of TCP
 * or UDP.
 */
static uint64_t pseudo_sum(const struct pd_vnet_cut *cut, const uint8_t *ip, uint32_t len)
{
	uint8_t rest[8] = {0};

	store32(rest, len);
	rest[7] = cut->udp ? IPPROTO_UDP : IPPROTO_TCP;
	return pd_csum_add(cut->ipv6 ? pd_csum_add(0, ip + 8, 32) : pd_csum_add(0, ip + 12, 8),
			   rest, sizeof(rest));
}

void pd_vnet_segment(const struct pd_vnet_cut *cut, const uint8_t *frame, uint32_t i, uint8_t *out,
		     uint32_t *at, uint32_t *len)
{
	uint8_t *ip = out + cut->ip, *l4 = out + cut->l4;
	uint32_t skip = i * cut->mss, l4_bytes;
	uint64_t sum;

	pd_assert(i < cut->segments);
	*at = cut->headers + skip;
	*len = pd_min(cut->mss, cut->payload - skip);
	memcpy(out, frame, cut->headers);
	l4_bytes = cut->headers - cut->l4 + *len;
	if (cut->ipv6) {
		store16(ip + 4, cut->l4 - cut->ip - IPV6_BYTES + l4_bytes);
	} else {
		store16(ip + 2, cut->l4 - cut->ip + l4_bytes);
		store16(ip + 4, load16(ip + 4) + i);
		store16(ip + 10, 0);
		store_sum(ip + 10, (uint16_t)~pd_csum_fold(pd_csum_add(0, ip, cut->l4 - cut->ip)));
	}
	if (cut->udp) {
		store16(l4 + UDP_LENGTH_AT, l4_bytes);
	} else {
		store32(l4 + 4, load32(l4 + 4) + skip);
		if (i)
			l4[TCP_FLAGS_AT] &= (uint8_t)~TCP_CWR;
		if (i + 1 < cut->segments)
			l4[TCP_FLAGS_AT] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
	}
	store16(l4 + csum_at(cut), 0);
	sum = pd_csum_add(pseudo_sum(cut, ip, l4_bytes), l4, cut->headers - cut->l4);
	sum = pd_csum_add(sum, frame + *at, *len);
	store_sum(l4 + csum_at(cut), cut->udp ? finish(sum) : (uint16_t)~pd_csum_fold(sum));
}
