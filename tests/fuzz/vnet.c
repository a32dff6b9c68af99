/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames and virtio-net headers that a random peer made, through net/vnet.h.
 *
 * A run is one frame, which ends where memory does, and one header: sensible ones mostly, with a
 * few bytes wrong. Whatever comes of it, nothing outside is touched; a completed checksum is right
 * by another way to compute it; and the segments of a frame have together its payload, each with
 * sums that are right and the length and, of TCP, the sequence number that belong there.
 */
#include <arpa/inet.h>
#include <sys/mman.h>

#include "fuzz.h"
#include "net/csum.h"
#include "net/vnet.h"

static const char *const kinds[] = {"frame"};

#define FRAME_MAX 65609
#define PAGE 4096

static uint8_t *memory_end; /* what follows cannot be touched */
static uint8_t copy[FRAME_MAX];
static unsigned long found[4]; /* what there was to do: enum pd_vnet_task, and 3 for refused */

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

/* The sum of RFC 1071, as slow as it gets. */
static uint32_t slow_sum(uint32_t sum, const uint8_t *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

/* The sum over a segment with its pseudo header: all ones when the checksum is right. */
static uint32_t l4_sum(const uint8_t *ip, const struct pd_vnet_cut *cut, const uint8_t *l4,
		       const uint8_t *payload, uint32_t len)
{
	uint8_t tail[4] = {0, cut->udp ? 17 : 6, 0, 0};
	uint32_t headers = cut->headers - cut->l4;
	uint32_t sum = slow_sum(0, ip + (cut->ipv6 ? 8 : 12), cut->ipv6 ? 32 : 8);

	put16(tail + 2, headers + len);
	sum = slow_sum(sum, tail, 4);
	sum = slow_sum(sum, l4, headers);
	return slow_sum(sum, payload, len);
}

/* A large frame and a header that fits it. Returns its length; it ends at memory_end. */
static uint32_t make(struct virtio_net_hdr *h, uint8_t **out)
{
	static uint8_t frame[FRAME_MAX + 300];
	bool ipv6 = rnd(2);
	uint32_t at = 12, noise = rnd(65536), ip, tcp, len;
	bool udp = noise % 8 ==
		   0; /* of no number of its own, so that a corpus goes on meaning what it did */
	uint8_t proto = udp ? 17 : 6;

	for (uint32_t i = 0; i < 300; i++) {
		noise = noise * 1664525 + 1013904223;
		frame[i] = (uint8_t)(noise >> 24);
	}
	for (uint32_t tags = rnd(8) < 6 ? 0 : 1 + rnd(2); tags; tags--, at += 4)
		put16(frame + at, rnd(2) ? 0x8100 : 0x88a8);
	put16(frame + at, ipv6 ? 0x86dd : 0x0800);
	ip = at + 2;
	if (ipv6) {
		frame[ip] = 0x60;
		frame[ip + 6] = proto;
		tcp = ip + 40;
		if (!rnd(4)) {
			frame[ip + 6] = rnd(2) ? 0 : 60;
			frame[tcp] = proto;
			frame[tcp + 1] = (uint8_t)rnd(3);
			tcp += 8 + 8u * frame[tcp + 1];
		}
	} else {
		frame[ip] = (uint8_t)(0x45 + (rnd(4) ? 0 : rnd(11)));
		put16(frame + ip + 6, rnd(2) ? 0x4000 : 0);
		frame[ip + 9] = proto;
		tcp = ip + 4 * (frame[ip] & 15u);
	}
	frame[tcp + 12] = (uint8_t)((5 + (rnd(3) ? 0 : rnd(11))) << 4);
	len = tcp + (udp ? 8 : 4 * (frame[tcp + 12] >> 4)) + (rnd(20) ? rnd(6000) : rnd(65000));
	for (uint32_t i = 300; i < len; i++)
		frame[i] = (uint8_t)(frame[i - 300] + i);
	*h = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
				     .gso_type = ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6
						      : VIRTIO_NET_HDR_GSO_TCPV4,
				     .hdr_len = (uint16_t)rnd(100),
				     .gso_size = (uint16_t)(1 + rnd(1500)),
				     .csum_start = (uint16_t)tcp,
				     .csum_offset = udp ? 6 : 16};
	if (udp)
		h->gso_type = VIRTIO_NET_HDR_GSO_UDP_L4;
	if (!rnd(4))
		h->gso_type = VIRTIO_NET_HDR_GSO_NONE;
	if (!rnd(8))
		h->flags = 0;
	/* Something is wrong. */
	for (uint32_t wrong = rnd(3) ? 0 : 1 + rnd(3); wrong; wrong--)
		frame[12 + rnd(100)] = (uint8_t)rnd(256);
	if (!rnd(6))
		((uint8_t *)h)[rnd(sizeof(*h))] = (uint8_t)(rnd(2) ? 0xff : rnd(256));
	if (!rnd(6))
		len = rnd(len + 1);
	*out = memory_end - len;
	memcpy(*out, frame, len);
	return len;
}

