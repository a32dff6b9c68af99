/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The roles rx, nf and tx, who runs them, and what they tell.
 *
 * A role is a step function that moves up to one batch. A thread runs one or more roles in turns on
 * a core; a process has one or more such threads. The program itself runs none: it makes the shared
 * memory, forks the processes, watches over them and reads what they left in struct ev_control.
 * What a role has to itself is in struct ev_role, in the memory of its process.
 */
#ifndef EVAL_ROLES_H
#define EVAL_ROLES_H

#include <sys/types.h>

#include "../tools/hist.h"
#include "base/atomic.h"
#include "check.h"
#include "layout.h"
#include "nf.h"

enum ev_role_id { EV_RX, EV_NF, EV_TX, EV_ROLES };

extern const char *const ev_role_names[EV_ROLES];

/* What a role tells; its own cache lines. */
struct ev_told {
	uint64_t packets; /* so far: read by anyone */
	uint64_t start_ns, end_ns;
	struct ev_tally tally;
	struct ev_nf_state nf;
	uint32_t tid; /* of the thread that runs it */
	char error[160];
} PD_ALIGNED(128);

struct ev_control {
	uint32_t ready; /* roles that are */
	uint32_t go;    /* packets may move */
	uint32_t stop;  /* whoever reads it ends */
	struct ev_told told[EV_ROLES];
	struct tool_hist latency; /* of tx */
};

/* One end of a ring of mode stripped. The counts run without end. */
struct ev_end {
	uint64_t *own, *others; /* counts that this end writes, and that the other one does */
	uint8_t *slots;
	uint64_t seen; /* of the others', as last read */
};

struct pd_lane;
struct pd_buffer;
struct ev_nf_place;

struct ev_role;
/* Moves up to one batch; returns how many packets that were. */
typedef unsigned (*ev_step)(struct ev_role *role);

struct ev_role {
	enum ev_role_id id;
	const struct ev_options *o;
	const struct ev_layout *l;
	struct ev_control *control;
	struct ev_told *told;
	ev_step step;
	uint64_t n; /* packets that it has moved */
	struct ev_patterns patterns;
	uint8_t *copies; /* of tx: where packets are copied to */
	uint8_t *area;
	struct ev_end in, out;      /* mode stripped */
	const uint64_t *window_end; /* rx: count up to which tx has consumed, where it matters */
	uint64_t window_seen;
	uint64_t *stamps;
	uint32_t stamp_mask;
	struct pd_lane *in_lane, *out_lane; /* the others */
	struct pd_buffer **buffers;
	unsigned worked;           /* nf: packets at the head that the function has seen */
	struct ev_nf_place *place; /* nf, and tx when it checks: where the node of a plug-in runs */
};

/* One thread that runs roles. */
struct ev_thread {
	unsigned roles; /* a bit each */
	unsigned process;
	int core;
	bool shares; /* the core, with another one */
};

/* Who runs what. */
struct ev_plan {
	unsigned n_threads, n_processes;
	struct ev_thread threads[EV_ROLES];
};

/* What came of a run. */
struct ev_result {
	struct ev_plan plan;
	struct ev_control told;
	uint64_t ns;       /* from rx's first packet to tx's last */
	double mpps;       /* of packets that reached tx */
	double bound_mpps; /* 0: not measured */
	bool complete;     /* all of them did */
	bool interrupted;
	bool hugepages;           /* mode stripped: there were any */
	char failure[EV_WHY_MAX]; /* why it ended early, or "" */
};

/* What wants to be told when every role is ready and before any packet moves; 0 or -errno. */
struct ev_watcher {
	int (*ready)(void *ctx, const struct ev_plan *plan, const struct ev_control *control);
	void *ctx;
};

/* Who runs what, for options that are settled. */
void ev_plan_make(struct ev_plan *plan, const struct ev_options *o);

/* The names of roles as "rx+tx" into `out`. */
void ev_roles_name(unsigned roles, char *out, size_t size);

/*
 * Run it. `watcher` may be NULL. Returns an enum ev_exit; *result is written in any case. Not to be
 * called by a program that has threads.
 */
int ev_run(const struct ev_options *o, const struct ev_watcher *watcher, struct ev_result *result);

/* --- the rings ------------------------------------------------------------------------------ */

/* Put role->step and what it needs for mode stripped in place. Returns 0 or -errno. */
int ev_stripped_role(struct ev_role *role);

/*
 * The same over vhost-user: open the ports of the `n` roles of this process, whose sockets are in
 * `folder`. Returns 0, or -errno with the reason in told->error of the first.
 */
int ev_vhost_open(struct ev_role *const *roles, unsigned n, const char *folder);

/* Whether the rings of a role are up. */
bool ev_vhost_up(struct ev_role *role);

/* Close what ev_vhost_open opened. */
void ev_vhost_close(void);

/* --- what steps share ------------------------------------------------------------------------ */

/*
 * What a role needs whatever the rings are: its step, the patterns of the packets, with
 * `metadata_bytes` of metadata each, and where times of departure stand. Returns 0 or -ENOMEM.
 */
int ev_role_prepare(struct ev_role *role, ev_step step, uint32_t metadata_bytes);

/* How many packets may be moved now, by batch and number. */
static inline unsigned ev_wanted(const struct ev_role *role)
{
	return (unsigned)pd_min(role->o->batch, role->o->packets - role->n);
}

/* Note when packets `n` on, `count` of them, leave rx. */
void ev_stamp(struct ev_role *role, uint64_t n, unsigned count);

/* Take the time of the same at tx. */
void ev_stamp_read(struct ev_role *role, uint64_t n, unsigned count);

#endif /* EVAL_ROLES_H */
