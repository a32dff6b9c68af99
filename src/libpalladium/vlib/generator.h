/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The packet generator: streams of frames, made by a worker and handed to a node.
 *
 * A stream says what its frames are, how many, how fast, and which node gets them. The node
 * pg-input of a worker's engine makes the frames of the streams that run there. Streams are made
 * from text (pd_generator_script), the form of VLIB's:
 *
 *   packet-generator new {
 *           name x                       its name; none has it yet
 *           limit 5                      frames from enable to its end; 0, or nothing: no end
 *           size 128-128                 octets, 14 to 12240: each frame one more, then from the
 *                                        first again; shorter data is filled with zeroes,
 *                                        longer cut. Nothing: as the data is
 *           rate 1000                    frames a second; 0, or nothing: as fast as they go
 *           interface pd0                the port by which they are said to have come in;
 *                                        local0, or nothing: none
 *           tx-interface pd1             the port by which they leave, for nodes that send
 *           node handoffdemo-1           who gets them
 *           worker 1                     who makes them, from 1 (which it is when nothing is said)
 *           data { incrementing 30 }     00 01 02 ...; or
 *           data { hex ffffffffffff 00 } these octets; or
 *           data { pcap FILE }           the frames of a capture file, again and again
 *           sidecar { ifg 12 }           fields of the sidecar, as the caller knows them
 *   }
 *   packet-generator enable [NAME]
 *   packet-generator disable [NAME]
 *   packet-generator delete NAME
 *
 * The order of the lines does not matter, '#' begins a comment. A stream that has reached its limit
 * is disabled; enabled again it starts anew.
 *
 * Buffers are taken from a pool of the generator's own; a round that finds none left makes fewer
 * frames and counts it.
 *
 * Locking. A worker only tries the lock of its streams, so whoever changes them does not hold its
 * other work up. What is named "control path" takes locks of rank PD_RANK_STREAMS, and any thread
 * may call it that is no worker.
 */
#ifndef PD_VLIB_GENERATOR_H
#define PD_VLIB_GENERATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vlib/node.h"

#define PD_STREAM_NAME_BYTES 32
#define PD_STREAM_ERROR_BYTES 256
/* The largest capture file. */
#define PD_STREAM_FILE_BYTES (16u << 20)
/* The most frames a second that a rate says. */
#define PD_STREAM_RATE_MAX 1000000000ull

/* What the frames of a stream are. What it points to belongs to it (pd_stream_config_free). */
struct pd_stream_config {
	char name[PD_STREAM_NAME_BYTES];
	char node[64];
	char interface[16], tx_interface[16]; /* as they were named */
	uint16_t rx_port, tx_port;
	uint64_t limit, rate;        /* 0: none */
	uint32_t size_min, size_max; /* 0: as the data is */
	unsigned worker;
	uint8_t *data; /* of all frames, one behind the other */
	uint32_t *end; /* of each frame in data */
	unsigned frames;
	bool has_sidecar;
	uint8_t sidecar[PD_BUFFER_SIDECAR_BYTES];
};

/* Give back what it points to. */
void pd_stream_config_free(struct pd_stream_config *config);

/* What the text cannot know: the caller's ports and fields. */
struct pd_stream_names {
	/* The index of a port, or -errno. NULL: there is none but local0. */
	int (*port)(void *arg, const char *name);
	/*
	 * Set a field. Returns 0, -ENOENT when there is none of that name, or another -errno when
	 * it cannot have that value. NULL: there are none.
	 */
	int (*sidecar)(void *arg, const char *field, const char *value,
		       uint8_t sidecar[PD_BUFFER_SIDECAR_BYTES]);
	void *arg;
};

/* The names that commands typed by a user are read with; NULL: none. Whoever has ports sets it. */
extern const struct pd_stream_names *pd_generator_names;

/*
 * Run a script: the commands above, `n` bytes at `text`, which stood in `file`. Stops at the first
 * that fails; what came before it stays. Control path. Returns 0, or -errno with "file:line: why"
 * in `error`, of `size` bytes; just why when `file` is NULL.
 */
int pd_generator_script(const char *file, const char *text, size_t n,
			const struct pd_stream_names *names, char *error, size_t size);

/*
 * Make a stream that is not enabled; it takes over what `config` points to, which is then empty.
 * Control path. Returns 0; -EEXIST, -EINVAL (sizes, worker), -ENOENT for its node, -EPERM when
 * frames cannot be handed to that, -ENOMEM.
 */
int pd_stream_new(struct pd_stream_config *config);

/*
 * Let a stream run from its beginning, or all (NULL); what runs goes on as it is. Control path.
 * Returns 0, -ENOENT when there is no such stream, or none at all, or -ESRCH when there is no such
 * worker.
 */
int pd_generator_enable(const char *name);

/* Stop a stream, or all (NULL). Control path. Returns 0 or -ENOENT. */
int pd_generator_disable(const char *name);

/* Stop a stream and forget it. Control path. Returns 0 or -ENOENT. */
int pd_generator_delete(const char *name);

/* One stream, as it is now. */
struct pd_stream_info {
	const struct pd_stream_config *config;
	bool enabled;
	uint64_t sent;      /* since it was enabled */
	uint64_t sent_ever; /* since it was made */
};

/* Call `fn`, which takes no lock, for every stream. Control path. */
void pd_generator_each(void (*fn)(const struct pd_stream_info *info, void *arg), void *arg);

/*
 * Forget all streams and the pool, whose buffers are all back. No worker runs.
 */
void pd_generator_reset(void);

/* Where its buffers come from; NULL before the first stream. */
struct pd_buffer_pool *pd_generator_pool(void);

#endif /* PD_VLIB_GENERATOR_H */
