/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vhost-user connections with a random peer, from the first message to the end: both roles.
 *
 * A run is one role (backend.c, frontend.c and all below them, on lanes of their own but without the glue of vhost.c) and a peer at
 * the other end of a socket pair. It sends the protocol's messages, sensible ones mostly, in any order, whole or in pieces, with
 * descriptors of any kind; writes to the rings; cuts its memory short; reads its answers or does not; goes and comes again. Between
 * its messages the data path is called. What a message looks like is taken from the protocol's table (wire.h), so that one that
 * becomes known there is sent from then on.
 *
 * After each run no descriptor and no mapping is left that was not there before it.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "base/log.h"
#include "fuzz.h"
#include "transport/vhost/backend.h"
#include "transport/vhost/frontend.h"
#include "vlib/buffer.h"

#define GPA 0x100000ull
#define UVA 0x7f0000000000ull
#define MEM_BYTES (64u << 10)
#define RING_BYTES \
	0x2000u /* between two rings: descriptors, available ring at 0x800, used ring at 0x1000 */
#define RINGS_MAX 4u
#define BUFFERS_AT (RINGS_MAX * RING_BYTES)
#define STEPS_MAX 40
#define FDS_LOOKED_AT 256
#define MEMORY_NAME "fuzz-memory"
#define AREA_NAME "palladium-rings" /* vhost/area.c */

static const char *const kinds[] = {
	"back-end, sidecars",  "back-end, virtio",  "back-end, two pairs",
	"front-end, sidecars", "front-end, virtio", "front-end, two pairs",
};
#define KINDS PD_ARRAY_SIZE(kinds)

/* A kind's role, header and pairs of queues. */
static enum pd_conf_side kind_role(unsigned kind)
{
	return kind < 3 ? PD_CONF_BACKEND : PD_CONF_FRONTEND;
}
static enum pd_conf_dialect kind_dialect(unsigned kind)
{
	return kind % 3 ? PD_CONF_DIALECT_VIRTIO : PD_CONF_DIALECT_AVIP;
}
static uint32_t kind_queues(unsigned kind)
{
	return kind % 3 == 2 ? 2 : 1;
}

/* The role of each kind; the structure is new for each run, the lanes stay. */
static struct side {
	struct pd_port_config config;
	struct pd_vhost_role_base *role;
	struct pd_vhost_lane *lanes;
	struct pd_progress_work broken;
	bool is_up;
	unsigned long runs, ups, messages;
} sides[KINDS];
static struct side *side;

/* Files that the peer may send. */
enum pool { MEMORY, SHORT_MEMORY, EVENT, BLOCKING_EVENT, PIPE, SOCKET, FOLDER, NOTHING, POOL };
static int pool[POOL], pipe_end, socket_end;
static int statm;       /* /proc/self/statm */
static uint8_t *memory; /* MEMORY, mapped */

static struct {
	int sock;                   /* -1: the peer is gone */
	bool cut;                   /* MEMORY is shorter than it was */
	uint32_t offset[RINGS_MAX]; /* in each ring: descriptors so far */
	uint32_t num[RINGS_MAX];
	bool packed;
	int channel; /* as back-end: where it may ask, -1: nowhere */
	/* The rings' memory as it was told, mapped. */
	uint8_t *area;
	uint64_t area_bytes;
	uint64_t features;
	/* As front-end: what it was offered, once it has asked. */
	uint64_t offered, offered_protocol;
} peer;

/* --- descriptors and mappings that are left -------------------------------------------------- */

static uint8_t open_before[FDS_LOOKED_AT];

/* Which descriptors are open, one byte each. */
static void look_at_fds(uint8_t *is_open)
{
	static struct pollfd all[FDS_LOOKED_AT];

	for (int i = 0; i < FDS_LOOKED_AT; i++)
		all[i] = (struct pollfd){.fd = i};
	MUST(poll(all, FDS_LOOKED_AT, 0) >= 0);
	for (int i = 0; i < FDS_LOOKED_AT; i++)
		is_open[i] = !(all[i].revents & POLLNVAL);
}

/* How many mappings there are of files whose path has `name` in it. */
static unsigned mappings_of(const char *name)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned n = 0;

	MUST(maps);
	while (fgets(line, sizeof(line), maps))
		n += !!strstr(line, name);
	fclose(maps);
	return n;
}

