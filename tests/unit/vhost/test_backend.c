/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end role against a scripted front-end: the sequences that QEMU and DPDK send, every
 * refusal, and that no descriptor is left behind.
 */
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "counters/counters.h"
#include "peer.h"
#include "transport/vhost/role.h"

#define GPA 0x100000ull
#define UVA 0x7f0000000000ull
#define SIZE (1u << 20)
#define RING 64
#define BIT(n) (1ull << (n))

static struct pd_port *port;
static int sock, mem_fd, kick[2], call[2];
static uint8_t *mem;
static int fds_before;

#define PACKED BIT(VIRTIO_F_RING_PACKED)

/* Where ring `i` stands in the memory. */
static struct vring_desc *desc_of(int i)
{
	return (struct vring_desc *)(mem + 0x10000 * i);
}
static struct vring_avail *avail_of(int i)
{
	return (struct vring_avail *)(mem + 0x10000 * i + 0x4000);
}
static struct vring_used *used_of(int i)
{
	return (struct vring_used *)(mem + 0x10000 * i + 0x8000);
}

static int setup(void **state)
{
	(void)state;
	peer_dir_make();
	peer_ports(1, PD_CONF_MODE_LISTEN, PD_CONF_BACKEND, 1);
	port = &pd_ports[0];
	peer_config.ports[0].dialect = PD_CONF_DIALECT_VIRTIO;
	assert_int_equal(pd_port_open(port), 0);
	turn();
	fds_before = fd_count();
	mem_fd = memfd_create("peer", MFD_CLOEXEC);
	assert_int_equal(ftruncate(mem_fd, SIZE), 0);
	mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, mem_fd, 0);
	for (int i = 0; i < 2; i++) {
		kick[i] = eventfd(0, EFD_CLOEXEC);
		call[i] = eventfd(0, EFD_CLOEXEC);
	}
	sock = peer_connect(peer_path);
	turn();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(sock);
	turn();
	munmap(mem, SIZE);
	close(mem_fd);
	for (int i = 0; i < 2; i++) {
		close(kick[i]);
		close(call[i]);
	}
	assert_int_equal(fd_count(), fds_before);
	pd_ports_close_all();
	pd_progress_stop();
	peer_dir_remove();
	return 0;
}

/* A table of one region, with an answer if `flags` asks for it. */
static void send_memory(struct pd_vhost_region region, uint32_t flags, int fd)
{
	struct pd_vhost_memory m = {.n_regions = 1, .regions = {region}};

	peer_send(sock, PD_VHOST_SET_MEM_TABLE, flags, &m, 40, &fd, 1);
}

static const struct pd_vhost_region whole = {GPA, SIZE, UVA, 0};

static void send_addr(uint32_t i, uint64_t at)
{
	struct pd_vhost_vring_addr a = {
		.index = i, .desc = at, .avail = at + 0x4000, .used = at + 0x8000};

	peer_send(sock, PD_VHOST_SET_VRING_ADDR, 0, &a, sizeof(a), NULL, 0);
}

static void send_ring(uint32_t i, uint32_t base)
{
	peer_state(sock, PD_VHOST_SET_VRING_NUM, i, RING);
	peer_state(sock, PD_VHOST_SET_VRING_BASE, i, base);
	send_addr(i, UVA + 0x10000 * i);
	peer_fd(sock, PD_VHOST_SET_VRING_KICK, i, kick[i]);
}

/* Features and protocol features, as every front-end begins. */
static void negotiate(void)
{
	uint64_t offered = peer_ask(sock, PD_VHOST_GET_FEATURES) & ~PACKED;
	uint64_t protocol = peer_ask(sock, PD_VHOST_GET_PROTOCOL_FEATURES);

	assert_true(offered & BIT(PD_VHOST_F_PROTOCOL_FEATURES));
	assert_true(offered & BIT(VIRTIO_F_VERSION_1));
	assert_true(protocol & BIT(PD_VHOST_PF_REPLY_ACK));
	peer_u64(sock, PD_VHOST_SET_PROTOCOL_FEATURES, protocol);
	peer_u64(sock, PD_VHOST_SET_FEATURES, offered);
}

/* All of it, until the port is up. */
static void bring_up(void)
{
	negotiate();
	send_memory(whole, 0, mem_fd);
	for (uint32_t i = 0; i < 2; i++) {
		peer_state(sock, PD_VHOST_SET_VRING_ENABLE, i, 1);
		send_ring(i, 0);
		peer_fd(sock, PD_VHOST_SET_VRING_CALL, i, call[i]);
	}
	turn();
	assert_int_equal(port->state, PD_PORT_UP);
}

/* Frames that the port has to receive now. */
static int frames_there(void)
{
	struct pd_lane *lane = port->lanes[0];
	struct pd_buffer *bufs[RING];
	int n = 0;

	pd_lock(&lane->side[PD_RX].lock);
	if (lane->side[PD_RX].up) {
		n = lane->ops->rx(lane, bufs, RING);
		if (n > 0)
			lane->ops->rx_done(lane, (unsigned)n);
	}
	pd_unlock(&lane->side[PD_RX].lock);
	return n;
}

