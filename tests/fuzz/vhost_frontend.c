/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A random front-end, for our back-end: it starts rings, fills them, sends whatever else there is, reads its answers or does not.
 */
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vhost.h"

/* Take what was answered, with its descriptors. */
static void read_answers(void)
{
	union {
		struct cmsghdr c;
		char bytes[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct {
		struct pd_vhost_header hdr;
		uint64_t value;
	} PD_PACKED msg;
	struct iovec iov = {&msg, sizeof(msg.hdr) + sizeof(msg.value)};

	for (;;) {
		struct msghdr mh = {.msg_iov = &iov,
				    .msg_iovlen = 1,
				    .msg_control = &control,
				    .msg_controllen = sizeof(control)};
		struct cmsghdr *c;

		if (peer.sock < 0 || recvmsg(peer.sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0)
			return;
		if (msg.hdr.request == PD_VHOST_GET_FEATURES)
			peer.offered = msg.value;
		if (msg.hdr.request == PD_VHOST_GET_PROTOCOL_FEATURES)
			peer.offered_protocol = msg.value;
		for (c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c))
			for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; i++)
				close(((int *)(void *)CMSG_DATA(c))[i]);
	}
}

/* Everything that rings need, once for each, as QEMU and DPDK do; each message may go wrong. */
static void send_start(void)
{
	static const uint32_t once[] = {
		PD_VHOST_GET_FEATURES,          PD_VHOST_GET_PROTOCOL_FEATURES,
		PD_VHOST_SET_PROTOCOL_FEATURES, PD_VHOST_SET_OWNER,
		PD_VHOST_SET_FEATURES,          PD_VHOST_SET_MEM_TABLE};

	for (unsigned i = 0; i < PD_ARRAY_SIZE(once); i++)
		send_request(once[i]), read_answers();
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

/* The end of the memory goes, under whoever has it mapped. */
static void cut_memory(void)
{
	peer.cut = true;
	MUST(!ftruncate(pool[MEMORY], rnd(16) * 4096));
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
		if (one_in(4))
			peer_comes();
		break;
	default:
		send_request(1 + rnd(PD_VHOST_REQUESTS - 1));
	}
}
