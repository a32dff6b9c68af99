/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the vhost-user fuzzer's peer sends: messages that are as they should be mostly, and each
 * part of them wrong at times.
 */
#include <linux/vhost_types.h>
#include <sys/socket.h>

#include "vhost.h"
#include "virtio/inflight.h"

/*
 * Send bytes with descriptors; in two pieces at times. Where the connection is at its end, so is
 * the peer.
 */
static void send_bytes(int sock, const void *bytes, size_t n, const int *fds, unsigned n_fds)
{
	union {
		struct cmsghdr c;
		char bytes[CMSG_SPACE(256 * sizeof(int))];
	} control;
	size_t first = rarely(16) && n > 1 ? 1 + rnd((uint32_t)n - 1) : n;
	struct iovec iov = {(void *)(uintptr_t)bytes, first};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t sent;

	if (n_fds) {
		control.c.cmsg_level = SOL_SOCKET;
		control.c.cmsg_type = SCM_RIGHTS;
		control.c.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.c), fds, n_fds * sizeof(int));
		mh.msg_control = &control;
		mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	sent = sendmsg(sock, &mh, MSG_NOSIGNAL);
	if (sent < 0 && sock == peer.sock && errno != EAGAIN) /* we have been hung up on */
		peer_gone();
	if (sent != (ssize_t)first || first == n)
		return;
	turn();
	if (rarely(4)) /* the rest never comes, or belongs to something else */
		return;
	if (send(sock, (const char *)bytes + first, n - first, MSG_NOSIGNAL) < 0)
		peer_gone();
}

/* A file of the pool; `usual` mostly. */
int any_file(enum pool usual)
{
	return pool[rarely(12) ? rnd(POOL) : usual];
}

/* The descriptors of a message whose payload is there; *n of them. */
static void any_fds(const struct pd_vhost_kind *kind, const union pd_vhost_payload *p, int *fds,
		    unsigned *n)
{
	enum pool usual = MEMORY;

	*n = 0;
	switch (kind->fds) {
	case PD_VHOST_FDS_NONE:
		break;
	case PD_VHOST_FDS_VRING:
		usual = EVENT;
		*n = !(p->u64 & PD_VHOST_VRING_NOFD);
		break;
	case PD_VHOST_FDS_REGIONS:
		*n = pd_min(p->memory.n_regions, 8u);
		break;
	case PD_VHOST_FDS_OPTIONAL:
	case PD_VHOST_FDS_ANY:
		usual = kind->size == PD_VHOST_SIZE_LOG ? LOG : MEMORY;
		*n = usual == LOG ? !rarely(4) : rnd(2);
		break;
	default:
		usual = kind->size != PD_VHOST_SIZE_NONE               ? MEMORY
			: kind == &pd_vhost_kinds[PD_VHOST_SET_LOG_FD] ? EVENT
								       : SOCKET;
		*n = 1;
	}
	if (rarely(30))
		*n = (unsigned[]){0, 1, 2, 8, 9, 253}[rnd(6)];
	for (unsigned i = 0; i < *n; i++)
		fds[i] = any_file(usual);
}

/* A place in the peer's memory, or somewhere. */
uint64_t any_address(uint64_t base)
{
	if (rarely(30))
		return one_in(2) ? UINT64_MAX - rnd(5000) : rnd64();
	return base + (rarely(8) ? rnd(MEM_BYTES + 16) : rnd(16) * 0x1000);
}

/* A number that means something to somebody. */
uint64_t any_number(void)
{
	switch (rnd(8)) {
	case 0:
		return rnd(4);
	case 1:
		return any_address(GPA);
	case 2:
		return any_address(UVA);
	case 3:
		return MEM_BYTES >> rnd(6);
	case 4:
		return 1ull << rnd(64);
	case 5:
		return rnd(65536);
	default:
		return rnd(256);
	}
}

/* What it may ask for where `offered` was, mostly. */
static uint64_t any_of(uint64_t features, uint64_t offered)
{
	return offered && !rarely(20) ? features & offered : features;
}

uint64_t any_features(void)
{
	uint64_t features = BIT(VIRTIO_F_VERSION_1) | BIT(PD_VHOST_F_PROTOCOL_FEATURES);

	/*
	 * Others than it has taken are refused while a ring runs; but for a migration that begins
	 * or ends.
	 */
	if (peer.taken && !rarely(8))
		return peer.taken ^ (one_in(4) ? BIT(VHOST_F_LOG_ALL) & peer.offered : 0);

	if (one_in(2))
		features |= BIT(VIRTIO_F_RING_PACKED);
	if (one_in(3))
		features |= BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_RING_F_EVENT_IDX);
	if (one_in(4))
		features |= BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_F_IN_ORDER);
	if (peer.iommu || one_in(4))
		features |= BIT(VIRTIO_F_ACCESS_PLATFORM);
	if (one_in(2))
		features |= rnd64();
	if (one_in(8))
		features &= ~BIT(VIRTIO_F_VERSION_1);
	if (one_in(8))
		features &= ~BIT(PD_VHOST_F_PROTOCOL_FEATURES);
	return any_of(features, peer.offered);
}