/* Put a frame of 60 bytes into the transmit ring. */
static void peer_transmit(void)
{
	struct vring_avail *avail = avail_of(1);
	uint16_t at = avail->idx % RING;

	desc_of(1)[at] = (struct vring_desc){GPA + 0x40000, 72, 0, 0};
	avail->ring[at] = at;
	__atomic_store_n(&avail->idx, (uint16_t)(avail->idx + 1), __ATOMIC_RELEASE);
}

/* --- sequences ------------------------------------------------------------------------------- */

/* QEMU 7.2: enables before features, kicks and calls twice, status around it all. */
static void as_qemu_starts_and_stops(void **state)
{
	uint64_t offered = peer_ask(sock, PD_VHOST_GET_FEATURES) & ~PACKED, num;
	uint64_t protocol = peer_ask(sock, PD_VHOST_GET_PROTOCOL_FEATURES);
	struct pd_vhost_vring_state base;
	struct pd_vhost_header hdr;

	(void)state;
	peer_u64(sock, PD_VHOST_SET_PROTOCOL_FEATURES, protocol);
	num = peer_ask(sock, PD_VHOST_GET_QUEUE_NUM);
	assert_int_equal(num, 1);
	peer_send(sock, PD_VHOST_SET_OWNER, 0, "", 0, NULL, 0);
	peer_ask(sock, PD_VHOST_GET_FEATURES);
	for (int i = 0; i < 2; i++) {
		peer_fd(sock, PD_VHOST_SET_VRING_KICK, (uint32_t)i, kick[i]);
		peer_fd(sock, PD_VHOST_SET_VRING_CALL, (uint32_t)i, call[i]);
	}
	for (uint32_t round = 0; round < 2; round++)
		for (uint32_t i = 0; i < 2; i++)
			peer_state(sock, PD_VHOST_SET_VRING_ENABLE, i, 1);
	turn();
	assert_int_not_equal(port->state, PD_PORT_UP);
	for (int round = 0; round < 3; round++) {
		peer_u64(sock, PD_VHOST_SET_FEATURES, offered);
		peer_ask(sock, PD_VHOST_GET_STATUS);
		peer_u64(sock, PD_VHOST_SET_STATUS, 8);
		send_memory(whole, PD_VHOST_NEED_REPLY, mem_fd);
		assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 0);
		for (uint32_t i = 0; i < 2; i++) {
			send_ring(i, 0);
			peer_fd(sock, PD_VHOST_SET_VRING_CALL, i, call[i]);
		}
		peer_u64(sock, PD_VHOST_SET_STATUS, 0xf);
		assert_int_equal(peer_ask(sock, PD_VHOST_GET_STATUS), 0xf);
		assert_int_equal(port->state, PD_PORT_UP);
		peer_transmit();
		assert_int_equal(frames_there(), 1);
		peer_u64(sock, PD_VHOST_SET_STATUS, 0);
		for (uint32_t i = 0; i < 2; i++) {
			peer_state(sock, PD_VHOST_GET_VRING_BASE, i, 0);
			assert_int_equal(peer_recv(sock, &hdr, &base, sizeof(base)), sizeof(base));
			assert_int_equal(base.index, i);
			assert_int_equal(base.num, i ? round + 1 : 0);
		}
		assert_int_equal(port->state, PD_PORT_DOWN);
	}
}

/* DPDK's virtio-user: calls before features, enables last; reconnecting it says no owner and 0. */
static void as_dpdk_starts_and_comes_back(void **state)
{
	(void)state;
	for (int round = 0; round < 3; round++) {
		uint64_t offered;

		if (!round)
			peer_send(sock, PD_VHOST_SET_OWNER, 0, "", 0, NULL, 0);
		offered = peer_ask(sock, PD_VHOST_GET_FEATURES) & ~PACKED;
		peer_ask(sock, PD_VHOST_GET_PROTOCOL_FEATURES);
		peer_u64(sock, PD_VHOST_SET_PROTOCOL_FEATURES,
			 BIT(PD_VHOST_PF_MQ) | BIT(PD_VHOST_PF_REPLY_ACK) |
				 BIT(PD_VHOST_PF_STATUS));
		for (int i = 0; i < 2; i++)
			peer_fd(sock, PD_VHOST_SET_VRING_CALL, (uint32_t)i, call[i]);
		peer_u64(sock, PD_VHOST_SET_FEATURES, offered & ~BIT(VIRTIO_RING_F_EVENT_IDX));
		peer_u64(sock, PD_VHOST_SET_STATUS, 11);
		send_memory(whole, 0, mem_fd);
		for (uint32_t i = 0; i < 2; i++)
			send_ring(i, 0);
		/* Frames that wait while the ring is started but not enabled yet are kept. */
		peer_transmit();
		turn();
		assert_int_equal(used_of(1)->idx, round);
		for (uint32_t i = 0; i < 2; i++)
			peer_state(sock, PD_VHOST_SET_VRING_ENABLE, i, 1);
		peer_u64(sock, PD_VHOST_SET_STATUS, 15);
		turn();
		assert_int_equal(port->state, PD_PORT_UP);
		/* Base 0, but used->idx says how far we were. */
		assert_int_equal(frames_there(), 1);
		assert_int_equal(used_of(1)->idx, round + 1);
		close(sock);
		turn();
		assert_int_equal(port->state, PD_PORT_DOWN);
		sock = peer_connect(peer_path);
		turn();
	}
}

