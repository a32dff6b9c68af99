/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of ports: which there are, when they open, what state they are in, who owns them.
 *
 * The table is filled once from the configuration and does not move. Names, ifindexes, MAC and MTU
 * are constant from then on, so lookups take no lock. State changes happen under pd_control and are
 * read anywhere.
 *
 * The lease (transport.h): a word of the shared page is the owner's process id in the upper half
 * and the low bits of its start time in the lower, so that a reused process id is not taken for the
 * owner. Taking is one compare-and-swap. An eventfd, shared like the page, tells a process that
 * opened a port without using it that somebody else has taken it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"
#include "base/textfile.h"
#include "cli/server.h"
#include "config/vars.h"
#include "counters/counters.h"
#include "transport/transport.h"
#include "vlib/lane_plugins.h"
#include "vlib/process.h"
#include "vlib/progress.h"

#define PD_TRANSPORT(ops, name, argument) extern const struct pd_transport_ops ops;
#include "defs/transports.def"
#undef PD_TRANSPORT

/* What descendants share. */
struct pd_lease_page {
	uint64_t owner[PD_PORTS_MAX]; /* 0: nobody */
};

/*
 * In an owner's word: it has the port, which it is opening, or keeps closed with its partner; there
 * are no lanes yet. Above every process id.
 */
#define PD_LEASE_CLAIMED (1ull << 63)

struct pd_port pd_ports[PD_PORTS_MAX];
unsigned pd_port_count;
bool pd_ports_ended;
void (*pd_port_on_state)(struct pd_port *port, enum pd_port_state state);
void (*pd_port_on_receive_end)(struct pd_port *port, struct pd_lane *lane);
const uint64_t *pd_lease_words;
uint64_t pd_lease_self;

static void pd_port_log_late(struct pd_progress_timer *timer);

static struct pd_lease_page *pd_lease;
static void pd_lease_on_event(struct pd_progress_fd *entry, uint32_t revents);
static struct pd_progress_fd pd_lease_event = {
	/* Edge-triggered, since every process of the family polls it and nobody may empty it. */
	.fd = -1,
	.events = EPOLLIN | EPOLLET,
	.fn = pd_lease_on_event};

/* Lines of the log on one port's changes of state: so many at once, and one more each while. */
#define PD_PORT_LINES 10
#define PD_PORT_LINE_NS (10 * PD_NS_PER_SEC)

/* Blocks of lanes, kept here so that no transport has to give them back. */
static struct pd_ctr_block *pd_lane_ctr[PD_PORTS_MAX][PD_QUEUES_MAX];

/* As long as palladium_stats has room for. */
static const char pd_port_state_names[][sizeof(((struct pd_ctr_block *)0)->state)] = {
	[PD_PORT_CLOSED] = "closed",
	[PD_PORT_CONNECTING] = "waiting",
	[PD_PORT_UP] = "up",
	[PD_PORT_DOWN] = "down",
};
_Static_assert(PD_ARRAY_SIZE(pd_port_state_names) == PD_PORT_STATES, "one name per state");

/* --- the transport of a port whose transport is not there ---------------------------------- */

/* Refuse to open. */
static int pd_transport_none_open(struct pd_port *port)
{
	(void)port;
	return -EPROTONOSUPPORT;
}

/* Nothing was opened. */
static void pd_transport_none_close(struct pd_port *port)
{
	(void)port;
}

static const struct pd_transport_ops pd_transport_none = {
	.name = "none",
	.open = pd_transport_none_open,
	.close = pd_transport_none_close,
	.abandon = pd_transport_none_close,
};

static const struct pd_transport {
	const char *name;
	const struct pd_transport_ops *ops;
} pd_transports[] = {
#define PD_TRANSPORT(ops, name, argument) {name, &ops},
#include "defs/transports.def"
#undef PD_TRANSPORT
};

/* The transport called `name`, or the one that refuses. */
static const struct pd_transport_ops *pd_transport_by_name(const char *name)
{
	for (size_t i = 0; i < PD_ARRAY_SIZE(pd_transports); i++)
		if (!strcmp(pd_transports[i].name, name))
			return pd_transports[i].ops;
	return &pd_transport_none;
}

/* --- the table ----------------------------------------------------------------------------- */

