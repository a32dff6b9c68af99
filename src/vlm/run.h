/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A run: the ports, what was sent over them, and what came of it.
 *
 * One thread, the program's own, moves all frames; the library's progress thread does the rest of
 * the link. So everything here but the lanes belongs to that one thread.
 */
#ifndef VLM_RUN_H
#define VLM_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "flow.h"
#include "../tools/hist.h"
#include "metadata/control.h"
#include "options.h"
#include "transport/transport.h"

/* The first discrepancies are told in words, this many of them. */
#define VLM_REMARKS 8

struct vlm_counts {
	uint64_t sent_bytes, returned_bytes;
	/* Of the frames that came back: */
	uint64_t altered_bytes, altered_length, altered_sidecar;
	uint64_t wrong_queue; /* came by another queue than that of their priority */
	uint64_t unexpected;  /* ours, but nothing should have come back */
	uint64_t foreign;     /* not ours */
	uint64_t reflected;   /* of them, sent back */
	uint64_t not_taken;   /* --expect sink: sent, but the peer did not take them */
	uint64_t control_sent, control_received;
	uint64_t restarts; /* times a peer came after another */
	uint64_t ring_full;
};

struct vlm_lane {
	struct pd_lane *lane;
	struct vlm_flow flow;
	uint64_t came; /* frames of ours by this queue, whichever they were sent by */
	uint32_t link; /* the link's count at which this lane was last used; 0: never */
	bool blocked;  /* has something to send and found no room */
	uint32_t seen; /* then, the position before it tried */
	bool stalled;  /* holds a frame back that it has no room to reflect */
};

struct vlm_port {
	struct pd_port *port;
	unsigned number;
	unsigned n_lanes;
	struct vlm_lane lanes[PD_QUEUES_MAX];
	uint64_t left;           /* frames to send */
	uint64_t control_at;     /* sent frames at which the control messages are due again */
	unsigned controls_due;   /* messages of the set that are still to be sent */
	uint64_t sent;           /* by all lanes */
	uint64_t down_since_ns;  /* 0: up */
	unsigned control_lines;  /* printed so far */
	struct pd_control heard; /* the last value of each field that control messages gave */
	struct vlm_counts counts;
};

struct vlm {
	const struct vlm_options *options;
	struct pd_config *config;
	unsigned n_ports;
	struct vlm_port *ports;
	struct tool_hist latency;
	char remarks[VLM_REMARKS][160];
	unsigned n_remarks;
	char failure[256]; /* why the run ended early, or "" */
	bool sending;      /* all ports were up, and there is more to send */
	bool interrupted;
	uint64_t opened_ns, start_ns, end_ns; /* start: first frame; end: last one back */
	uint64_t stop_ns;                     /* when sending stops; UINT64_MAX: when all is sent */
	/* Private to run.c. */
	struct pd_buffer *tx_bufs[VLM_BATCH_MAX];
	uint8_t *scratch; /* a frame that came in pieces */
	uint64_t progress_ns;
	uint64_t progress_returned;
};

/* The sum over the flows of a port. */
struct vlm_flow_counts vlm_port_flows(const struct vlm_port *vp);

/* Open the ports. Returns 0 or -errno, having said why. */
int vlm_open(struct vlm *v, const struct vlm_options *options);

/* Send and check until everything is done, or the run fails (v->failure), or a signal ends it. */
void vlm_run(struct vlm *v);

/* Close the ports and free what vlm_open made. The counts stay. */
void vlm_close(struct vlm *v);

/* Ask a run to stop: once, sending stops; twice, waiting too. For signal handlers. */
void vlm_stop(void);

#endif /* VLM_RUN_H */