/* Cut a frame and look at every piece. */
static void check_cut(const struct pd_vnet_cut *cut, const uint8_t *frame, uint32_t len)
{
	uint8_t *out = memory_end - cut->headers;
	uint32_t next = cut->headers, seq, first_seq = 0;

	MUST(cut->headers <= PD_VNET_FRONT && cut->headers + cut->payload == len && cut->segments);
	memcpy(copy, frame, len); /* `out` stands where the frame ends */
	frame = copy;
	if (!cut->udp)
		memcpy(&first_seq, frame + cut->l4 + 4, 4);
	for (uint32_t i = 0; i < cut->segments; i++) {
		uint32_t at, n;
		const uint8_t *ip = out + cut->ip, *l4 = out + cut->l4;

		pd_vnet_segment(cut, frame, i, out, &at, &n);
		MUST(at == next && n && n <= cut->mss && at + n <= len);
		next += n;
		if (cut->udp) {
			MUST(get16(l4 + 4) == 8 + n && get16(l4 + 6));
		} else {
			memcpy(&seq, l4 + 4, 4);
			MUST(ntohl(seq) == ntohl(first_seq) + at - cut->headers);
		}
		if (cut->ipv6) {
			MUST(get16(ip + 4) == cut->headers - cut->ip - 40 + n);
		} else {
			MUST(get16(ip + 2) == cut->headers - cut->ip + n);
			MUST(slow_sum(0, ip, cut->l4 - cut->ip) == 0xffff);
		}
		MUST(l4_sum(ip, cut, l4, frame + at, n) == 0xffff);
	}
	MUST(next == len);
}

/* One frame. Returns whether it was taken. */
static bool run(unsigned kind)
{
	struct virtio_net_hdr h;
	struct pd_vnet_cut cut;
	uint8_t *frame;
	uint32_t len = make(&h, &frame), limit;
	int task = pd_vnet_read(&h, frame, len, &cut);

	MUST(task == PD_VNET_NOTHING || task == PD_VNET_CSUM || task == PD_VNET_CUT || task < 0);
	if (task == PD_VNET_CUT) {
		MUST(cut.segments > 1 && h.hdr_len == cut.headers &&
		     (!cut.udp || cut.segments <= 128));
		limit = 1 + rnd(2000);
		if (!pd_vnet_cut_limit(&cut, limit))
			MUST(cut.headers - cut.ip + cut.mss <= limit);
		else
			MUST(limit < cut.headers - cut.ip + (cut.udp ? cut.mss : 1u));
		check_cut(&cut, frame, len);
	} else if (task == PD_VNET_CSUM) {
		uint32_t n = len - h.csum_start, sum = slow_sum(0, frame + h.csum_start, n);

		MUST(sum == htons(pd_csum_fold(pd_csum_add(0, frame + h.csum_start, n))));
		pd_vnet_complete(frame, len, &h);
		/* What was in the field is part of the sum; nothing is written as all ones. */
		MUST(get16(frame + h.csum_start + h.csum_offset) ==
		     (sum == 0xffff ? 0xffff : 0xffff - sum));
	}
	found[task < 0 ? 3 : task]++;
	return task >= 0;
}

static void prepare(void)
{
	const size_t bytes = (FRAME_MAX / PAGE + 2) * PAGE;
	uint8_t *p = mmap(NULL, bytes + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);

	MUST(p != MAP_FAILED && !mprotect(p + bytes, PAGE, PROT_NONE));
	memory_end = p + bytes;
}

static void summary(unsigned kind)
{
	unsigned long all = 0;

	printf(", nothing to do %lu, checksums %lu, cut %lu", found[0], found[1], found[2]);
	for (unsigned i = 0; i < 4; i++)
		all += found[i];
	/* Each comes up, or nothing was tested. */
	for (unsigned i = 0; all >= 1000 && i < 4; i++)
		MUST(found[i]);
}

const struct fuzz_target fuzz_target = {
	.name = "vnet",
	FUZZ_KINDS(kinds),
	.good = "taken",
	.seeds = 200000,
	.prepare = prepare,
	.run = run,
	.summary = summary,
};