/* How many lanes a port gets. */
static unsigned pd_port_count_lanes(const struct pd_port_config *pc)
{
	unsigned n = pd_min(pc->queues, (uint32_t)PD_QUEUES_MAX);
	unsigned limit = (unsigned)pd_vars.ring_limit_per_interface;

	if (!limit || limit >= n)
		return n;
	pd_info("port", "%s: %u of its %u queues, by PALLADIUM_RING_LIMIT_PER_INTERFACE", pc->name,
		limit, n);
	return limit;
}

int pd_ports_init(const struct pd_config *config)
{
	if (config->port_count > PD_PORTS_MAX)
		return -E2BIG;
	pd_mem_set_type((enum pd_mem_type)pd_vars.mem_alloc_type,
			pd_vars_is_set(&pd_vars, &pd_vars.mem_alloc_type));
	for (unsigned i = 0; i < config->port_count; i++) {
		const struct pd_port_config *pc = &config->ports[i];
		struct pd_port *port = &pd_ports[i];

		memset(port, 0, sizeof(*port));
		_Static_assert(sizeof(port->name) == sizeof(pc->name), "names are of one length");
		memcpy(port->name, pc->name, sizeof(port->name));
		port->index = (uint16_t)i;
		port->ifindex = PD_IFINDEX_BASE + i;
		memcpy(port->mac, pc->mac, sizeof(port->mac));
		port->mtu = pc->mtu;
		port->config = pc;
		port->n_lanes = pd_port_count_lanes(pc);
		pd_list_init(&port->lines_timer.node);
		port->lines_timer.fn = pd_port_log_late;
		pd_port_lanes_init(port);
		port->transport = pd_transport_by_name(pc->transport);
		if (port->transport == &pd_transport_none)
			pd_err("port", "%s: there is no transport \"%s\" in this build", port->name,
			       pc->transport);
	}
	pd_port_count = config->port_count;
	return 0;
}

struct pd_port *pd_port_by_name(const char *name)
{
	for (unsigned i = 0; i < pd_port_count; i++)
		if (!strcmp(pd_ports[i].name, name))
			return &pd_ports[i];
	return NULL;
}

struct pd_port *pd_port_by_ifindex(uint32_t ifindex)
{
	uint32_t i = ifindex - PD_IFINDEX_BASE;

	return i < pd_port_count ? &pd_ports[i] : NULL;
}

/* Note what kind of error there was last, and that it was now. pd_control held. */
static void pd_port_note_error(struct pd_port *port, int err)
{
	pd_ctr_gauge(port->ctr, PD_CTR_PORT_LAST_ERROR, (uint64_t)err);
	pd_ctr_gauge(port->ctr, PD_CTR_PORT_LAST_ERROR_NS, pd_clock_ns());
}

void pd_port_error_and_reason(struct pd_port *port, int err, const char *what, const char *reason)
{
	pd_port_note_error(port, err);
	pd_ctr_status(port->ctr, NULL, reason, what);
}

void pd_port_error(struct pd_port *port, int err, const char *what)
{
	pd_port_error_and_reason(port, err, what, NULL);
}

/* Write a change of state into the port's counters, the texts last. pd_control held. */
static void pd_port_count_state(struct pd_port *port, enum pd_port_state state, const char *reason)
{
	bool was_up = pd_ctr_get(port->ctr, PD_CTR_PORT_LINK) != 0;

	if (state == PD_PORT_UP) {
		if (pd_ctr_get(port->ctr, PD_CTR_PORT_CONNECTS))
			pd_ctr_count(port->ctr, PD_CTR_PORT_RECONNECTS, 1);
		pd_ctr_count(port->ctr, PD_CTR_PORT_CONNECTS, 1);
	} else if (was_up) {
		pd_ctr_count(port->ctr, PD_CTR_PORT_DISCONNECTS, 1);
	}
	pd_ctr_gauge(port->ctr, PD_CTR_PORT_LINK, state == PD_PORT_UP);
	pd_ctr_gauge(port->ctr, PD_CTR_PORT_LAST_CHANGE_NS, pd_clock_ns());
	if (state != PD_PORT_DOWN || !reason) {
		pd_ctr_status(port->ctr, pd_port_state_names[state], reason ? reason : "", NULL);
		return;
	}
	pd_port_note_error(port, 0);
	pd_ctr_status(port->ctr, pd_port_state_names[state], reason, reason);
}

/*
 * The state of `port` as a line of the log, with how many changes before it have none. pd_control
 * held.
 */