/* Without protocol features a ring is enabled from the start. */
static void an_old_peer_without_protocol_features(void **state)
{
	uint64_t offered = peer_ask(sock, PD_VHOST_GET_FEATURES) & ~PACKED;

	(void)state;
	peer_u64(sock, PD_VHOST_SET_FEATURES, offered & ~BIT(PD_VHOST_F_PROTOCOL_FEATURES));
	send_memory(whole, 0, mem_fd);
	send_ring(0, 0);
	send_ring(1, 0);
	turn();
	assert_int_equal(port->state, PD_PORT_UP);
}

static void call_may_be_swapped_while_running_and_is_rung(void **state)
{
	int other = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t count = 0;

	(void)state;
	bring_up();
	peer_fd(sock, PD_VHOST_SET_VRING_CALL, 1, other);
	turn();
	assert_int_equal(read(other, &count, sizeof(count)), sizeof(count));
	assert_int_equal(count, 1);
	close(other);
	peer_fd(sock, PD_VHOST_SET_VRING_CALL, 1, -1);
	peer_fd(sock, PD_VHOST_SET_VRING_KICK, 1, -1);
	turn();
	assert_int_equal(port->state, PD_PORT_UP);
}

static void memory_may_be_replaced_while_running(void **state)
{
	struct pd_vhost_region moved = {GPA, SIZE / 2, UVA, 0};

	(void)state;
	bring_up();
	peer_transmit();
	send_memory(moved, PD_VHOST_NEED_REPLY, mem_fd);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 0);
	assert_int_equal(port->state, PD_PORT_UP);
	assert_int_equal(frames_there(), 1);
	/* A table without the rings: they cannot run, and the peer is told. */
	moved = (struct pd_vhost_region){GPA + SIZE / 2, SIZE / 2, UVA + SIZE / 2, SIZE / 2};
	send_memory(moved, PD_VHOST_NEED_REPLY, mem_fd);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
}

static void memory_slots_come_and_go(void **state)
{
	struct pd_vhost_single_region r = {.region = whole};

	(void)state;
	negotiate();
	assert_int_equal(peer_ask(sock, PD_VHOST_GET_MAX_MEM_SLOTS), 509);
	peer_send(sock, PD_VHOST_ADD_MEM_REG, 8, &r, sizeof(r), &mem_fd, 1);
	assert_int_equal(peer_reply(sock, PD_VHOST_ADD_MEM_REG), 0);
	peer_send(sock, PD_VHOST_ADD_MEM_REG, 8, &r, sizeof(r), &mem_fd, 1);
	assert_int_equal(peer_reply(sock, PD_VHOST_ADD_MEM_REG), 1);
	for (uint32_t i = 0; i < 2; i++) {
		peer_state(sock, PD_VHOST_SET_VRING_ENABLE, i, 1);
		send_ring(i, 0);
	}
	turn();
	assert_int_equal(port->state, PD_PORT_UP);
	r.region = (struct pd_vhost_region){GPA + SIZE, 4096, UVA + SIZE, 0};
	peer_send(sock, PD_VHOST_ADD_MEM_REG, 8, &r, sizeof(r), &mem_fd, 1);
	assert_int_equal(peer_reply(sock, PD_VHOST_ADD_MEM_REG), 0);
	peer_transmit();
	assert_int_equal(frames_there(), 1);
	peer_send(sock, PD_VHOST_REM_MEM_REG, 8, &r, sizeof(r), &mem_fd, 1);
	assert_int_equal(peer_reply(sock, PD_VHOST_REM_MEM_REG), 0);
	peer_send(sock, PD_VHOST_REM_MEM_REG, 8, &r, sizeof(r), NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_REM_MEM_REG), 1);
	assert_int_equal(port->state, PD_PORT_UP);
}

static void a_disabled_ring_discards(void **state)
{
	uint64_t one = 1;

	(void)state;
	bring_up();
	peer_transmit();
	peer_state(sock, PD_VHOST_SET_VRING_ENABLE, 1, 0);
	turn();
	assert_int_equal(used_of(1)->idx, 1);
	peer_transmit();
	peer_transmit();
	assert_int_equal(write(kick[1], &one, sizeof(one)), sizeof(one));
	turn();
	assert_int_equal(used_of(1)->idx, 3);
	assert_int_equal(frames_there(), 0);
	assert_int_equal(port->state, PD_PORT_DOWN);
	peer_state(sock, PD_VHOST_SET_VRING_ENABLE, 1, 1);
	peer_transmit();
	turn();
	assert_int_equal(port->state, PD_PORT_UP);
	assert_int_equal(frames_there(), 1);
}

static void reset_device_begins_anew(void **state)
{
	(void)state;
	bring_up();
	peer_send(sock, PD_VHOST_RESET_DEVICE, 0, "", 0, NULL, 0);
	turn();
	assert_int_equal(port->state, PD_PORT_DOWN);
	bring_up();
}

static void a_broken_ring_ends_the_connection(void **state)
{
	(void)state;
	bring_up();
	avail_of(1)->idx = RING + 1;
	frames_there();
	turn();
	assert_true(peer_closed(sock));
	assert_int_equal(port->state, PD_PORT_DOWN);
}

static int downs, too_early;

/* The port goes down: the rings are let go, and the peer cannot know of it yet. */
static void rings_go_before_the_socket(struct pd_port *which, enum pd_port_state state)
{
	struct pollfd p = {.fd = sock};

	if (state != PD_PORT_DOWN)
		return;
	downs++;
	too_early += which->lanes[0]->side[PD_RX].up || which->lanes[0]->side[PD_TX].up ||
		     poll(&p, 1, 0) != 0;
}