static void nothing_is_left(void)
{
	static char size_before[32];
	uint8_t is_open[FDS_LOOKED_AT];
	char size[32] = "";

	look_at_fds(is_open);
	MUST(!memcmp(is_open, open_before, sizeof(is_open)));
	/* The size of the whole first, since it is read in no time. */
	MUST(pread(statm, size, sizeof(size) - 1, 0) > 0);
	size[strcspn(size, " ")] = 0;
	if (!strcmp(size, size_before))
		return;
	memcpy(size_before, size, sizeof(size));
	MUST(mappings_of(MEMORY_NAME) == 1); /* our own */
	MUST(!mappings_of(AREA_NAME));
}

/* --- the library's side ---------------------------------------------------------------------- */

static void role_up(struct pd_vhost_role_base *role)
{
	(void)role;
	side->is_up = true;
	side->ups++;
}

static void role_stopped(struct pd_vhost_role_base *role, const char *reason)
{
	MUST(reason && *reason && side->is_up);
	side->is_up = false;
	for (unsigned q = 0; q < role->n_lanes; q++)
		MUST(!role->lanes[q].lane.side[PD_RX].up || !role->lanes[q].lane.side[PD_TX].up);
}

static void role_lost(struct pd_vhost_role_base *role, const char *reason, bool fault)
{
	(void)fault;
	MUST(reason && *reason);
	side->is_up = false;
	for (unsigned q = 0; q < role->n_lanes; q++)
		for (int dir = 0; dir < PD_DIRS; dir++)
			MUST(!role->lanes[q].lane.side[dir].up);
}

static void role_broken(struct pd_progress_work *work)
{
	struct side *s = pd_container_of(work, struct side, broken);

	if (s->role)
		s->role->ops->broken(s->role);
}

static void turn(void)
{
	for (int i = 0; i < 8 && pd_progress_run_once(0) > 0; i++)
		;
}

/* Where what was read goes, so that it is read. */
static volatile uint8_t sink;

/* Take frames, and read them to their last byte. */
static void receive(struct pd_lane *lane)
{
	struct pd_buffer *bufs[32];
	int n = lane->ops->rx(lane, bufs, PD_ARRAY_SIZE(bufs));

	MUST(n >= 0 || n == -ENETDOWN);
	for (int i = 0; i < n; i++) {
		for (const struct pd_buffer *b = bufs[i];; b = pd_buffer_get(b->next)) {
			for (uint32_t at = 0; at < b->len; at++)
				sink ^= b->data[at];
			if (b->next == PD_BUFFER_NONE)
				break;
		}
	}
	if (n > 0)
		lane->ops->rx_done(lane, rnd((uint32_t)n + 1));
}

/* Send one frame. */
static void transmit(struct pd_lane *lane)
{
	static uint8_t frame[2048];
	struct pd_buffer *b = pd_container_of(lane, struct pd_vhost_lane, lane)->headers[0];
	int n;

	b->data = frame;
	b->len = b->total_len = 14 + rnd(1500);
	b->flags = PD_BUFFER_EXTERNAL;
	b->next = PD_BUFFER_NONE;
	n = lane->ops->tx(lane, &b, 1);
	MUST(n == 0 || n == 1 || n == -EMSGSIZE || n == -ENETDOWN);
	lane->ops->tx_flush(lane);
}

/* The data path, on each side that is up. */
static void call_lanes(void)
{
	for (unsigned i = 0; i < 2 * side->role->n_lanes; i++) {
		struct pd_vhost_lane *lane = &side->role->lanes[i / 2];
		enum pd_dir dir = i & 1 ? PD_TX : PD_RX;

		pd_vhost_lane_lock(lane, dir);
		if (lane->lane.side[dir].up) {
			uint32_t position = lane->lane.ops->position(&lane->lane, dir);

			(dir == PD_RX ? receive : transmit)(&lane->lane);
			if (one_in(2))
				lane->lane.ops->arm(&lane->lane, dir, position, 1);
			else
				lane->lane.ops->disarm(&lane->lane, dir);
			lane->lane.ops->drain(&lane->lane, dir);
		}
		pd_vhost_lane_unlock(lane, dir);
	}
	turn();
}

/* --- what the peer sends --------------------------------------------------------------------- */

