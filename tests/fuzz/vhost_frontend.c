/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A random front-end, for our back-end: it starts rings, fills them, sends whatever else there is,
 * reads its answers or does not.
 */
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vhost.h"

/* Take what was answered, with its descriptors. */
static void read_answers(void)
{
	struct pd_vhost_header hdr;
	union pd_vhost_payload p;
	int fd;

	turn();
	while (read_message(peer.sock, PD_VHOST_REPLY, &hdr, &p, &fd)) {
		if (hdr.request == PD_VHOST_GET_FEATURES)
			peer.offered = p.u64;
		if (hdr.request == PD_VHOST_GET_PROTOCOL_FEATURES)
			peer.offered_protocol = p.u64;
		if (hdr.request == PD_VHOST_GET_INFLIGHT_FD && fd >= 0)
			kept_take(&p.inflight, fd);
		else if (fd >= 0)
			close(fd);
	}
}

/* The memory for what is in flight: what there is, or else some is asked for. */
static void send_kept(void)
{
	union pd_vhost_payload p = {.inflight = peer.kept_desc};

	if (peer.kept_fd < 0)
		send_request(PD_VHOST_GET_INFLIGHT_FD), read_answers();
	else
		send_message(peer.sock, PD_VHOST_SET_INFLIGHT_FD, 0, &p, sizeof(p.inflight),
			     &peer.kept_fd, 1);
}

/* --- translations ---------------------------------------------------------------------------- */

/* Give the back-end a channel to ask on. */
static void give_channel(void)
{
	const union pd_vhost_payload none = {0};
	int pair[2];

	if (peer.sock < 0)
		return;
	MUST(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	channel_gone();
	peer.channel = pair[0];
	if (one_in(4)) /* it takes a few messages, and no more before they are read */
		MUST(!setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &(int){1}, sizeof(int)));
	send_message(peer.sock, PD_VHOST_SET_BACKEND_REQ_FD, 0, &none, 0, &pair[1], 1);
	close(pair[1]);
}

/*
 * Say where an address stands, or that nothing does there any more. Rings are at the front-end's
 * addresses, buffers at the guest's.
 */
static void send_translation(uint64_t iova, uint8_t perm, uint8_t type)
{
	uint64_t base = iova >= UVA ? UVA : GPA;
	union pd_vhost_payload p = {.iotlb = {.perm = perm, .type = type}};

	switch (rnd(4)) {
	case 0: /* everything */
		p.iotlb.iova = base;
		p.iotlb.size = MEM_BYTES;
		break;
	case 1: /* this, and something more */
		p.iotlb.iova = iova;
		p.iotlb.size = 1 + rnd(one_in(2) ? 64 : 8192);
		break;
	default: /* a page */
		p.iotlb.iova = iova & ~4095ull;
		p.iotlb.size = 4096;
	}
	p.iotlb.uaddr = UVA + (p.iotlb.iova - base) + (rarely(12) ? 4096 : 0);
	if (rarely(12))
		any_payload(0, PD_VHOST_SIZE_IOTLB, &p);
	send_message(peer.sock, PD_VHOST_IOTLB_MSG, one_in(2) ? PD_VHOST_NEED_REPLY : 0, &p,
		     sizeof(p.iotlb), NULL, 0);
}

/* Take what the back-end asks on its channel, and answer it, or not. */
static void answer_misses(void)
{
	union pd_vhost_payload p;
	struct pd_vhost_header hdr;
	int fd;

	for (int n = 0; n < 40 && read_message(peer.channel, 0, &hdr, &p, &fd); n++) {
		MUST(hdr.request < PD_VHOST_BACKEND_REQUESTS && fd < 0);
		if (hdr.flags & PD_VHOST_NEED_REPLY || rarely(60)) {
			union pd_vhost_payload code = {.u64 = rarely(20)};

			send_message(peer.channel, hdr.request, PD_VHOST_REPLY, &code,
				     sizeof(code.u64), NULL, 0);
		}
		if (hdr.request == PD_VHOST_BACKEND_IOTLB_MSG &&
		    p.iotlb.type == PD_VHOST_IOTLB_MISS && !rarely(20))
			send_translation(p.iotlb.iova,
					 rarely(12) ? (uint8_t)rnd(4)
						    : p.iotlb.perm | one_in(2) * 3,
					 PD_VHOST_IOTLB_UPDATE);
	}
}

/* Does it belong to what was agreed on? */
static bool is_agreed(uint32_t request)
{
	const struct pd_vhost_kind *kind = &pd_vhost_kinds[request];

	if (request == PD_VHOST_GPU_SET_SOCKET)
		return false;
	if (request == PD_VHOST_IOTLB_MSG)
		return peer.taken >> VIRTIO_F_ACCESS_PLATFORM & 1;
	return kind->feature < 0 || peer.offered_protocol >> kind->feature & 1;
}

/* A request, of those that do mostly: others end the connection. */
static uint32_t any_request(void)
{
	uint32_t request;
	int tries = 4;

	do {
		request = 1 + rnd(PD_VHOST_REQUESTS - 1);
	} while (!is_agreed(request) && tries-- && !rarely(8));
	return request;
}

/* Answer what was asked, or say something that was not. */
static void translate(void)
{
	const union pd_vhost_payload p = {0};

	if (peer.channel < 0) {
		send_request(any_request());
		return;
	}
	answer_misses();
	switch (rnd(16)) {
	case 0:
		send_translation(any_address(one_in(2) ? GPA : UVA), 0, PD_VHOST_IOTLB_INVALIDATE);
		break;
	case 1:
	case 2:
		send_translation(any_address(one_in(2) ? GPA : UVA), (uint8_t)rnd(4),
				 PD_VHOST_IOTLB_UPDATE);
		break;
	case 3:
		if (!one_in(4))
			break;
		peer.drops_channel = one_in(2);
		if (!peer.drops_channel)
			channel_gone();
		break;
	case 4: /* nobody asked */
		if (one_in(4))
			send_message(peer.channel,
				     one_in(2) ? PD_VHOST_BACKEND_IOTLB_MSG
					       : PD_VHOST_BACKEND_VRING_CALL,
				     one_in(4) ? 0 : PD_VHOST_REPLY, &p, sizeof(p.u64), NULL, 0);
	}
	answer_misses();
}

