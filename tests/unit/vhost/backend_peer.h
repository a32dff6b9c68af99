/* SPDX-License-Identifier: BSD-2-Clause */
/* For tests of the back-end role: a port that listens, and a scripted front-end with its memory. */
#ifndef TESTS_UNIT_VHOST_BACKEND_PEER_H
#define TESTS_UNIT_VHOST_BACKEND_PEER_H

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
static inline struct vring_desc *desc_of(int i)
{
	return (struct vring_desc *)(mem + 0x10000 * i);
}
static inline struct vring_avail *avail_of(int i)
{
	return (struct vring_avail *)(mem + 0x10000 * i + 0x4000);
}
static inline struct vring_used *used_of(int i)
{
	return (struct vring_used *)(mem + 0x10000 * i + 0x8000);
}

static inline int setup(void **state)
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

static inline int teardown(void **state)
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
static inline void send_memory(struct pd_vhost_region region, uint32_t flags, int fd)
{
	struct pd_vhost_memory m = {.n_regions = 1, .regions = {region}};

	peer_send(sock, PD_VHOST_SET_MEM_TABLE, flags, &m, 40, &fd, 1);
}

static const struct pd_vhost_region whole = {GPA, SIZE, UVA, 0};

static inline void send_addr(uint32_t i, uint64_t at)
{
	struct pd_vhost_vring_addr a = {
		.index = i, .desc = at, .avail = at + 0x4000, .used = at + 0x8000};

	peer_send(sock, PD_VHOST_SET_VRING_ADDR, 0, &a, sizeof(a), NULL, 0);
}

static inline void send_ring(uint32_t i, uint32_t base)
{
	peer_state(sock, PD_VHOST_SET_VRING_NUM, i, RING);
	peer_state(sock, PD_VHOST_SET_VRING_BASE, i, base);
	send_addr(i, UVA + 0x10000 * i);
	peer_fd(sock, PD_VHOST_SET_VRING_KICK, i, kick[i]);
}

/* Features and protocol features, as every front-end begins. */
static inline void negotiate(void)
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
static inline void bring_up(void)
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
static inline int frames_there(void)
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
static inline void peer_transmit(void)
{
	struct vring_avail *avail = avail_of(1);
	uint16_t at = avail->idx % RING;

	desc_of(1)[at] = (struct vring_desc){GPA + 0x40000, 72, 0, 0};
	avail->ring[at] = at;
	__atomic_store_n(&avail->idx, (uint16_t)(avail->idx + 1), __ATOMIC_RELEASE);
}

/* Give the back-end a new channel. Returns our end of it. */
static inline int send_channel(void)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	peer_send(sock, PD_VHOST_SET_BACKEND_REQ_FD, 0, "", 0, &pair[1], 1);
	close(pair[1]);
	turn();
	return pair[0];
}

/* A test in a table, and one with a label of its own and something to begin from. */
#define T(f) ((struct CMUnitTest)cmocka_unit_test_setup_teardown(f, setup, teardown))
#define P(f, label, p)                                  \
	((struct CMUnitTest){.name = label,             \
			     .test_func = f,            \
			     .setup_func = setup,       \
			     .teardown_func = teardown, \
			     .initial_state = (void *)(uintptr_t)(p)})

#endif /* TESTS_UNIT_VHOST_BACKEND_PEER_H */