static void peer_gone(void)
{
	if (peer.area)
		munmap(peer.area, peer.area_bytes);
	peer.area = NULL;
	if (peer.channel >= 0)
		close(peer.channel);
	if (peer.sock >= 0)
		close(peer.sock);
	peer.sock = peer.channel = -1;
}

static void peer_comes(void)
{
	int pair[2];

	peer_gone();
	turn();
	MUST(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	peer.sock = pair[0];
	memset(peer.offset, 0, sizeof(peer.offset));
	if (pd_vhost_conn_is_open(side->config.role == PD_CONF_BACKEND
					  ? &((struct pd_vhost_backend *)side->role)->conn
					  : &((struct pd_vhost_frontend *)side->role)->conn))
		close(pair[1]); /* it has not noticed yet that the last one went */
	else
		MUST(!side->role->ops->connected(side->role, pair[1]));
	turn();
}

/* Send bytes with descriptors; in two pieces at times. The end of the connection is no matter. */
static void send_bytes(int sock, const void *bytes, size_t n, const int *fds, unsigned n_fds)
{
	union {
		struct cmsghdr c;
		char bytes[CMSG_SPACE(256 * sizeof(int))];
	} control;
	size_t first = rarely(16) && n > 1 ? 1 + rnd((uint32_t)n - 1) : n;
	struct iovec iov = {(void *)(uintptr_t)bytes, first};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n_fds) {
		control.c.cmsg_level = SOL_SOCKET;
		control.c.cmsg_type = SCM_RIGHTS;
		control.c.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.c), fds, n_fds * sizeof(int));
		mh.msg_control = &control;
		mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	if (sendmsg(sock, &mh, MSG_NOSIGNAL) != (ssize_t)first || first == n)
		return;
	turn();
	if (rarely(4)) /* the rest never comes, or belongs to something else */
		return;
	if (send(sock, (const char *)bytes + first, n - first, MSG_NOSIGNAL) < 0)
		peer_gone();
}

/* A file of the pool; `usual` mostly. */
static int any_file(enum pool usual)
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
		*n = rnd(2);
		break;
	default:
		usual = kind->size == PD_VHOST_SIZE_NONE ? SOCKET : MEMORY;
		*n = 1;
	}
	if (rarely(30))
		*n = (unsigned[]){0, 1, 2, 8, 9, 253}[rnd(6)];
	for (unsigned i = 0; i < *n; i++)
		fds[i] = any_file(usual);
}

/* A place in the peer's memory, or somewhere. */
static uint64_t any_address(uint64_t base)
{
	if (rarely(30))
		return one_in(2) ? UINT64_MAX - rnd(5000) : rnd64();
	return base + (rarely(8) ? rnd(MEM_BYTES + 16) : rnd(16) * 0x1000);
}

/* A number that means something to somebody. */
static uint64_t any_number(void)
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

static uint64_t any_features(void)
{
	uint64_t features = BIT(VIRTIO_F_VERSION_1) | BIT(PD_VHOST_F_PROTOCOL_FEATURES);

	if (one_in(2))
		features |= BIT(VIRTIO_F_RING_PACKED);
	if (one_in(3))
		features |= BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_RING_F_EVENT_IDX);
	if (one_in(4))
		features |= BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_F_IN_ORDER);
	if (one_in(4))
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

