/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking again and again before going to sleep, for as long as that has paid off lately, or as the
 * user says. Poll, select, epoll, receivers and senders spin alike.
 */
#ifndef PD_WAIT_SPIN_H
#define PD_WAIT_SPIN_H

#include <stdbool.h>
#include <stdint.h>

/* How the program's settings say to spin and to mix; one per process. */
struct pd_wait_tuning {
	int64_t spin_us; /* poll, select, epoll: -1 adapts */
	/* A spin looks at kernel descriptors at every so many rounds; 0: not at all. */
	unsigned kernel_looks;
	/* An epoll that has ready sockets of ports does at every so many calls. */
	unsigned kernel_skips;
	bool yield; /* give the core away between two looks */
};
extern struct pd_wait_tuning pd_wait_tuning;

/*
 * Adaptive spinning. State of one waiter (a socket, an epoll): how long spinning has paid off
 * lately.
 */
struct pd_spin {
	uint32_t budget_ns;
};

/* The least and the most that an adaptive spin lasts. */
#define PD_SPIN_MIN_NS 500u
extern uint32_t pd_spin_max_ns;

/* Tell what came of it: `hit` when something came while spinning. */
void pd_spin_end(struct pd_spin *spin, bool hit);

/* One spin, and whether its caller should ask again at once. */
struct pd_spin_loop {
	struct pd_spin *spin;
	uint64_t until_ns; /* 0: not begun */
	uint64_t yield_ns; /* when to give the core away, for once */
	unsigned rounds;
	bool long_rounds; /* each is long enough for a look at the clock */
};
bool pd_spin_more(struct pd_spin_loop *loop, int64_t setting_us, uint64_t deadline_ns);

/* Whether this round of a spin is one that also looks at the kernel's descriptors. */
bool pd_spin_kernel_turn(const struct pd_spin_loop *loop);

#endif /* PD_WAIT_SPIN_H */
