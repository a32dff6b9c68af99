/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the nodes of packet sockets tell the tracer (vlib/trace.h) of a frame: the port, the
 * lengths, the sidecar, and whose it is.
 */
#include <stdio.h>

#include "metadata/render.h"
#include "sock/packet_nodes.h"

/* One record for all of them. */
struct pd_packet_record {
	char port[16];
	uint32_t total_len;
	uint16_t flags, protocol, segments;
	uint16_t others; /* sockets that get a copy */
	int fd;          /* of the socket whose call it is; -1: nobody's */
	bool mine;       /* it is for that socket */
	struct pd_sidecar sidecar;
};
_Static_assert(sizeof(struct pd_packet_record) <= PD_TRACE_RECORD_BYTES, "it fits");

/* Who gets the frame: as packet-match decides. */
static void pd_packet_trace_takers(const struct pd_packet_call *call, const struct pd_buffer *b,
				   struct pd_packet_record *r)
{
	bool plain = pd_packet_is_plain(b);
	const struct pd_taps_group *g;

	if (call->alone) {
		r->mine = pd_packet_wants(call->s, b);
		return;
	}
	g = plain ? pd_taps_find(call->taps, r->protocol) : NULL;
	for (unsigned t = pd_packet_taker(call, b, g, 0); t < call->taps->n;
	     t = pd_packet_taker(call, b, g, t + 1))
		r->others++;
	if (plain)
		r->mine = call->among_all || (g && g == call->among);
	else
		r->mine = (call->among_all || call->among) && pd_packet_wants(call->s, b);
}

void pd_packet_trace(const struct pd_engine *engine, const struct pd_node *node,
		     const struct pd_buffer *b, void *record)
{
	const struct pd_packet_call *call = engine->call;
	struct pd_packet_record *r = record;

	(void)node;
	*r = (struct pd_packet_record){
		.total_len = b->total_len,
		.flags = b->flags,
		.protocol = b->flags & PD_BUFFER_CONTROL ? 0 : pd_frame_protocol(b),
		.segments = 1,
		.fd = call->s ? call->s->fd : -1,
	};
	memcpy(r->port, call->port->name, sizeof(r->port));
	if (b->flags & PD_BUFFER_SIDECAR)
		memcpy(r->sidecar.bytes, b->sidecar, sizeof(r->sidecar.bytes));
	pd_packet_trace_takers(call, b, r);
	for (; b->next != PD_BUFFER_NONE; b = pd_buffer_get(b->next))
		r->segments++;
}

/* The frame in words; `verb` tells what happens to it at the port. */
static int pd_packet_frame_text(char *out, size_t size, const char *verb,
				const struct pd_packet_record *r)
{
	char sidecar[PD_RENDER_BYTES];
	int n;

	if (r->flags & PD_BUFFER_CONTROL)
		n = snprintf(out, size, "%s %s: control frame", verb, r->port);
	else
		n = snprintf(out, size, "%s %s: %u bytes in %u segment%s, protocol 0x%04x", verb,
			     r->port, r->total_len, r->segments, r->segments == 1 ? "" : "s",
			     r->protocol);
	if (!(r->flags & PD_BUFFER_SIDECAR) || (size_t)n >= size)
		return n;
	pd_sidecar_render(&r->sidecar, PD_RENDER_JSON, NULL, sidecar, sizeof(sidecar));
	return n + snprintf(out + n, size - (size_t)n, "\nsidecar %s", sidecar);
}

int pd_packet_input_format_trace(char *out, size_t size, const void *record)
{
	return pd_packet_frame_text(out, size, "from", record);
}

int pd_packet_send_format_trace(char *out, size_t size, const void *record)
{
	const struct pd_packet_record *r = record;
	char verb[32];

	snprintf(verb, sizeof(verb), "socket %d, for", r->fd);
	return pd_packet_frame_text(out, size, verb, r);
}

int pd_packet_output_format_trace(char *out, size_t size, const void *record)
{
	const struct pd_packet_record *r = record;

	return snprintf(out, size, "to %s, %u bytes", r->port, r->total_len);
}

int pd_packet_match_format_trace(char *out, size_t size, const void *record)
{
	const struct pd_packet_record *r = record;

	if (!r->mine && !r->others)
		return snprintf(out, size, "no socket of %s wants it", r->port);
	if (!r->others)
		return snprintf(out, size, "socket %d takes it", r->fd);
	return snprintf(out, size, "%u socket%s of %s get%s a copy%s", r->others,
			r->others == 1 ? "" : "s", r->port, r->others == 1 ? "s" : "",
			r->mine ? ", and who receives takes it" : "");
}

int pd_packet_deliver_format_trace(char *out, size_t size, const void *record)
{
	const struct pd_packet_record *r = record;

	return snprintf(out, size, "into a message of socket %d", r->fd);
}

int pd_packet_queue_format_trace(char *out, size_t size, const void *record)
{
	const struct pd_packet_record *r = record;

	if (r->flags & PD_BUFFER_EXTERNAL)
		return snprintf(out, size, "no buffer to copy into");
	return snprintf(out, size, "into the queues of %u socket%s", r->others,
			r->others == 1 ? "" : "s");
}