static uint32_t any_ring(void)
{
	return rarely(20) ? rnd(one_in(2) ? 256 : UINT32_MAX) : rnd(2 * side->config.queues);
}

static uint32_t any_size(void)
{
	return rarely(12) ? rnd(one_in(2) ? 70000 : UINT32_MAX) : 1u << (1 + rnd(7));
}

uint64_t any_u64(uint32_t request)
{
	/* Notifications as messages, with what they need. */
	const uint64_t inband = BIT(PD_VHOST_PF_INBAND_NOTIFICATIONS) |
				BIT(PD_VHOST_PF_BACKEND_REQ) | BIT(PD_VHOST_PF_REPLY_ACK);

	switch (request) {
	case PD_VHOST_GET_FEATURES:
	case PD_VHOST_SET_FEATURES:
		return any_features();
	case PD_VHOST_GET_PROTOCOL_FEATURES:
	case PD_VHOST_SET_PROTOCOL_FEATURES:
		return any_of(
			(one_in(2) ? BIT(PD_VHOST_PF_REPLY_ACK) | BIT(rnd(17)) : rnd(1 << 20)) |
				(peer.iommu ? BIT(PD_VHOST_PF_BACKEND_REQ) : 0) |
				(side->config.inband ? inband : 0),
			peer.offered_protocol);
	case PD_VHOST_SET_VRING_KICK:
	case PD_VHOST_SET_VRING_CALL:
	case PD_VHOST_SET_VRING_ERR:
		return any_ring() | (one_in(6) ? PD_VHOST_VRING_NOFD : 0);
	case PD_VHOST_GET_QUEUE_NUM:
		return rnd(4);
	default:
		return any_number();
	}
}

static struct pd_vhost_region any_region(unsigned i, unsigned of)
{
	uint64_t bytes = MEM_BYTES / of & ~4095u, at = i * bytes;

	if (rarely(12))
		return (struct pd_vhost_region){any_number(), any_number(), any_number(),
						any_number()};
	return (struct pd_vhost_region){GPA + at, bytes, UVA + at, at};
}

struct pd_vhost_inflight_desc any_kept(void)
{
	struct pd_vhost_inflight_desc desc = {
		.num_queues = (uint16_t)(rarely(12) ? rnd(6) : 2 * side->config.queues),
		.queue_size = (uint16_t)(rarely(12) ? rnd(65536) : KEPT_SIZE),
	};

	desc.mmap_size = desc.num_queues * pd_inflight_queue_bytes(desc.queue_size, one_in(2));
	if (rarely(8))
		desc.mmap_size = any_number();
	if (rarely(12))
		desc.mmap_offset = any_number();
	return desc;
}

