/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SEND_RARP. A switch would broadcast a RARP request in the guest's name, so that all switches
 * learn where it is now. Behind us is no switch but the program, so it receives that frame, as if
 * the guest had sent it.
 *
 * The socket layer takes what is left in a ring before that goes away (pd_port_on_receive_end).
 * Here the "ring" is a lane that stands in for the port's first one, under its lock, and holds that
 * one frame.
 */
#include "transport/vhost/rarp.h"

#include <string.h>
#include <net/if_arp.h>

#include "vlib/buffer.h"

#define RARP_BYTES 60 /* the shortest frame */
#define RARP_REQUEST 3

/* A lane that holds one frame. */
struct one_frame {
	struct pd_lane lane;
	struct pd_buffer *b;
};

static int one_rx(struct pd_lane *lane, struct pd_buffer **bufs, unsigned n)
{
	struct one_frame *one = pd_container_of(lane, struct one_frame, lane);

	if (lane->side[PD_RX].cursor || !n)
		return 0;
	bufs[0] = one->b;
	return 1;
}

static void one_rx_done(struct pd_lane *lane, unsigned n)
{
	lane->side[PD_RX].cursor += n;
}

static uint32_t one_position(struct pd_lane *lane, enum pd_dir dir)
{
	return dir == PD_RX;
}

/* RFC 903, of a station that asks for its own address. */
static void write_frame(uint8_t *f, const uint8_t *mac)
{
	static const uint8_t head[] = {0x80, 0x35, 0, ARPHRD_ETHER, 8, 0, 6, 4, 0, RARP_REQUEST};

	memset(f, 0, RARP_BYTES);
	memset(f, 0xff, 6);
	memcpy(f + 6, mac, 6);
	memcpy(f + 12, head, sizeof(head));
	memcpy(f + 22, mac, 6); /* sender */
	memcpy(f + 32, mac, 6); /* target */
}

/* Let `b` be the frame, as a lane in the port's dialect shows one. */
static void show(struct pd_buffer *b, uint8_t *frame, const struct pd_vhost_lane *lane)
{
	b->data = frame;
	b->len = b->total_len = RARP_BYTES;
	b->next = PD_BUFFER_NONE;
	b->flags = PD_BUFFER_EXTERNAL;
	b->rx_port = lane->lane.port;
	b->refs = 1;
	b->trace = 0;
	if (lane->dialect == PD_VHOST_AVIP) {
		b->flags |= PD_BUFFER_SIDECAR;
		memset(b->sidecar, 0, sizeof(b->sidecar));
	}
}

const char *pd_vhost_rarp(struct pd_vhost_role_base *role, const uint8_t *mac)
{
	static const struct pd_lane_ops ops = {
		.rx = one_rx,
		.rx_done = one_rx_done,
		.position = one_position,
	};
	static const uint8_t nobody[6];
	struct pd_vhost_lane *lane = &role->lanes[0];
	struct one_frame one = {.b = lane->headers[0]};
	uint8_t frame[RARP_BYTES];

	if (mac[0] & 1 || !memcmp(mac, nobody, sizeof(nobody)))
		return "an announcement of a MAC that no station has";
	if (!pd_port_on_receive_end)
		return NULL;
	write_frame(frame, mac);
	one.lane.ops = &ops;
	one.lane.port = lane->lane.port;
	one.lane.queue = lane->lane.queue;
	one.lane.side[PD_RX].up = true;
	pd_vhost_lane_lock(lane, PD_RX);
	one.lane.side[PD_RX].ctr = lane->lane.side[PD_RX].ctr;
	show(one.b, frame, lane);
	pd_port_on_receive_end(&pd_ports[lane->lane.port], &one.lane);
	pd_vhost_lane_unlock(lane, PD_RX);
	return NULL;
}
