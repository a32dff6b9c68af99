/* SPDX-License-Identifier: BSD-2-Clause */
/* What the command line of palladium_vlm asks for. */
#ifndef VLM_OPTIONS_H
#define VLM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include "config/config.h"
#include "metadata/sidecar.h"
#include "pattern.h"

#define VLM_EXIT_FAILED 1 /* something was lost or altered, or the peer did not do its part */
#define VLM_EXIT_USAGE 2

#define VLM_CONTROLS_MAX 16
#define VLM_BATCH_MAX 256
#define VLM_WINDOW_MAX 65536

enum vlm_expect { VLM_EXPECT_ZEROED, VLM_EXPECT_ECHO, VLM_EXPECT_ANY, VLM_EXPECT_SINK };
enum vlm_check { VLM_CHECK_FULL, VLM_CHECK_HEADER, VLM_CHECK_NONE };

struct vlm_options {
	/* The link. */
	const char *path;
	bool listens;
	enum pd_dialect dialect;
	unsigned ports, queues, ring;
	enum pd_conf_format format;
	bool single;    /* every frame in one receive buffer */
	bool any_order; /* no VIRTIO_F_IN_ORDER */
	double timeout_s;
	/* What is sent. */
	struct vlm_plan plan;
	uint64_t frames;   /* of each port; UINT64_MAX: no end */
	double duration_s; /* 0: no end */
	uint64_t rate;     /* of each port, frames per second; 0: as fast as it goes */
	unsigned window;   /* of each queue */
	unsigned batch;
	bool reflect; /* also send back what is not ours */
	/* Control messages. */
	uint32_t chassis_ip;
	uint16_t card;
	unsigned first_port;
	struct pd_sidecar controls[VLM_CONTROLS_MAX]; /* behind PORT_ID */
	unsigned n_controls;
	uint64_t control_every; /* frames of a port; 0: at the start only */
	bool no_control;
	/* What is expected. */
	enum vlm_expect expect;
	enum vlm_check check;
	double loss_s; /* a frame is lost when it has not come back for so long */
	bool tolerate_restart;
	bool require_queue;   /* frames have to come back by the queue of their priority */
	bool require_control; /* LINE_SPEED and PORT_NAME have to come */
	/* What is printed. */
	bool json, quiet, verbose;
	int spin_us; /* before sleeping */
};

extern const char *const vlm_expect_names[];
extern const char *const vlm_check_names[];

/* Read the command line. Ends the program for --help, --version and wrong usage. */
void vlm_options_read(struct vlm_options *o, int argc, char **argv);

#endif /* VLM_OPTIONS_H */