uint32_t any_payload(uint32_t request, enum pd_vhost_size size, union pd_vhost_payload *p)
{
	uint32_t i, bytes = 0;

	switch (size) {
	case PD_VHOST_SIZE_NONE:
		return 0;
	case PD_VHOST_SIZE_U64:
		p->u64 = any_u64(request);
		return sizeof(p->u64);
	case PD_VHOST_SIZE_STATE:
		i = any_ring();
		p->state = (struct pd_vhost_vring_state){i, rnd(3)};
		i %= RINGS_MAX;
		if (request == PD_VHOST_SET_VRING_NUM)
			p->state.num = peer.num[i] && !rarely(4) ? peer.num[i] : any_size();
		if (request == PD_VHOST_SET_VRING_BASE && one_in(3))
			p->state.num = rnd(one_in(2) ? 65536 : UINT32_MAX);
		return sizeof(p->state);
	case PD_VHOST_SIZE_ADDR:
		i = any_ring();
		p->addr = (struct pd_vhost_vring_addr){
			.index = i,
			.flags = rnd(2),
			.desc = UVA + i % RINGS_MAX * RING_BYTES,
			.avail = UVA + i % RINGS_MAX * RING_BYTES + 0x800,
			.used = UVA + i % RINGS_MAX * RING_BYTES + 0x1000,
			.log = rarely(10) ? any_number() : GPA + rnd(MEM_BYTES),
		};
		if (rarely(10))
			(&p->addr.desc)[rnd(4)] = any_address(UVA) + rnd(17);
		return sizeof(p->addr);
	case PD_VHOST_SIZE_MEMORY:
		p->memory.n_regions = rarely(12) ? rnd(10) : 1 + rnd(3);
		for (i = 0; i < p->memory.n_regions && i < PD_VHOST_REGIONS_MAX; i++)
			p->memory.regions[i] = any_region(i, p->memory.n_regions);
		if (rarely(30))
			p->memory.n_regions = rnd(UINT32_MAX);
		return one_in(4) ? sizeof(p->memory)
				 : (uint32_t)offsetof(struct pd_vhost_memory, regions[i]);
	case PD_VHOST_SIZE_REGION:
		i = 1 + rnd(4);
		p->region.region = any_region(rnd(i), i);
		return sizeof(p->region);
	case PD_VHOST_SIZE_IOTLB:
		p->iotlb = (struct pd_vhost_iotlb){
			.iova = one_in(2) ? any_address(GPA) : PD_VHOST_AREA_ADDR + any_number(),
			.size = any_number(),
			.uaddr = any_address(UVA),
			.perm = (uint8_t)rnd(4),
			.type = (uint8_t)rnd(6),
		};
		return sizeof(p->iotlb);
	case PD_VHOST_SIZE_LOG:
		p->log = (struct pd_vhost_log){rarely(8) ? any_number() : 4096,
					       rarely(8) ? any_number() : 0};
		return rarely(8) ? 8 : sizeof(p->log);
	case PD_VHOST_SIZE_KEPT:
		p->inflight = any_kept();
		return one_in(4) ? offsetof(struct pd_vhost_inflight_desc, padding)
				 : sizeof(p->inflight);
	default: /* numbers of 2, 4 or 8 bytes, as many as there may be */
		for (uint32_t n = 1 + rnd(6); n; n--) {
			uint64_t number = any_number();

			i = one_in(3) ? 2 << rnd(2) : 8;
			memcpy(p->bytes + bytes, &number, i);
			bytes += i;
		}
		return one_in(2) ? 8u << rnd(3) : bytes;
	}
}

void send_message(int sock, uint32_t request, uint32_t flags, const union pd_vhost_payload *p,
		  uint32_t size, const int *fds, unsigned n_fds)
{
	struct {
		struct pd_vhost_header hdr;
		union pd_vhost_payload payload;
	} PD_PACKED msg;

	if (sock < 0)
		return;
	side->messages++;
	if (rarely(100))
		request = rnd(one_in(2) ? 64 : UINT32_MAX);
	if (rarely(100))
		flags ^= BIT(rnd(32));
	msg.hdr = (struct pd_vhost_header){request, flags | PD_VHOST_VERSION, size};
	msg.payload = *p;
	if (rarely(60))
		msg.hdr.size = rnd(one_in(2) ? 600 : UINT32_MAX);
	if (rarely(60))
		size = rnd(sizeof(msg.payload));
	send_bytes(sock, &msg, sizeof(msg.hdr) + size, fds, n_fds);
	if (one_in(4)) /* else it is read with the next ones */
		turn();
}

bool read_message(int sock, uint32_t reply, struct pd_vhost_header *hdr, union pd_vhost_payload *p,
		  int *fd)
{
	union {
		struct cmsghdr c;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {hdr, sizeof(*hdr)};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control)};

	*fd = -1;
	memset(p, 0, sizeof(*p));
	if (sock < 0 || recvmsg(sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof(*hdr))
		return false;
	MUST(hdr->request && hdr->size <= sizeof(*p) && !(mh.msg_flags & MSG_CTRUNC));
	MUST((hdr->flags & ~PD_VHOST_NEED_REPLY) == (PD_VHOST_VERSION | reply));
	if (hdr->size)
		MUST(recv(sock, p, hdr->size, MSG_DONTWAIT) == (ssize_t)hdr->size);
	if (CMSG_FIRSTHDR(&mh))
		memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&mh)), sizeof(*fd));
	return true;
}

void send_request(uint32_t request)
{
	const struct pd_vhost_kind *kind = &pd_vhost_kinds[request];
	union pd_vhost_payload p = {0};
	uint32_t bytes = any_payload(request, kind->size, &p);
	int fds[256];
	unsigned n_fds;

	any_fds(kind, &p, fds, &n_fds);
	if (request == PD_VHOST_SET_VRING_NUM)
		peer.num[p.state.index % RINGS_MAX] = p.state.num;
	if (request == PD_VHOST_SET_FEATURES) {
		peer.packed = p.u64 >> VIRTIO_F_RING_PACKED & 1;
		peer.taken = p.u64;
	}
	send_message(peer.sock, request, one_in(3) ? PD_VHOST_NEED_REPLY : 0, &p, bytes, fds,
		     n_fds);
}