/* Who sees us hang up may use its memory for something else at once. */
static void who_sees_us_hang_up_has_its_memory(void **state)
{
	void (*before)(struct pd_port *, enum pd_port_state) = pd_port_on_state;

	(void)state;
	downs = too_early = 0;
	pd_port_on_state = rings_go_before_the_socket;
	for (int how = 0; how < 3; how++) {
		bring_up();
		if (how == 0) {
			shutdown(sock, SHUT_WR);
		} else if (how == 1) {
			avail_of(1)->idx = RING + 1;
			frames_there();
		} else {
			peer_state(sock, 4711, 0, 0);
		}
		assert_true(peer_closed(sock));
		assert_int_equal(downs, how + 1);
		close(sock);
		memset(mem, 0, SIZE);
		sock = peer_connect(peer_path);
		turn();
	}
	pd_port_on_state = before;
	assert_int_equal(too_early, 0);
}

/* Give the back-end a new channel. Returns our end of it. */
static int send_channel(void)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	peer_send(sock, PD_VHOST_SET_BACKEND_REQ_FD, 0, "", 0, &pair[1], 1);
	close(pair[1]);
	turn();
	return pair[0];
}

/* Answer everything that the back-end says on its channel. */
static void acknowledge(int channel)
{
	struct pd_vhost_vring_state told;
	struct pd_vhost_header hdr;
	uint64_t good = 0;

	for (turn(); recv(channel, &hdr, sizeof(hdr), MSG_DONTWAIT) == sizeof(hdr); turn()) {
		assert_int_equal(recv(channel, &told, sizeof(told), 0), sizeof(told));
		assert_int_equal(hdr.flags, PD_VHOST_VERSION | PD_VHOST_NEED_REPLY);
		peer_send(channel, hdr.request, PD_VHOST_REPLY, &good, sizeof(good), NULL, 0);
	}
}

/* It is not known yet to have been closed; the notification is made by the next. */
static void a_channel_that_breaks_while_a_notification_is_sent(void **state)
{
	struct pd_vhost_vring_state told;
	struct pd_vhost_header hdr;
	int channel;

	(void)state;
	peer_config.ports[0].inband = true;
	negotiate();
	channel = send_channel();
	send_memory(whole, 0, mem_fd);
	for (uint32_t i = 0; i < 2; i++) {
		send_ring(i, 0);
		peer_fd(sock, PD_VHOST_SET_VRING_CALL, i, -1);
		peer_state(sock, PD_VHOST_SET_VRING_ENABLE, i, 1);
	}
	acknowledge(channel);
	assert_int_equal(port->state, PD_PORT_UP);
	peer_transmit();
	assert_int_equal(frames_there(), 1);
	close(channel);
	turn();
	assert_false(peer_closed(sock));
	assert_int_equal(port->state, PD_PORT_UP);
	channel = send_channel();
	assert_int_equal(peer_recv(channel, &hdr, &told, sizeof(told)), sizeof(told));
	assert_int_equal(hdr.request, PD_VHOST_BACKEND_VRING_CALL);
	assert_int_equal(told.index, 1);
	close(channel);
}

/* --- refusals -------------------------------------------------------------------------------- */

struct bad_region {
	const char *name;
	struct pd_vhost_region region;
};

static const struct bad_region bad_regions[] = {
	{"size 0", {GPA, 0, UVA, 0}},
	{"longer than the file", {GPA, SIZE + 1, UVA, 0}},
	{"behind the file", {GPA, 4096, UVA, SIZE}},
	{"guest address wraps", {UINT64_MAX - 4095, SIZE, UVA, 0}},
	{"front-end address wraps", {GPA, SIZE, UINT64_MAX - 4095, 0}},
	{"file offset wraps", {GPA, SIZE, UVA, UINT64_MAX - 4095}},
	{"everything is all ones", {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}},
};

static void a_region_is_refused(void **state)
{
	const struct bad_region *bad = *state;

	negotiate();
	send_memory(bad->region, PD_VHOST_NEED_REPLY, mem_fd);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	/* And without an answer asked for, the connection ends. */
	send_memory(bad->region, 0, mem_fd);
	assert_true(peer_closed(sock));
}