static void pd_port_log_line(struct pd_port *port, const char *reason)
{
	char before[80] = "";

	if (port->lines_left_out)
		snprintf(before, sizeof(before), " (%u changes before that were left out here)",
			 port->lines_left_out);
	port->lines_left_out = 0;
	pd_progress_timer_cancel(&port->lines_timer);
	pd_log(port->state == PD_PORT_DOWN ? PD_LOG_WARN : PD_LOG_INFO, "port", "%s is %s%s%s%s",
	       port->name, pd_port_state_names[port->state], reason && *reason ? ": " : "",
	       reason ? reason : "", before);
}

/* Changes were left out of the log, and a line may be written again: where they led to. */
static void pd_port_log_late(struct pd_progress_timer *timer)
{
	struct pd_port *port = pd_container_of(timer, struct pd_port, lines_timer);

	port->lines_ns += PD_PORT_LINE_NS;
	port->lines_left_out--; /* the last one is told now */
	pd_port_log_line(port, port->ctr ? port->ctr->reason : NULL);
}

/*
 * Log a change of state. A peer can make as many as it likes, so after the first few at once there
 * is a line every PD_PORT_LINE_NS at most, and always one of the last. `lines_ns` is when the lines
 * written so far would be due at that pace. What the program does itself is not bounded. pd_control
 * held.
 */
static void pd_port_log_state(struct pd_port *port, const char *reason)
{
	const uint64_t most = (PD_PORT_LINES - 1) * PD_PORT_LINE_NS;
	uint64_t now = pd_clock_ns(), ahead;

	if (port->state == PD_PORT_CLOSED) {
		pd_port_log_line(port, reason);
		return;
	}
	port->lines_ns = pd_max(port->lines_ns, now);
	ahead = port->lines_ns - now;
	if (ahead <= most) {
		port->lines_ns += PD_PORT_LINE_NS;
		pd_port_log_line(port, reason);
	} else if (!port->lines_left_out++) {
		pd_progress_timer_set(&port->lines_timer, ahead - most);
	}
}

void pd_port_set_state(struct pd_port *port, enum pd_port_state state, const char *reason)
{
	if (port->state == state)
		return;
	pd_store_release(&port->state, (uint32_t)state);
	pd_port_log_state(port, reason);
	if (port->ctr)
		pd_port_count_state(port, state, reason);
	if (pd_port_on_state)
		pd_port_on_state(port, state);
}

void pd_port_lane_init(struct pd_port *port, struct pd_lane *lane, const struct pd_lane_ops *ops,
		       uint16_t queue)
{
	struct pd_ctr_block *ctr[PD_DIRS], **slot = &pd_lane_ctr[port->index][queue];
	char name[sizeof(port->name) + 8];

	if (!*slot) {
		snprintf(name, sizeof(name), "%s/%u", port->name, queue);
		*slot = pd_ctr_alloc(PD_CTR_LANE, queue, port->index, name);
	}
	ctr[PD_RX] = ctr[PD_TX] = *slot;
	pd_lane_init(lane, ops, port->index, queue, ctr);
	pd_lane_plugins_attach(lane, port->name);
	pd_port_lanes_watch(port, lane);
}

/*
 * The process that brings the published sums up to date once a second, from the first event on,
 * which says that there is a file: at full seconds, when other periodic work is due too, so that
 * all of it costs one wake-up.
 */
static void pd_port_publisher(struct pd_process *p)
{
	uintptr_t type, data;

	pd_process_wait_for_event(p);
	for (;;) {
		while (pd_process_events(p, &type, &data, 1))
			;
		if (type == PD_PROCESS_CLOCK)
			pd_ctr_publish();
		if (type == PD_PROCESS_STOP)
			return;
		pd_process_wait_for_event_or_clock(p,
						   PD_NS_PER_SEC - pd_clock_ns() % PD_NS_PER_SEC);
	}
}

PD_NODE_REGISTER(pd_port_publisher) = {
	.name = "statistics",
	.type = PD_NODE_PROCESS,
	.process = pd_port_publisher,
};

/*
 * Open the counters and make the port's block. What fails leaves private counters. pd_control held.
 */