static uint64_t any_u64(uint32_t request)
{
	switch (request) {
	case PD_VHOST_GET_FEATURES:
	case PD_VHOST_SET_FEATURES:
		return any_features();
	case PD_VHOST_GET_PROTOCOL_FEATURES:
	case PD_VHOST_SET_PROTOCOL_FEATURES:
		return any_of(one_in(2) ? BIT(PD_VHOST_PF_REPLY_ACK) | BIT(rnd(17)) : rnd(1 << 20),
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

/* The payload of a message of this size. Returns its bytes. */
static uint32_t any_payload(uint32_t request, enum pd_vhost_size size, union pd_vhost_payload *p)
{
	uint32_t i, bytes = 0;

	switch (size) {
	case PD_VHOST_SIZE_NONE:
		return 0;
	case PD_VHOST_SIZE_U64:
		p->u64 = any_u64(request);
		return sizeof(p->u64);
	case PD_VHOST_SIZE_STATE:
		p->state = (struct pd_vhost_vring_state){any_ring(), rnd(3)};
		if (request == PD_VHOST_SET_VRING_NUM)
			p->state.num = any_size();
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
			.log = GPA + rnd(MEM_BYTES),
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
	default: /* numbers of 2, 4 or 8 bytes, as many as there may be */
		for (uint32_t n = 1 + rnd(6); n; n--) {
			uint64_t number = any_number();

			i = one_in(3) ? 2 << rnd(2) : 8;
			memcpy(p->bytes + bytes, &number, i);
			bytes += i;
		}
		return size == PD_VHOST_SIZE_LOG ? 16 : one_in(2) ? 8u << rnd(3) : bytes;
	}
}

/* One message, as it should be mostly. */
static void send_message(int sock, uint32_t request, uint32_t flags,
			 const union pd_vhost_payload *p, uint32_t size, const int *fds,
			 unsigned n_fds)
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
	if (!one_in(4))
		turn();
}

static void send_request(uint32_t request)
{
	const struct pd_vhost_kind *kind = &pd_vhost_kinds[request];
	union pd_vhost_payload p = {0};
	uint32_t bytes = any_payload(request, kind->size, &p);
	int fds[256];
	unsigned n_fds;

	any_fds(kind, &p, fds, &n_fds);
	if (request == PD_VHOST_SET_VRING_NUM)
		peer.num[p.state.index % RINGS_MAX] = p.state.num;
	if (request == PD_VHOST_SET_FEATURES)
		peer.packed = p.u64 >> VIRTIO_F_RING_PACKED & 1;
	send_message(peer.sock, request, one_in(3) ? PD_VHOST_NEED_REPLY : 0, &p, bytes, fds,
		     n_fds);
}

/* --- as a front-end -------------------------------------------------------------------------- */

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

static void front_end_step(void)
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

/* --- as a back-end --------------------------------------------------------------------------- */

/* Map the memory that a table speaks of. */
static void map_area(const struct pd_vhost_memory *m, int fd)
{
	struct stat st;

	if (peer.area || fstat(fd, &st))
		return;
	peer.area_bytes = (uint64_t)st.st_size;
	peer.area = mmap(NULL, peer.area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(peer.area != MAP_FAILED && m->n_regions == 1);
}

/* Answer one request: rightly mostly. */
static void answer(const struct pd_vhost_header *hdr, const union pd_vhost_payload *asked)
{
	const struct pd_vhost_kind *kind = &pd_vhost_kinds[hdr->request];
	union pd_vhost_payload p = {0};
	uint32_t bytes = sizeof(p.u64);
	int fd = -1;

	if (kind->answer == PD_VHOST_ANSWER_NONE && !(hdr->flags & PD_VHOST_NEED_REPLY))
		return;
	if (rarely(30)) /* not now, or never */
		return;
	if (kind->answer == PD_VHOST_ANSWER_NONE) {
		p.u64 = rarely(20) ? rnd(3) : 0;
	} else if (kind->answer == PD_VHOST_ANSWER_U64) {
		/* The features are what they were, or the rings would begin anew each time. */
		p.u64 = hdr->request == PD_VHOST_GET_FEATURES && !rarely(8) ? peer.features
									    : any_u64(hdr->request);
	} else {
		p = *asked;
		bytes = rarely(4) ? any_payload(hdr->request, PD_VHOST_SIZE_ANY, &p) : hdr->size;
		fd = kind->answer == PD_VHOST_ANSWER_OWN ? any_file(MEMORY) : -1;
	}
	if (rarely(60))
		fd = any_file(EVENT);
	send_message(peer.sock, hdr->request, PD_VHOST_REPLY, &p, bytes, &fd, fd >= 0);
}

/* Read one message and answer it. Returns false when none was there. */
static bool serve_one(void)
{
	union {
		struct cmsghdr c;
		char bytes[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct pd_vhost_header hdr;
	union pd_vhost_payload p = {0};
	struct iovec iov = {&hdr, sizeof(hdr)};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	int fd = -1;

	if (peer.sock < 0 ||
	    recvmsg(peer.sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof(hdr))
		return false;
	/* What the library sends is as it should be. */
	MUST(hdr.request && hdr.request < PD_VHOST_REQUESTS && hdr.size <= sizeof(p));
	MUST((hdr.flags & 7) == PD_VHOST_VERSION);
	if (hdr.size)
		MUST(recv(peer.sock, &p, hdr.size, MSG_DONTWAIT) == (ssize_t)hdr.size);
	c = CMSG_FIRSTHDR(&mh);
	if (c)
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	if (hdr.request == PD_VHOST_SET_MEM_TABLE)
		map_area(&p.memory, fd);
	if (hdr.request == PD_VHOST_SET_BACKEND_REQ_FD && peer.channel < 0)
		peer.channel = fd;
	else if (fd >= 0)
		close(fd);
	answer(&hdr, &p);
	return true;
}

/* Write to the front-end's rings. */
static void scribble(void)
{
	uint32_t room = (uint32_t)pd_min(peer.area_bytes, 0x40000ull);

	for (uint32_t n = 1 + rnd(8); peer.area && n; n--)
		peer.area[rnd(room)] = (uint8_t)rnd(one_in(2) ? 4 : 256);
}

/* Use everything that the front-end has made available on a split ring, rightly. */
static void use_ring(void)
{
	struct pd_vhost_frontend *fe = (struct pd_vhost_frontend *)side->role;
	const struct pd_vq_layout *layout = &fe->ring[rnd(2 * side->config.queues)].layout;
	struct vring_used *used = layout->used;
	struct vring_avail *avail = layout->avail;

	if (pd_vq_is_packed(fe->features) || !layout->size)
		return;
	for (uint32_t n = rnd(8); n && used->idx != avail->idx; n--) {
		uint32_t at = used->idx & (layout->size - 1);

		used->ring[at].id = avail->ring[at];
		used->ring[at].len = layout->receive ? layout->hdr_bytes + rnd(200) : 0;
		used->idx++;
	}
}

/* Ask for something on the channel, and take what was answered to an earlier question. */
static void ask(void)
{
	union pd_vhost_payload p = {0};
	uint32_t request =
		rarely(8) ? rnd(PD_VHOST_BACKEND_REQUESTS + 1) : PD_VHOST_BACKEND_IOTLB_MSG;
	uint32_t bytes = any_payload(0, PD_VHOST_SIZE_IOTLB, &p);
	int fd = any_file(EVENT);
	char answers[600];

	if (request != PD_VHOST_BACKEND_IOTLB_MSG)
		bytes = any_payload(0, PD_VHOST_SIZE_ANY, &p);
	send_message(peer.channel, request, one_in(2) ? PD_VHOST_NEED_REPLY : 0, &p, bytes, &fd,
		     rarely(8));
	if (!one_in(8) && peer.channel >= 0 &&
	    recv(peer.channel, answers, sizeof(answers), MSG_DONTWAIT) < 0)
		MUST(errno == EAGAIN || errno == ECONNRESET);
}

static void back_end_step(void)
{
	switch (rnd(16)) {
	case 5:
		ask();
		break;
	case 0:
		if (one_in(3))
			peer_comes();
		break;
	case 1:
		scribble();
		call_lanes();
		break;
	case 2:
	case 3:
		use_ring();
		call_lanes();
		break;
	case 4: /* nobody asked */
		if (rarely(2))
			send_request(1 + rnd(PD_VHOST_REQUESTS - 1));
		break;
	default:
		for (int i = 0; i < 40 && serve_one(); i++)
			;
	}
	turn();
}

/* --- the fuzzer ------------------------------------------------------------------------------ */

static void role_make(void)
{
	const struct pd_vhost_role_ops *ops = side->config.role == PD_CONF_BACKEND
						      ? &pd_vhost_backend_ops
						      : &pd_vhost_frontend_ops;

	side->role = calloc(1, ops->bytes);
	MUST(side->role);
	*side->role = (struct pd_vhost_role_base){
		.ops = ops,
		.config = &side->config,
		.name = "fuzz",
		.n_lanes = side->config.queues,
		.lanes = side->lanes,
		.up = role_up,
		.stopped = role_stopped,
		.lost = role_lost,
	};
	side->is_up = false;
	MUST(!ops->init(side->role));
}

static void run(unsigned kind)
{
	uint64_t count;

	side = &sides[kind];
	side->runs++;
	look_at_fds(open_before);
	any_calm();
	memset(memory, 0, MEM_BYTES);
	memset(&peer, 0, sizeof(peer));
	peer.sock = peer.channel = -1;
	peer.features = any_features() | BIT(PD_VHOST_F_PROTOCOL_FEATURES);
	side->config.format = (enum pd_conf_format)rnd(3);
	side->config.mergeable = one_in(2);
	side->config.iommu = one_in(2);
	side->config.offloads = (enum pd_conf_offloads)rnd(3);
	role_make();
	peer_comes();
	for (uint32_t n = 1 + rnd(STEPS_MAX); n; n--)
		(side->config.role == PD_CONF_BACKEND ? front_end_step : back_end_step)();
	/* Abandoned, a front-end does not wait for frames that it sent. */
	side->role->ops->fini(side->role, side->config.role == PD_CONF_FRONTEND || one_in(2));
	free(side->role);
	side->role = NULL;
	peer_gone();
	turn();
	if (peer.cut)
		MUST(!ftruncate(pool[MEMORY], MEM_BYTES));
	if (read(pool[EVENT], &count, sizeof(count)) < 0)
		MUST(errno == EAGAIN);
	nothing_is_left();
}

/* The lanes of a kind, as a port would have them. */
static void side_make(unsigned k)
{
	struct side *s = &sides[k];
	struct pd_port *port = &pd_ports[k];
	enum pd_vhost_role role =
		kind_role(k) == PD_CONF_BACKEND ? PD_VHOST_DEVICE : PD_VHOST_DRIVER;
	enum pd_vhost_dialect dialect = (enum pd_vhost_dialect)kind_dialect(k);

	s->config = (struct pd_port_config){.role = kind_role(k),
					    .dialect = kind_dialect(k),
					    .queues = kind_queues(k),
					    .mtu = 1500,
					    .ring = 32,
					    .in_order = true};
	s->broken.fn = role_broken;
	s->lanes = aligned_alloc(PD_CACHE_LINE, s->config.queues * sizeof(*s->lanes));
	MUST(s->lanes);
	memset(s->lanes, 0, s->config.queues * sizeof(*s->lanes));
	snprintf(port->name, sizeof(port->name), "pd%u", k);
	port->n_lanes = s->config.queues;
	port->index = (uint16_t)k;
	pd_port_lanes_init(port);
	for (uint16_t q = 0; q < s->config.queues; q++) {
		MUST(!pd_vhost_lane_init(&s->lanes[q], role, dialect, &s->broken));
		pd_port_lane_init(port, &s->lanes[q].lane, pd_vhost_lane_ops(role, dialect, false),
				  q);
	}
}

/* The files, the lanes, and what the library makes at its first connection. */
static void prepare(void)
{
	int two[2];

	pd_log_set_level(PD_LOG_NONE);
	pool[MEMORY] = memfd_create(MEMORY_NAME, MFD_CLOEXEC);
	pool[SHORT_MEMORY] = memfd_create(MEMORY_NAME, MFD_CLOEXEC);
	MUST(!ftruncate(pool[MEMORY], MEM_BYTES) && !ftruncate(pool[SHORT_MEMORY], 4096));
	memory = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, pool[MEMORY], 0);
	MUST(memory != MAP_FAILED);
	pool[EVENT] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pool[BLOCKING_EVENT] = eventfd(0, EFD_CLOEXEC);
	MUST(!pipe2(two, O_CLOEXEC | O_NONBLOCK));
	pool[PIPE] = two[1];
	pipe_end = two[0];
	MUST(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, two));
	pool[SOCKET] = two[1];
	socket_end = two[0];
	pool[FOLDER] = open("/", O_RDONLY | O_CLOEXEC);
	pool[NOTHING] = open("/dev/null", O_RDWR | O_CLOEXEC);
	statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	pd_progress_set_manual(true);
	for (unsigned k = 0; k < KINDS; k++)
		side_make(k);
	side = &sides[0];
	peer.sock = peer.channel = -1;
	role_make();
	peer_comes();
	side->role->ops->fini(side->role, false);
	free(side->role);
	side->role = NULL;
	peer_gone();
}

static void summary(void)
{
	for (unsigned k = 0; k < KINDS; k++)
		printf("# %s: %lu messages, up %lu times in %lu runs\n", kinds[k],
		       sides[k].messages, sides[k].ups, sides[k].runs);
}

const struct fuzz_target fuzz_target = {
	.name = "vhost",
	.kinds = kinds,
	.n_kinds = KINDS,
	.seeds = 1000,
	.prepare = prepare,
	.run = run,
	.summary = summary,
};