static void regions_that_are_no_files_or_overlap(void **state)
{
	struct pd_vhost_memory m = {.n_regions = 2, .regions = {whole, whole}};
	int pipe_fds[2], fds[2] = {mem_fd, mem_fd};
	int read_only, strange, pair[2];
	char path[64];

	(void)state;
	negotiate();
	strange = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	assert_true(strange >= 0);
	send_memory(whole, PD_VHOST_NEED_REPLY, strange);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	close(strange);
	assert_non_null(strstr(port->ctr->last_error, "memory in a file of proc, not tmpfs"));
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	send_memory(whole, PD_VHOST_NEED_REPLY, pipe_fds[0]);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	send_memory(whole, PD_VHOST_NEED_REPLY, pair[0]);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	close(pair[0]);
	close(pair[1]);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", mem_fd);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(read_only >= 0);
	send_memory(whole, PD_VHOST_NEED_REPLY, read_only);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	close(read_only);
	for (int which = 0; which < 2; which++) {
		m.regions[1] = whole;
		if (which)
			m.regions[1].gpa += SIZE;
		else
			m.regions[1].uaddr += SIZE;
		peer_send(sock, PD_VHOST_SET_MEM_TABLE, 8, &m, 72, fds, 2);
		assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	}
	m.n_regions = 0;
	peer_send(sock, PD_VHOST_SET_MEM_TABLE, 8, &m, 8, NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
}

/* Files that hold nothing, of the largest size that is taken, and one byte of another. */
static void memory_has_a_bound(void **state)
{
	const uint64_t most = 32ull << 40;
	struct pd_vhost_memory m = {.n_regions = 2,
				    .regions = {whole, {1ull << 50, most, 1ull << 60, 0}}};
	int fds[2] = {mem_fd, memfd_create("nothing", MFD_CLOEXEC)};

	(void)state;
	negotiate();
	assert_int_equal(ftruncate(fds[1], (off_t)most), 0);
	peer_send(sock, PD_VHOST_SET_MEM_TABLE, 8, &m, 72, fds, 2);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_MEM_TABLE), 1);
	close(fds[1]);
}

/* A peer that asks and leaves has been refused nothing. */
static void who_leaves_before_the_answer_is_not_refused(void **state)
{
	(void)state;
	peer_send(sock, PD_VHOST_GET_FEATURES, 0, "", 0, NULL, 0);
	close(sock);
	sock = -1;
	turn();
	assert_int_equal(pd_ctr_get(port->ctr, PD_CTR_PORT_PROTOCOL_ERRORS), 0);
}

/* What the port says of what went wrong last. */
static void assert_last_error(const char *text)
{
	assert_string_equal(port->ctr->last_error, text);
}

/* Who is told by an answer that something is refused is not the only one who is told. */
static void what_is_refused_is_named(void **state)
{
	static const char refused[] =
		"SET_FEATURES refused: features that were not offered: 0x2000000";
	uint64_t features = BIT(25);
	char left[128];

	(void)state;
	negotiate();
	peer_send(sock, PD_VHOST_SET_FEATURES, PD_VHOST_NEED_REPLY, &features, sizeof(features),
		  NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 1);
	assert_last_error(refused);
	/* Other messages, and the end, are not in its way. */
	peer_ask(sock, PD_VHOST_GET_FEATURES);
	close(sock);
	turn();
	snprintf(left, sizeof(left), "%s, and the peer left", refused);
	assert_last_error(left);
	/* With the link up it is forgotten. */
	sock = peer_connect(peer_path);
	negotiate();
	peer_send(sock, PD_VHOST_SET_FEATURES, PD_VHOST_NEED_REPLY, &features, sizeof(features),
		  NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 1);
	bring_up();
	close(sock);
	sock = -1;
	turn();
	assert_last_error("the peer closed the connection");
	assert_int_equal(pd_ctr_get(port->ctr, PD_CTR_PORT_PROTOCOL_ERRORS), 0);
}

/* Rings that a message has left as they cannot be are that message's doing, not the next one's. */
static void the_message_that_did_it_is_named(void **state)
{
	static const char refused[] =
		"SET_VRING_KICK refused: ring 0: a part of the ring is misaligned";
	uint64_t ring = 0;

	(void)state;
	negotiate();
	send_memory(whole, 0, mem_fd);
	peer_state(sock, PD_VHOST_SET_VRING_ENABLE, 0, 1);
	peer_state(sock, PD_VHOST_SET_VRING_NUM, 0, RING);
	send_addr(0, UVA + 8);
	peer_send(sock, PD_VHOST_SET_VRING_KICK, PD_VHOST_NEED_REPLY, &ring, sizeof(ring), kick, 1);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_VRING_KICK), 1);
	assert_last_error(refused);
	/* Another refusal in between changes nothing in that. */
	ring = BIT(25);
	peer_send(sock, PD_VHOST_SET_FEATURES, PD_VHOST_NEED_REPLY, &ring, sizeof(ring), NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 1);
	peer_state(sock, PD_VHOST_SET_VRING_NUM, 1, RING);
	assert_true(peer_closed(sock));
	assert_last_error(refused);
	assert_string_equal(port->ctr->reason, refused);
}

/* A ring that only throws away what comes runs too: by the features that it was started with. */
static void features_stay_while_a_ring_discards(void **state)
{
	uint64_t offered = peer_ask(sock, PD_VHOST_GET_FEATURES) & ~PACKED;
	const uint64_t others[] = {offered & ~BIT(VIRTIO_RING_F_EVENT_IDX), offered | PACKED};
	uint64_t one = 1;

	(void)state;
	negotiate();
	send_memory(whole, 0, mem_fd);
	send_ring(1, 0);
	peer_state(sock, PD_VHOST_SET_VRING_ENABLE, 1, 0);
	for (unsigned i = 0; i < 2; i++) {
		peer_send(sock, PD_VHOST_SET_FEATURES, PD_VHOST_NEED_REPLY, &others[i], 8, NULL, 0);
		assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 1);
		peer_transmit();
		assert_int_equal(write(kick[1], &one, sizeof(one)), sizeof(one));
		turn();
		assert_int_equal(used_of(1)->idx, i + 1);
	}
	/* A migration may begin at any time, and what has stopped may have any. */
	offered |= BIT(VHOST_F_LOG_ALL);
	peer_send(sock, PD_VHOST_SET_FEATURES, PD_VHOST_NEED_REPLY, &offered, 8, NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 0);
	peer_state(sock, PD_VHOST_GET_VRING_BASE, 1, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_GET_VRING_BASE) >> 32, 2);
	peer_send(sock, PD_VHOST_SET_FEATURES, PD_VHOST_NEED_REPLY, &others[0], 8, NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 0);
}