/* --- what it does ---------------------------------------------------------------------------- */

/* Everything that rings need, once for each, as QEMU and DPDK do; each message may go wrong. */
static void send_start(void)
{
	static const uint32_t once[] = {
		PD_VHOST_GET_FEATURES,          PD_VHOST_GET_PROTOCOL_FEATURES,
		PD_VHOST_SET_PROTOCOL_FEATURES, PD_VHOST_SET_OWNER,
		PD_VHOST_SET_FEATURES,          PD_VHOST_SET_MEM_TABLE};

	peer.taken = 0;

	for (unsigned i = 0; i < PD_ARRAY_SIZE(once); i++)
		send_request(once[i]), read_answers();
	if (peer.iommu || side->config.inband)
		give_channel();
	if (one_in(2))
		send_kept();
	for (uint32_t i = 0; i < 2 * side->config.queues; i++) {
		union pd_vhost_payload num = {.state = {i, peer.packed ? 64 : 32}};
		union pd_vhost_payload on = {.state = {i, 1}}, fd = {.u64 = i};
		union pd_vhost_payload addr = {.addr = {.index = i,
							.desc = UVA + i * RING_BYTES,
							.avail = UVA + i * RING_BYTES + 0x800,
							.used = UVA + i * RING_BYTES + 0x1000}};
		int event = any_file(EVENT);

		peer.num[i] = num.state.num;
		send_message(peer.sock, PD_VHOST_SET_VRING_NUM, 0, &num, 8, NULL, 0);
		send_message(peer.sock, PD_VHOST_SET_VRING_ADDR, 0, &addr, 40, NULL, 0);
		send_message(peer.sock, PD_VHOST_SET_VRING_CALL, 0, &fd, 8, &event, 1);
		send_message(peer.sock, PD_VHOST_SET_VRING_KICK, 0, &fd, 8, &event, 1);
		send_message(peer.sock, PD_VHOST_SET_VRING_ENABLE, 0, &on, 8, NULL, 0);
	}
	turn();
}

/* Make some descriptors of a ring available, in its format. */
static void fill_ring(uint32_t i)
{
	uint8_t *ring = memory + i * RING_BYTES;
	struct vring_avail *avail = (struct vring_avail *)(void *)(ring + 0x800);
	uint32_t num = peer.num[i] && peer.num[i] <= 128 ? peer.num[i] : 64;

	for (uint32_t n = 1 + rnd(8); n; n--) {
		uint32_t at = peer.offset[i]++, slot = at % num;
		uint16_t flags = (uint16_t)(i & 1 ? 0 : VRING_DESC_F_WRITE);
		uint64_t addr = GPA + BUFFERS_AT + rnd(MEM_BYTES - BUFFERS_AT);

		if (rarely(20))
			addr = any_address(GPA);
		if (rarely(20))
			flags ^= (uint16_t)rnd(8);
		if (peer.packed) {
			struct vring_packed_desc *d =
				&((struct vring_packed_desc *)(void *)ring)[slot];

			*d = (struct vring_packed_desc){addr, rnd(2000), (uint16_t)slot, flags};
			d->flags |= at / num & 1 ? 1 << 15 : 1 << 7;
		} else {
			((struct vring_desc *)(void *)ring)[slot] = (struct vring_desc){
				addr, rnd(2000), flags, (uint16_t)((slot + 1) % num)};
			avail->ring[slot] = (uint16_t)slot;
			avail->idx = (uint16_t)(at + 1);
		}
	}
	if (rarely(10))
		ring[rnd(RING_BYTES)] = (uint8_t)rnd(256);
	if (one_in(2))
		MUST(!eventfd_write(pool[EVENT], 1));
}

/* The end of the memory goes, under whoever has it mapped, or the dirty log. */
static void cut_memory(void)
{
	peer.cut = true;
	MUST(!(one_in(3) ? ftruncate(pool[LOG], 0) : ftruncate(pool[MEMORY], rnd(16) * 4096)));
}

/* A back-end died that had something in flight: the memory is given to the next. */
static void recover(void)
{
	uint32_t offset[RINGS_MAX];

	if (!peer.kept || peer.cut)
		return;
	for (uint32_t i = 0; i < 2 * side->config.queues; i++) {
		fill_ring(i);
		if (!one_in(4))
			kept_note(i);
	}
	memcpy(offset, peer.offset, sizeof(offset));
	peer_comes();
	memcpy(peer.offset, offset, sizeof(offset));
	send_start();
	call_lanes();
}

void front_end_step(void)
{
	switch (rnd(16)) {
	case 0:
	case 1:
		send_start();
		break;
	case 2:
	case 3:
	case 4:
		if (!peer.cut)
			fill_ring(rnd(RINGS_MAX));
		call_lanes();
		break;
	case 5:
		read_answers();
		break;
	case 6:
		if (one_in(4))
			cut_memory();
		call_lanes();
		break;
	case 7:
		if (!one_in(4))
			break;
		peer_comes();
		if (one_in(8))
			another_comes();
		break;
	case 8:
		recover();
		break;
	case 9:
	case 10:
		translate();
		call_lanes();
		break;
	default:
		send_request(any_request());
	}
}