static void pd_port_count_open(struct pd_port *port)
{
	const char *dir =
		pd_vars_is_set(&pd_vars, &pd_vars.stats_shmem_dir) ? pd_vars.stats_shmem_dir : NULL;
	struct pd_process *publisher = pd_process_find("statistics");
	static bool told;
	int ret;

	ret = pd_ctr_open(dir, (unsigned)pd_min(pd_vars.stats_fd_num, PD_CTR_SOCKETS_MAX));
	if (ret < 0 && !told) {
		told = true;
		pd_warn("counters", "no statistics file%s%s: %s%s", dir ? " in " : "",
			dir ? dir : "", pd_strerror(ret),
			ret == -EFBIG ? " (the limit of ulimit -f)" : "");
	}
	if (pd_ctr_path() && publisher)
		pd_process_signal(publisher, 0, 0);
	if (port->ctr)
		return;
	port->ctr = pd_ctr_alloc(PD_CTR_PORT, port->index, PD_SHM_NONE, port->name);
	pd_ctr_text(port->ctr, PD_CTR_TEXT_KIND, "%s", port->transport->name);
	pd_ctr_text(port->ctr, PD_CTR_TEXT_PATH, "%s",
		    *port->config->path ? port->config->path : port->config->peer);
	pd_ctr_gauge(port->ctr, PD_CTR_PORT_MTU, port->mtu);
	pd_ctr_gauge(port->ctr, PD_CTR_PORT_QUEUES, port->n_lanes);
}

/* Forget the lanes of a port whose transport has let them go. */
static void pd_port_forget_lanes(struct pd_port *port)
{
	pd_port_lanes_forget(port);
	for (unsigned q = 0; q < PD_QUEUES_MAX; q++) {
		if (pd_lane_ctr[port->index][q])
			pd_ctr_free(pd_lane_ctr[port->index][q]);
		pd_lane_ctr[port->index][q] = NULL;
	}
}

/* --- the lease ----------------------------------------------------------------------------- */

/*
 * Read state and start time of process `pid` from /proc. Returns 0 with *start, -ESRCH when it is
 * gone or a zombie, or another -errno when it cannot be told.
 */
static int pd_process_start_time(pid_t pid, uint32_t *start)
{
	const char *state, *began;
	char path[32], text[512];
	int ret;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	ret = pd_textfile_read(path, text, sizeof(text));
	if (ret)
		return ret == -ENOENT ? -ESRCH : ret;
	state = pd_shm_stat_field(text, 3);
	began = pd_shm_stat_field(text, 22);
	if (state && (*state == 'Z' || *state == 'X'))
		return -ESRCH;
	if (!began)
		return -EIO;
	*start = (uint32_t)strtoull(began, NULL, 10);
	return 0;
}

/* True when the process that `word` names still runs. */
static bool pd_lease_owner_lives(uint64_t word)
{
	pid_t pid = (pid_t)((word & ~PD_LEASE_CLAIMED) >> 32);
	uint32_t start = 0;
	int ret = pd_process_start_time(pid, &start);

	if (ret == 0)
		return start == (uint32_t)word;
	if (ret != -ESRCH)
		return true; /* it cannot be told: two owners would be worse than none */
	/* No such directory: gone, unless there is no /proc at all. */
	return PD_SYS_2(SYS_kill, pid, 0) != -ESRCH &&
	       pd_process_start_time(pd_sys_getpid(), &start) != 0;
}

/* This process as a word of the page. */
static uint64_t pd_lease_make_self(void)
{
	pid_t pid = pd_sys_getpid();
	uint32_t start = 0;

	pd_process_start_time(pid, &start);
	return (uint64_t)pid << 32 | start;
}

/* Make the page and its eventfd, once in a family of processes. pd_control held. Returns 0 or
 * -errno. */