/* The channel is gone, and the connection is not: that is what is told. */
static void a_channel_that_is_closed_when_something_is_to_be_asked(void **state)
{
	int channel;

	(void)state;
	close(sock);
	turn();
	pd_port_close(port);
	peer_config.ports[0].iommu = true;
	assert_int_equal(pd_port_open(port), 0);
	turn();
	sock = peer_connect(peer_path);
	negotiate();
	channel = send_channel();
	send_memory(whole, 0, mem_fd);
	peer_state(sock, PD_VHOST_SET_VRING_ENABLE, 0, 1);
	peer_state(sock, PD_VHOST_SET_VRING_NUM, 0, RING);
	send_addr(0, UVA);
	assert_false(peer_closed(sock));
	peer_fd(sock, PD_VHOST_SET_VRING_KICK, 0, kick[0]);
	close(channel);
	assert_true(peer_closed(sock));
	assert_last_error(
		"SET_VRING_KICK refused: a translation is needed, and the peer has closed "
		"the channel to ask for it");
	assert_int_equal(pd_ctr_get(port->ctr, PD_CTR_PORT_PROTOCOL_ERRORS), 1);
}

static void notification_descriptors_must_be_eventfds(void **state)
{
	int pipe_fds[2], pair[2];
	uint64_t ring = 0;

	(void)state;
	negotiate();
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	for (uint32_t r = PD_VHOST_SET_VRING_KICK; r <= PD_VHOST_SET_VRING_CALL; r++) {
		const int fds[] = {pipe_fds[0], pipe_fds[1], pair[0], mem_fd};

		for (unsigned i = 0; i < 4; i++) {
			peer_send(sock, r, 8, &ring, sizeof(ring), &fds[i], 1);
			assert_int_equal(peer_reply(sock, r), 1);
		}
	}
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close(pair[0]);
	close(pair[1]);
	/* A blocking eventfd becomes a non-blocking one. */
	peer_fd(sock, PD_VHOST_SET_VRING_CALL, 0, call[0]);
	turn();
	assert_true(fcntl(call[0], F_GETFL) & O_NONBLOCK);
}

/* One message with an answer asked for, refused; the connection lives. */
struct bad_message {
	const char *name;
	uint32_t request;
	uint32_t size;
	union {
		uint64_t u64;
		struct pd_vhost_vring_state state;
		struct pd_vhost_vring_addr addr;
	} payload;
};

static const struct bad_message bad_messages[] = {
	{"features not offered", PD_VHOST_SET_FEATURES, 8, {.u64 = BIT(25)}},
	{"protocol features not offered", PD_VHOST_SET_PROTOCOL_FEATURES, 8, {.u64 = BIT(9)}},
	{"ring size 0", PD_VHOST_SET_VRING_NUM, 8, {.state = {0, 0}}},
	{"ring size 1", PD_VHOST_SET_VRING_NUM, 8, {.state = {0, 1}}},
	{"ring size 65536", PD_VHOST_SET_VRING_NUM, 8, {.state = {0, 65536}}},
	{"ring size 100", PD_VHOST_SET_VRING_NUM, 8, {.state = {0, 100}}},
	{"ring 2", PD_VHOST_SET_VRING_NUM, 8, {.state = {2, 256}}},
	{"ring 2^32-1", PD_VHOST_SET_VRING_ENABLE, 8, {.state = {UINT32_MAX, 1}}},
	{"enable 2", PD_VHOST_SET_VRING_ENABLE, 8, {.state = {0, 2}}},
	{"base 65536", PD_VHOST_SET_VRING_BASE, 8, {.state = {0, 65536}}},
	{"addresses of ring 9", PD_VHOST_SET_VRING_ADDR, 40, {.addr = {.index = 9}}},
	{"call of ring 255", PD_VHOST_SET_VRING_CALL, 8, {.u64 = 0x1ff}},
	{"status of nine bits", PD_VHOST_SET_STATUS, 8, {.u64 = 256}},
	{"MTU 0", PD_VHOST_NET_SET_MTU, 8, {.u64 = 0}},
	{"RARP of nobody", PD_VHOST_SEND_RARP, 8, {.u64 = 0}},
	{"RARP of a group", PD_VHOST_SEND_RARP, 8, {.u64 = 1}},
	{"endianness, not offered", PD_VHOST_SET_VRING_ENDIAN, 8, {.state = {0, 1}}},
	{"a kick in band, not offered", PD_VHOST_VRING_KICK, 8, {.state = {0, 0}}},
};

static void a_message_is_refused(void **state)
{
	const struct bad_message *bad = *state;

	negotiate();
	peer_send(sock, bad->request, PD_VHOST_NEED_REPLY, &bad->payload, bad->size, NULL, 0);
	assert_int_equal(peer_reply(sock, bad->request), 1);
	assert_false(peer_closed(sock));
	bring_up();
	/* The same without asking for an answer. */
	peer_send(sock, bad->request, 0, &bad->payload, bad->size, NULL, 0);
	assert_true(peer_closed(sock));
	assert_int_equal(port->state, PD_PORT_DOWN);
}

