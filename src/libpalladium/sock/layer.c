/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starting and ending the socket layer, and deciding which sockets are ours.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>

#include "base/fault.h"
#include "base/internal_fd.h"
#include "base/lib.h"
#include "base/log.h"
#include "base/quiet.h"
#include "base/sys.h"
#include "config/vars.h"
#include "counters/report.h"
#include "sock/fd.h"
#include "sock/hooks.h"
#include "sock/layer.h"
#include "sock/multiplex.h"
#include "sock/packet.h"
#include "sock/vacate.h"
#include "vlib/buffer.h"
#include "vlib/generator.h"
#include "vlib/lane_plugins.h"
#include "vlib/moderation.h"
#include "vlib/plugin.h"
#include "vlib/progress.h"

_Static_assert((int)PD_CONF_DIALECT_AVIP == (int)PD_DIALECT_AVIP &&
		       (int)PD_CONF_DIALECT_VIRTIO == (int)PD_DIALECT_VIRTIO,
	       "configuration and codecs number the dialects alike");

const struct pd_config *pd_sock_config;
static bool pd_sock_layer_started;

/* --- rules --------------------------------------------------------------------------------- */

void pd_sock_decide(const char *port_name, uint16_t protocol, struct pd_conf_decision *decision)
{
	struct pd_conf_question q = {.role = PD_ROLE_PACKET, .ethertype = protocol};

	snprintf(q.port_name, sizeof(q.port_name), "%s", port_name);
	pd_conf_decide(pd_sock_config, program_invocation_short_name, pd_vars.application_id, &q,
		       decision);
}

uint64_t pd_sock_rule_ports(uint16_t protocol)
{
	struct pd_conf_decision decision;
	uint64_t mask = 0;

	_Static_assert(PD_PORTS_MAX <= 64, "one bit per port");
	for (unsigned i = 0; i < pd_port_count; i++) {
		pd_sock_decide(pd_ports[i].name, protocol, &decision);
		if (decision.use == PD_USE_PALLADIUM)
			mask |= 1ull << i;
		else if (decision.rule)
			pd_debug("sock",
				 "%s:%u leaves packet sockets on %s, protocol %#x, to the kernel",
				 decision.rule->place.file, decision.rule->place.line,
				 pd_ports[i].name, protocol);
	}
	return mask;
}

/* --- forks -------------------------------------------------------------------------------- */

/* Hold the control state still while the process is copied. */
static void pd_sock_fork_prepare(void)
{
	pd_vacate_before_fork();
	pd_epoll_before_fork();
	pd_lock(&pd_control);
	pd_taps_before_fork();
	pd_ctr_before_fork();
}

static void pd_sock_fork_parent(void)
{
	pd_ctr_after_fork_in_parent();
	pd_taps_after_fork(false);
	pd_unlock(&pd_control);
	pd_epoll_after_fork();
	pd_vacate_after_fork();
	if (pd_fd_next(0, UINT32_MAX, false) >= 0)
		pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_FORKS, 1);
}

static void pd_sock_fork_child(void)
{
	int fd;

	pd_ctr_after_fork_in_child();
	pd_wait_after_fork();
	pd_buffer_pools_after_fork();
	pd_lane_plugins_after_fork();
	pd_packet_ports_after_fork();
	pd_ports_after_fork();
	pd_sock_pools_after_fork();
	pd_taps_after_fork(true);
	pd_sock_epoll_locks_after_fork();
	for (fd = pd_fd_next(0, UINT32_MAX, false); fd >= 0;
	     fd = pd_fd_next((uint32_t)fd + 1, UINT32_MAX, false)) {
		struct pd_sock *sk = pd_fd_get(fd);

		if (!sk)
			continue;
		if (sk->kind == PD_SOCK_PACKET)
			pd_packet_after_fork(pd_packet_of(sk));
		else if (sk->kind == PD_SOCK_EPOLL)
			pd_multiplex_after_fork(sk);
		pd_fd_put(sk);
	}
	pd_unlock(&pd_control);
	pd_epoll_after_fork();
	pd_vacate_after_fork();
}

static struct pd_fork_hook pd_sock_fork_hook = {
	.order = 100, /* its lock is taken before those of the layers below */
	.prepare = pd_sock_fork_prepare,
	.parent = pd_sock_fork_parent,
	.child = pd_sock_fork_child,
};

/* --- hooks -------------------------------------------------------------------------------- */

/*
 * socket(2): packet sockets may be bound to a port, so they are ours until they are bound
 * elsewhere.
 */
static long pd_hook_socket(int domain, int type, int protocol)
{
	int kind = type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (domain != AF_PACKET || (kind != SOCK_RAW && kind != SOCK_DGRAM) ||
	    !pd_vars.offloaded_sockets || !pd_sock_rule_ports(ntohs((uint16_t)protocol)))
		return PD_HOOK_PASS;
	return pd_packet_socket(type, protocol);
}

/*
 * A reference for a thread that sleeps on a socket's bell: there is one more, so taking it cannot
 * fail.
 */
static void pd_sock_wait_hold(void *owner)
{
	pd_sock_get(owner);
}

static void pd_sock_wait_drop(void *owner)
{
	pd_sock_put(owner);
}

/*
 * Warn of ports that have the name of an interface of the kernel: the program does not see that one
 * any more.
 */