static int pd_lease_setup(void)
{
	void *page;
	int fd;

	if (!pd_lease_self)
		pd_lease_self = pd_lease_make_self();
	if (pd_lease)
		return 0;
	fd = pd_internal_fd(pd_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (fd < 0)
		return fd;
	page = pd_sys_mmap(NULL, sizeof(*pd_lease), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (pd_sys_is_error(page)) {
		pd_sys_close(fd);
		return (int)(intptr_t)page;
	}
	pd_lease = page;
	pd_lease_event.fd = fd;
	pd_store_release(&pd_lease_words, pd_lease->owner);
	return 0;
}

/* --- opening and closing ------------------------------------------------------------------- */

/*
 * Tell the progress thread where it may run, before it starts for the first time. pd_control held.
 */
static void pd_port_place_progress(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	if (pd_progress_set_affinity(pd_vars.internal_thread_affinity) < 0)
		pd_warn("port",
			"PALLADIUM_INTERNAL_THREAD_AFFINITY=%s is not a mask, a list or -1: "
			"ignored",
			pd_vars.internal_thread_affinity);
	if (pd_progress_set_cpuset(pd_vars.internal_thread_cpuset) < 0)
		pd_warn("port", "PALLADIUM_INTERNAL_THREAD_CPUSET is too long: ignored");
}

/* Whether this process has the port of the word `owner`, usable or claimed. */
static bool pd_lease_is_ours(uint64_t owner)
{
	return (owner & ~PD_LEASE_CLAIMED) == pd_lease_self;
}

/* Make the word of `port`, if this process has it, `word`. pd_control held. */
static void pd_lease_write(struct pd_port *port, uint64_t word)
{
	uint64_t owner = pd_lease ? pd_load_acquire(&pd_lease->owner[port->index]) : 0;

	if (owner && pd_lease_is_ours(owner))
		pd_cas(&pd_lease->owner[port->index], &owner, word);
}

/* pd_port_open with pd_control held. */
static int pd_port_open_locked(struct pd_port *port)
{
	int ret;

	if (port->state != PD_PORT_CLOSED)
		return 0;
	if (pd_ports_ended)
		return -ESHUTDOWN;
	pd_vars_log_settings();
	pd_port_place_progress();
	ret = pd_progress_start();
	if (ret < 0)
		goto err;
	ret = pd_lease_setup();
	if (ret < 0)
		goto err;
	if (!pd_lease_event.active) {
		ret = pd_progress_add(&pd_lease_event);
		if (ret < 0)
			goto err;
	}
	pd_port_count_open(port);
	pd_cli_server_start();
	pd_store_release(&port->state, (uint32_t)PD_PORT_CONNECTING);
	pd_ctr_status(port->ctr, pd_port_state_names[PD_PORT_CONNECTING], PD_PORT_NO_PEER_YET,
		      NULL);
	ret = port->transport->open(port);
	if (ret == 0)
		return 0;
	pd_port_forget_lanes(port);
	pd_port_error(port, -ret, pd_strerror(ret));
	pd_store_release(&port->state, (uint32_t)PD_PORT_CLOSED);
err:
	pd_log_ratelimited(PD_LOG_ERROR, "port", "%s cannot be opened: %s", port->name,
			   pd_strerror(ret));
	return ret;
}

int pd_port_open(struct pd_port *port)
{
	int ret;

	if (pd_load_acquire(&port->state) != PD_PORT_CLOSED)
		return 0;
	pd_lock(&pd_control);
	ret = pd_port_open_locked(port);
	if (!ret)
		pd_lease_write(port,
			       pd_lease_self); /* claimed with its partner: now it can be used */
	pd_unlock(&pd_control);
	return ret;
}

/* pd_port_close with pd_control held. */
static void pd_port_close_locked(struct pd_port *port, const char *reason)
{
	if (port->state != PD_PORT_CLOSED) {
		port->transport->close(port);
		if (!pd_ports_ended)
			pd_port_forget_lanes(port);
		pd_port_set_state(port, PD_PORT_CLOSED, reason);
	}
	pd_lease_write(port, 0);
}

void pd_port_close(struct pd_port *port)
{
	pd_lock(&pd_control);
	pd_port_close_locked(port, NULL);
	pd_unlock(&pd_control);
}

/* pd_ports_close_all with pd_control held. */
static void pd_ports_close_all_locked(void)
{
	for (unsigned i = 0; i < pd_port_count; i++)
		pd_port_close_locked(&pd_ports[i], NULL);
}

void pd_ports_close_all(void)
{
	pd_lock(&pd_control);
	pd_ports_close_all_locked();
	pd_unlock(&pd_control);
}

void pd_ports_end_locked(void)
{
	pd_store_release(&pd_ports_ended, true);
	pd_cli_server_stop();
	pd_ports_close_all_locked();
}

void pd_ports_end(void)
{
	pd_lock(&pd_control);
	pd_ports_end_locked();
	pd_unlock(&pd_control);
}

/*
 * Ports that were open here before another process, or the parent of this one, had them: taking the
 * lease opens them.
 */
static bool pd_lease_reopen[PD_PORTS_MAX];

/*
 * Somebody has taken a lease: close the ports that this process opened and another one uses. Nobody
 * here is inside one of their lanes: that would have needed the lease.
 */
static void pd_lease_on_event(struct pd_progress_fd *entry, uint32_t revents)
{
	(void)entry;
	(void)revents;
	for (unsigned i = 0; i < pd_port_count; i++) {
		struct pd_port *port = &pd_ports[i];
		uint64_t owner = pd_load_acquire(&pd_lease->owner[i]);

		if (port->state == PD_PORT_CLOSED || !owner || pd_lease_is_ours(owner))
			continue;
		pd_lease_reopen[i] = true;
		pd_port_close_locked(port, "another process of the family uses it");
	}
}

/* This process came from a fork of one with ports; PALLADIUM_FORK says what it may do. */
static bool pd_lease_forked;

/*
 * Claim the word of `port`, from nobody or from a process that is gone. pd_control held. False when
 * a living process has it.
 */
static bool pd_lease_claim(struct pd_port *port)
{
	uint64_t owner = pd_load_acquire(&pd_lease->owner[port->index]);

	if (pd_lease_is_ours(owner))
		return true;
	if (owner && pd_lease_owner_lives(owner))
		return false;
	return pd_cas(&pd_lease->owner[port->index], &owner, pd_lease_self | PD_LEASE_CLAIMED);
}

/*
 * What was claimed is open: it may be used. Or it could not be opened: it is nobody's again. A port
 * that is only claimed with its partner is opened if it was open before, else stays claimed until
 * its own first use. pd_control held. True when it is ours.
 */
static bool pd_lease_settle(struct pd_port *port, bool open)
{
	if ((open || pd_lease_reopen[port->index]) && pd_port_open_locked(port) < 0) {
		pd_lease_write(port, 0);
		return false;
	}
	if (port->state != PD_PORT_CLOSED) {
		pd_lease_reopen[port->index] = false;
		pd_lease_write(port, pd_lease_self);
	}
	return true;
}

/*
 * Claim `port` and its partner, the lower index first: whoever has that one has both. pd_control
 * held.
 */
static bool pd_lease_claim_pair(struct pd_port *port, struct pd_port *partner)
{
	struct pd_port *first = port, *second = partner;
	uint64_t mark = pd_lease_self | PD_LEASE_CLAIMED;

	if (!partner)
		return pd_lease_claim(port);
	if (partner->index < port->index) {
		first = partner;
		second = port;
	}
	if (!pd_lease_claim(first))
		return false;
	if (pd_lease_claim(second))
		return true;
	pd_cas(&pd_lease->owner[first->index], &mark, 0);
	return false;
}

bool pd_port_lease_take_slow(struct pd_port *port)
{
	struct pd_port *partner = *port->config->peer ? pd_port_by_name(port->config->peer) : NULL;
	static const uint64_t one = 1;
	bool taken = false;
	uint64_t before;

	if (pd_lease_forked && !pd_vars.fork)
		return false;
	pd_lock(&pd_control);
	if (pd_ports_ended || pd_lease_setup() < 0)
		goto out;
	before = pd_load_relaxed(&pd_lease->owner[port->index]);
	if (!pd_lease_claim_pair(port, partner))
		goto out;
	if (before != pd_lease_self)
		pd_sys_write(pd_lease_event.fd, &one, sizeof(one));
	taken = pd_lease_settle(port, true);
	if (partner)
		pd_lease_settle(partner, false);
	if (partner && !taken && partner->state == PD_PORT_CLOSED)
		pd_lease_write(partner, 0);
out:
	pd_unlock(&pd_control);
	return taken;
}

void pd_ports_after_fork(void)
{
	pd_progress_after_fork();
	pd_cli_server_after_fork();
	pd_lease_forked = true;
	pd_lease_self = 0;
	for (unsigned i = 0; i < pd_port_count; i++) {
		struct pd_port *port = &pd_ports[i];

		if (port->state == PD_PORT_CLOSED)
			continue;
		pd_lease_reopen[i] = true;
		port->transport->abandon(port);
		pd_port_forget_lanes(port);
		pd_progress_timer_cancel(&port->lines_timer);
		port->lines_left_out = 0;
		port->state = PD_PORT_CLOSED;
	}
	pd_lease_self = pd_lease_make_self();
}