static void rings_that_cannot_be(void **state)
{
	const uint64_t *at = *state;

	negotiate();
	send_memory(whole, 0, mem_fd);
	peer_state(sock, PD_VHOST_SET_VRING_ENABLE, 0, 1);
	peer_state(sock, PD_VHOST_SET_VRING_NUM, 0, RING);
	send_addr(0, *at);
	assert_false(peer_closed(sock));
	peer_fd(sock, PD_VHOST_SET_VRING_KICK, 0, kick[0]);
	assert_true(peer_closed(sock));
}

/*
 * A packed ring of 5, by hand: bases in both spellings, stopped and carried on in the second lap.
 */
static void packed_rings_start_and_stop(void **state)
{
	struct vring_packed_desc *d = (struct vring_packed_desc *)(void *)(mem + 0x10000);
	struct pd_vhost_vring_state base = {1, 0};

	(void)state;
	peer_u64(sock, PD_VHOST_SET_FEATURES,
		 BIT(VIRTIO_F_VERSION_1) | PACKED | BIT(PD_VHOST_F_PROTOCOL_FEATURES));
	send_memory(whole, 0, mem_fd);
	for (uint32_t i = 0; i < 2; i++) {
		peer_state(sock, PD_VHOST_SET_VRING_ENABLE, i, 1);
		peer_state(sock, PD_VHOST_SET_VRING_NUM, i, 5);
		peer_state(sock, PD_VHOST_SET_VRING_BASE, i, 1u << 15); /* as DPDK says it */
		send_addr(i, UVA + 0x10000 * i);
		peer_fd(sock, PD_VHOST_SET_VRING_KICK, i, kick[i]);
	}
	turn();
	assert_int_equal(port->state, PD_PORT_UP);
	for (uint16_t at = 0, lap = 1; at < 8; at++, lap = at < 5) {
		d[at % 5] = (struct vring_packed_desc){GPA + 0x40000, 72, 0x900,
						       lap ? 1 << 7 : 1 << 15};
		assert_int_equal(frames_there(), 1);
		assert_int_equal(d[at % 5].flags, lap ? 1 << 7 | 1 << 15 : 0);
		assert_int_equal(d[at % 5].id, 0x900);
		if (at != 2 && at != 6)
			continue;
		peer_send(sock, PD_VHOST_GET_VRING_BASE, 0, &base, sizeof(base), NULL, 0);
		/* Both halves alike: slot 3 of the first lap, slot 2 of the second. */
		assert_int_equal(peer_reply(sock, PD_VHOST_GET_VRING_BASE) >> 32,
				 at == 2 ? 0x80038003 : 0x00020002);
		peer_state(sock, PD_VHOST_SET_VRING_BASE, 1, at == 2 ? 0x80038003 : 0x00020002);
		peer_fd(sock, PD_VHOST_SET_VRING_KICK, 1, kick[1]);
		turn();
	}
	/* A base that is no slot, found when the ring starts. */
	peer_send(sock, PD_VHOST_GET_VRING_BASE, 0, &base, sizeof(base), NULL, 0);
	peer_reply(sock, PD_VHOST_GET_VRING_BASE);
	peer_state(sock, PD_VHOST_SET_VRING_BASE, 1, 5);
	assert_false(peer_closed(sock));
	peer_fd(sock, PD_VHOST_SET_VRING_KICK, 1, kick[1]);
	assert_true(peer_closed(sock));
}

/* What format= says is offered, and held to. */
static void the_format_that_was_asked_for(void **state)
{
	struct pd_port_config config = {.role = PD_CONF_FRONTEND, .dialect = PD_CONF_DIALECT_AVIP};
	uint64_t offered = peer_ask(sock, PD_VHOST_GET_FEATURES);

	(void)state;
	assert_true(offered & PACKED);
	assert_true(offered & BIT(VIRTIO_F_IN_ORDER));
	/* By default, only a front-end with sidecars stays with split rings. */
	assert_false(pd_vhost_format_features(&config) & PACKED);
	assert_false(pd_vhost_format_features(&config) & BIT(VIRTIO_NET_F_MRG_RXBUF));
	config.mergeable = true;
	assert_true(pd_vhost_format_features(&config) & BIT(VIRTIO_NET_F_MRG_RXBUF));
	config.format = PD_CONF_FORMAT_PACKED;
	assert_true(pd_vhost_format_features(&config) & PACKED);
	assert_null(pd_vhost_format_check(&config, offered));
	assert_non_null(pd_vhost_format_check(&config, offered & ~PACKED));
	assert_false(pd_vhost_format_features(&config) & BIT(VIRTIO_F_IN_ORDER));
	config.in_order = true;
	assert_true(pd_vhost_format_features(&config) & BIT(VIRTIO_F_IN_ORDER));
	config.format = PD_CONF_FORMAT_SPLIT;
	config.role = PD_CONF_BACKEND;
	assert_false(pd_vhost_format_features(&config) & PACKED);
	assert_null(pd_vhost_format_check(&config, offered & ~PACKED));
	peer_config.ports[0].format = PD_CONF_FORMAT_PACKED;
	offered &= ~PACKED;
	peer_send(sock, PD_VHOST_SET_FEATURES, 0, &offered, sizeof(offered), NULL, 0);
	assert_true(peer_closed(sock));
}