static void pd_sock_warn_of_hidden(void)
{
	for (unsigned i = 0; i < pd_port_count; i++)
		if (pd_ifquery_kernel_index(pd_ports[i].name))
			pd_warn("sock",
				"port %s hides the kernel's interface %s: the program sees the "
				"port alone",
				pd_ports[i].name, pd_ports[i].name);
}

/* What PALLADIUM_CQ_* say of notifications. */
static void pd_sock_moderation_init(void)
{
	pd_moderation_tuning = (struct pd_moderation_tuning){
		.enabled = pd_vars.cq_moderation_enable,
		.count = (uint32_t)pd_vars.cq_moderation_count,
		.period_ns = (uint64_t)pd_vars.cq_moderation_period_usec * PD_NS_PER_US,
		.aim_interval_ns = (uint64_t)pd_vars.cq_aim_interval_msec * PD_NS_PER_MS,
		.aim_rate = (uint32_t)pd_vars.cq_aim_interrupts_rate_per_sec,
		.aim_count = (uint32_t)pd_vars.cq_aim_max_count,
		.aim_period_ns = (uint64_t)pd_vars.cq_aim_max_period_usec * PD_NS_PER_US,
	};
}

/*
 * How poll, select and epoll spin, and how often they look at the kernel's descriptors meanwhile.
 * SELECT_POLL_OS_FORCE means always, where the two others are not set themselves (VMA's rule).
 */
static void pd_sock_select_init(void)
{
	bool force = pd_vars.select_poll_os_force;
	int64_t looks = pd_vars.select_poll_os_ratio, skips = pd_vars.select_skip_os;

	if (force && !pd_vars_is_set(&pd_vars, &pd_vars.select_poll_os_ratio))
		looks = 1;
	if (force && !pd_vars_is_set(&pd_vars, &pd_vars.select_skip_os))
		skips = 1;
	pd_wait_tuning = (struct pd_wait_tuning){
		.spin_us = pd_vars.select_poll == PD_POLL_ADAPTIVE  ? -1
			   : pd_vars.select_poll == PD_POLL_FOREVER ? INT32_MAX
								    : pd_vars.select_poll,
		.kernel_looks = (unsigned)looks,
		.kernel_skips = skips ? (unsigned)skips : UINT32_MAX,
		.yield = pd_vars.rx_poll_yield,
	};
}

int pd_sock_layer_start(const struct pd_config *config)
{
	int ret = pd_ports_init(config);

	if (ret) {
		pd_err("sock", "the ports cannot be set up (%s): everything stays with the kernel",
		       pd_strerror(ret));
		return ret;
	}
	pd_sock_warn_of_hidden();
	pd_sock_config = config;
	pd_wait_hold = pd_sock_wait_hold;
	pd_wait_drop = pd_sock_wait_drop;
	pd_spin_max_ns = (uint32_t)pd_vars.poll_adaptive_max_usec * PD_NS_PER_US;
	pd_sock_moderation_init();
	pd_fd_internal_start();
	pd_log_keep();
	ret = pd_ctr_report_start(pd_vars.stats_file);
	if (ret)
		pd_warn("sock", "PALLADIUM_STATS_FILE=%s cannot be opened: %s", pd_vars.stats_file,
			pd_quiet_strerror(ret));
	pd_sock_select_init();
	pd_plugins_load(pd_vars.plugin_path);
	pd_port_on_receive_end = pd_packet_salvage;
	pd_hooks.socket = pd_hook_socket;
	pd_generator_names = &pd_sock_stream_names;
	pd_multiplex_init();
	pd_ifquery_init();
	pd_internal_fd_register_fork();
	pd_fork_register(&pd_sock_fork_hook);
	pd_sock_layer_started = true;
	pd_gate_open(&pd_gate_configured);
	pd_placeholder_recover();
	return 0;
}

/* Behind the closed ports: the last reports, and no more counters. */
static void pd_sock_counters_end(void)
{
	pd_ctr_report_all();
	pd_ctr_report_stop();
	pd_ctr_close();
}

void pd_sock_layer_end(void)
{
	if (!pd_sock_layer_started)
		return;
	pd_ports_end();
	pd_sock_counters_end();
}

/* What SIGINT asks of the progress thread, and whether it is done. */
static uint32_t pd_sock_interrupt_ends, pd_sock_interrupt_done;

/* In the progress thread, pd_control held. */
static void pd_sock_interrupted(struct pd_progress_work *work)
{
	if (pd_load_acquire(&pd_sock_interrupt_ends)) {
		pd_ports_end_locked();
		pd_sock_counters_end();
		pd_fault_die(SIGINT);
	} else {
		pd_ctr_report_all();
	}
	pd_store_release(&pd_sock_interrupt_done, 1);
	pd_sys_futex(&pd_sock_interrupt_done, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL);
}

bool pd_sock_layer_interrupt(bool end)
{
	static struct pd_progress_work work = {.fn = pd_sock_interrupted};
	/* The peer of a port that closes has 200 ms to take what was sent to it. */
	const struct timespec most = {.tv_nsec = 300000000};

	if (!pd_progress_is_running() || (!end && !pd_ctr_report_wanted()))
		return false;
	if (end)
		pd_store_release(&pd_sock_interrupt_ends, 1);
	pd_store_release(&pd_sock_interrupt_done, 0);
	pd_progress_post(&work);
	pd_sys_futex(&pd_sock_interrupt_done, FUTEX_WAIT_PRIVATE, 0, &most);
	return true;
}