/* Packed rings are version 1's. A split driver may do without it. */
static void packed_rings_without_version_1(void **state)
{
	uint64_t features = BIT(PD_VHOST_F_PROTOCOL_FEATURES) | PACKED;

	(void)state;
	negotiate();
	peer_send(sock, PD_VHOST_SET_FEATURES, 8, &features, sizeof(features), NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 1);
	features &= ~PACKED;
	peer_send(sock, PD_VHOST_SET_FEATURES, 8, &features, sizeof(features), NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 0);
	features |= PACKED;
	peer_send(sock, PD_VHOST_SET_FEATURES, 0, &features, sizeof(features), NULL, 0);
	assert_true(peer_closed(sock));
}

static void changes_while_running(void **state)
{
	struct pd_vhost_vring_state other = {0, RING * 2};
	uint64_t features = BIT(VIRTIO_F_VERSION_1);

	(void)state;
	bring_up();
	peer_send(sock, PD_VHOST_SET_VRING_NUM, 8, &other, sizeof(other), NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_VRING_NUM), 1);
	peer_send(sock, PD_VHOST_SET_FEATURES, 8, &features, sizeof(features), NULL, 0);
	assert_int_equal(peer_reply(sock, PD_VHOST_SET_FEATURES), 1);
	assert_int_equal(port->state, PD_PORT_UP);
}

/* Requests of features we do not have, with the descriptors they would bring. */
static void what_is_never_offered(void **state)
{
	static const uint32_t requests[] = {PD_VHOST_SET_BACKEND_REQ_FD, PD_VHOST_GPU_SET_SOCKET};

	(void)state;
	for (unsigned i = 0; i < PD_ARRAY_SIZE(requests); i++) {
		negotiate();
		peer_send(sock, requests[i], 8, NULL, 0, &mem_fd, 1);
		assert_int_equal(peer_reply(sock, requests[i]), 1);
		peer_send(sock, requests[i], 0, NULL, 0, &mem_fd, 1);
		assert_true(peer_closed(sock));
		close(sock);
		sock = peer_connect(peer_path);
		turn();
	}
}

static void who_never_reads_is_cut_off(void **state)
{
	struct pd_vhost_header ask = {PD_VHOST_GET_FEATURES, PD_VHOST_VERSION, 0};
	uint64_t until = pd_clock_ns() + 10 * PD_NS_PER_SEC;

	(void)state;
	for (;;) {
		ssize_t n = send(sock, &ask, sizeof(ask), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno != EAGAIN)
			break;
		pd_progress_run_once(0);
		assert_true(pd_clock_ns() < until);
	}
	assert_int_equal(errno, EPIPE);
}

int main(void)
{
	static const uint64_t bad_places[] = {
		UVA + SIZE - 0x8000, /* the used ring is outside */
		UVA - 0x4000,        /* the descriptors are */
		GPA,                 /* guest addresses where the front-end's are due */
		UVA + 8,             /* misaligned */
		UINT64_MAX - 15,
	};
	struct CMUnitTest tests[80];
	unsigned n = 0;

#define T(f) tests[n++] = (struct CMUnitTest)cmocka_unit_test_setup_teardown(f, setup, teardown)
#define P(f, label, p)                                              \
	tests[n++] = (struct CMUnitTest){.name = label,             \
					 .test_func = f,            \
					 .setup_func = setup,       \
					 .teardown_func = teardown, \
					 .initial_state = (void *)(uintptr_t)(p)}
	T(as_qemu_starts_and_stops);
	T(as_dpdk_starts_and_comes_back);
	T(an_old_peer_without_protocol_features);
	T(call_may_be_swapped_while_running_and_is_rung);
	T(memory_may_be_replaced_while_running);
	T(memory_slots_come_and_go);
	T(a_disabled_ring_discards);
	T(reset_device_begins_anew);
	T(a_broken_ring_ends_the_connection);
	T(who_sees_us_hang_up_has_its_memory);
	T(a_channel_that_breaks_while_a_notification_is_sent);
	T(regions_that_are_no_files_or_overlap);
	T(memory_has_a_bound);
	T(who_leaves_before_the_answer_is_not_refused);
	T(what_is_refused_is_named);
	T(the_message_that_did_it_is_named);
	T(features_stay_while_a_ring_discards);
	T(a_channel_that_is_closed_when_something_is_to_be_asked);
	T(notification_descriptors_must_be_eventfds);
	T(packed_rings_start_and_stop);
	T(the_format_that_was_asked_for);
	T(packed_rings_without_version_1);
	T(changes_while_running);
	T(what_is_never_offered);
	T(who_never_reads_is_cut_off);
	for (unsigned i = 0; i < PD_ARRAY_SIZE(bad_regions); i++)
		P(a_region_is_refused, bad_regions[i].name, &bad_regions[i]);
	for (unsigned i = 0; i < PD_ARRAY_SIZE(bad_messages); i++)
		P(a_message_is_refused, bad_messages[i].name, &bad_messages[i]);
	for (unsigned i = 0; i < PD_ARRAY_SIZE(bad_places); i++)
		P(rings_that_cannot_be, "a ring at a bad place", &bad_places[i]);
	pd_log_set_level(PD_LOG_NONE);
	return _cmocka_run_group_tests("backend", tests, n, NULL, NULL);
}
