/* SPDX-License-Identifier: BSD-2-Clause */
/* Which lane a frame or a socket uses (the theory stands in steer.h). */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>

#include "base/lib.h"
#include "base/log.h"
#include "base/sys.h"
#include "config/vars.h"
#include "palladium_extra.h"
#include "sock/packet.h"
#include "sock/steer.h"

/* What of a frame the hash may look at: Ethernet, two tags, IPv6, ports. */
#define PD_STEER_VIEW_BYTES (ETH_HLEN + 8 + 40 + 4)

/* --- who uses a socket --------------------------------------------------------------------- */

/* What is known of the threads: how many were numbered, and which cores they were attached to. */
static struct {
	struct pd_lock lock;
	uint32_t sockets, threads, attached;
	bool first_set;
	cpu_set_t first; /* where the first thread might run */
	cpu_set_t given; /* cores that threads were attached to */
} pd_steer_census = {.lock = PD_LOCK_INIT(PD_RANK_LEAF)};

static PD_TLS uint32_t pd_steer_thread;   /* number of this thread, from 1; 0: none yet */
static PD_TLS bool pd_steer_attach_tried; /* PD_STEER_CORE_ATTACH */

/* The nth core of a set. */
static int pd_steer_nth_core(const cpu_set_t *set, unsigned n)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, set) && !n--)
			return cpu;
	return 0;
}

/*
 * Attach the calling thread to one of the cores that it may run on, a different one each time. A thread inherits the mask of the
 * thread that made it: one that stands on a core that was given away is treated as if it might run where the first one might. A thread
 * that the program has put on one core itself stays there.
 */
static void pd_steer_attach(void)
{
	cpu_set_t may, one;
	int cpu, ret;

	pd_steer_attach_tried = true;
	ret = pd_sys_sched_getaffinity(0, sizeof(may), &may);
	if (ret < 0) {
		pd_log_ratelimited(PD_LOG_WARN, "sock", "a thread is not attached to a core: %s",
				   pd_strerror(ret));
		return;
	}
	/* The kernel fills only as much as it has cores. */
	memset((uint8_t *)&may + ret, 0, sizeof(may) - (size_t)ret);
	pd_lock(&pd_steer_census.lock);
	if (!pd_steer_census.first_set) {
		pd_steer_census.first = may;
		pd_steer_census.first_set = true;
	}
	if (CPU_COUNT(&may) == 1) {
		CPU_AND(&one, &may, &pd_steer_census.given);
		if (CPU_COUNT(&one))
			may = pd_steer_census.first;
	}
	cpu = pd_steer_nth_core(&may,
				pd_steer_census.attached++ % (unsigned)pd_max(CPU_COUNT(&may), 1));
	CPU_SET((unsigned)cpu, &pd_steer_census.given);
	pd_unlock(&pd_steer_census.lock);
	CPU_ZERO(&one);
	CPU_SET((unsigned)cpu, &one);
	ret = pd_sys_sched_setaffinity(0, sizeof(one), &one);
	if (ret < 0)
		pd_log_ratelimited(PD_LOG_WARN, "sock", "a thread is not attached to core %d: %s",
				   cpu, pd_strerror(ret));
}

/* The number of the calling thread or of its core. */
static uint32_t pd_steer_user(int logic)
{
	int cpu;

	if (logic == PD_STEER_CORE_ATTACH && pd_unlikely(!pd_steer_attach_tried))
		pd_steer_attach();
	if (logic != PD_STEER_THREAD) {
		cpu = sched_getcpu();
		if (pd_likely(cpu >= 0))
			return (uint32_t)cpu;
	}
	if (pd_unlikely(!pd_steer_thread))
		pd_steer_thread = pd_fetch_add(&pd_steer_census.threads, 1) + 1;
	return pd_steer_thread - 1;
}

void pd_steer_own_init(struct pd_steer_own *own, int logic)
{
	*own = (struct pd_steer_own){0};
	if (logic == PD_STEER_SOCKET)
		own->number = pd_fetch_add(&pd_steer_census.sockets, 1);
	else if (logic >= PD_STEER_THREAD)
		own->number = pd_steer_user(logic);
	own->candidate = own->number;
}

uint32_t pd_steer_own_number(struct pd_steer_own *own, int logic, int ratio)
{
	uint32_t number = pd_load_relaxed(&own->number), user;
	int32_t uses;

	if (logic == PD_STEER_CORE_ATTACH && pd_unlikely(!pd_steer_attach_tried))
		pd_steer_attach();
	if (logic < PD_STEER_THREAD || ratio < 0)
		return number;
	uses = pd_load_relaxed(&own->uses) + 1;
	if (pd_likely(uses < ratio)) {
		pd_store_relaxed(&own->uses, uses);
		return number;
	}
	pd_store_relaxed(&own->uses, 0);
	user = pd_steer_user(logic);
	/* Twice in a row the same one: it stays, so follow it. */
	if (user != number && user == pd_load_relaxed(&own->candidate)) {
		pd_store_relaxed(&own->number, user);
		number = user;
	}
	pd_store_relaxed(&own->candidate, user);
	return number;
}

void pd_steer_after_fork(void)
{
	pd_lock_init(&pd_steer_census.lock, PD_RANK_LEAF);
	pd_steer_attach_tried = false;
	/* Brothers start from different cores. */
	pd_steer_census.attached += (uint32_t)pd_sys_getpid();
}

/* --- from keys to lanes -------------------------------------------------------------------- */

/* The nth bit that is set in `bits`, which has more than `n`. */
static unsigned pd_steer_nth(uint32_t bits, unsigned n)
{
	while (n--)
		bits &= bits - 1;
	return (unsigned)__builtin_ctz(bits);
}

unsigned pd_steer_pick(uint32_t lanes, uint32_t key, bool by_class)
{
	const uint32_t classes = (1u << MAX_PFC_QUEUES) - 1;
	uint32_t n = key & ~PD_STEER_SPREAD, some = lanes, home;
	unsigned first = 0;

	if (!(key & PD_STEER_SPREAD)) {
		if (lanes & classes)
			some = lanes & classes;
	} else if (by_class && lanes & ~classes) {
		first = MAX_PFC_QUEUES;
		some = lanes >> first;
	}
	home = n % (32 - (unsigned)__builtin_clz(some));
	if (pd_likely(some >> home & 1))
		return first + home;
	/* The lower bits of a hash say that it belongs to this lane: let others choose the next. */
	return first + pd_steer_nth(some, (n + (n >> 8)) % (unsigned)__builtin_popcount(some));
}

/* --- flows --------------------------------------------------------------------------------- */

/* Mix `len` bytes into a hash. */
static uint64_t pd_steer_mix(uint64_t h, const uint8_t *bytes, size_t len)
{
	uint64_t w;

	for (; len; bytes += pd_min(len, sizeof(w)), len -= pd_min(len, sizeof(w))) {
		w = 0;
		memcpy(&w, bytes, pd_min(len, sizeof(w)));
		h = (h ^ w) * 0x9e3779b97f4a7c15u;
		h ^= h >> 32;
	}
	return h;
}

/* The hash of an IP packet; false when it is too short to be one. */
static bool pd_steer_mix_ip(const uint8_t *l3, size_t len, bool v6, bool source_only, uint64_t *h)
{
	const size_t at = v6 ? 8 : 12, address = v6 ? 16 : 4;
	size_t header = v6 ? 40 : (l3[0] & 15u) * 4u;
	uint8_t protocol;
	bool whole;

	if (len < (v6 ? 40u : 20u))
		return false;
	*h = pd_steer_mix(*h, l3 + at, source_only ? address : 2 * address);
	if (source_only)
		return true;
	protocol = l3[v6 ? 6 : 9];
	/* Only the first fragment has ports: none of them counts them. */
	whole = v6 || !((l3[6] & 0x3f) | l3[7]);
	*h = pd_steer_mix(*h, &protocol, 1);
	if (whole && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) && len >= header + 4)
		*h = pd_steer_mix(*h, l3 + header, 4);
	return true;
}

uint32_t pd_steer_hash(const uint8_t *l3, size_t len, uint16_t type, const uint8_t *macs,
		       bool source_only)
{
	uint64_t h = 0;

	while ((type == ETH_P_8021Q || type == ETH_P_8021AD) && len >= 4) {
		/* The number of the network, not its priority. */
		const uint8_t vlan[2] = {l3[0] & 15, l3[1]};

		h = source_only ? h : pd_steer_mix(h, vlan, sizeof(vlan));
		type = (uint16_t)(l3[2] << 8 | l3[3]);
		l3 += 4;
		len -= 4;
	}
	if (!((type == ETH_P_IP || type == ETH_P_IPV6) && len &&
	      pd_steer_mix_ip(l3, len, type == ETH_P_IPV6, source_only, &h)))
		h = source_only ? pd_steer_mix(h, macs + ETH_ALEN, ETH_ALEN)
				: pd_steer_mix(h ^ type, macs, 2 * ETH_ALEN);
	/* Whatever bit a flow differs in, each bit of the result depends on it: lanes are few. */
	h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
	h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
	return (uint32_t)(h >> 32);
}

/* --- messages ------------------------------------------------------------------------------ */

/* Copy up to `n` bytes of a message from byte `skip` on; returns how many. */
static size_t pd_steer_peek(const struct msghdr *m, size_t skip, uint8_t *out, size_t n)
{
	size_t done = 0;

	for (size_t i = 0; i < m->msg_iovlen && done < n; i++) {
		const struct iovec *iov = &m->msg_iov[i];
		size_t some;

		if (iov->iov_len <= skip) {
			skip -= iov->iov_len;
			continue;
		}
		some = pd_min(iov->iov_len - skip, n - done);
		memcpy(out + done, (const uint8_t *)iov->iov_base + skip, some);
		done += some;
		skip = 0;
	}
	return done;
}

/* The class that a sidecar says. */
static unsigned pd_steer_sidecar_class(const struct pd_sidecar *sidecar)
{
	/* A control message has none. Every peer listens to the first queue. */
	if (pd_sidecar_is_control(sidecar))
		return 0;
	return sidecar->avip.pd.pfc_priority % MAX_PFC_QUEUES;
}

/* The class of a message, or -1 when it has none. */
static int pd_steer_class(const struct pd_packet *s, const struct msghdr *m)
{
	const uint8_t *given = NULL;
	struct pd_sidecar sidecar;
	int err = 0;

	if (pd_load_relaxed(&s->inline_mode)) {
		if (pd_steer_peek(m, 0, sidecar.bytes, PD_SIDECAR_BYTES) < PD_SIDECAR_BYTES)
			return -1;
	} else {
		if (m->msg_control && m->msg_controllen)
			given = pd_packet_cmsg_sidecar(m, &err);
		if (!given && !pd_load_relaxed(&s->has_class))
			return -1;
		memcpy(sidecar.bytes, given ? given : s->default_sidecar.bytes, PD_SIDECAR_BYTES);
	}
	return (int)pd_steer_sidecar_class(&sidecar);
}

/* The hash of a message's flow. */
static uint32_t pd_steer_flow(const struct pd_packet *s, const struct pd_port *port,
			      const struct msghdr *m, bool source_only)
{
	size_t skip = pd_load_relaxed(&s->inline_mode) ? PD_SIDECAR_BYTES : 0, len;
	const struct sockaddr_ll *ll = m->msg_name;
	uint8_t view[PD_STEER_VIEW_BYTES] = {0};
	uint16_t type;

	if (s->type == SOCK_DGRAM && ll) { /* the caller has looked at the address */
		memcpy(view, ll->sll_addr, ETH_ALEN);
		memcpy(view + ETH_ALEN, port->mac, ETH_ALEN);
		memcpy(view + 2 * ETH_ALEN, &ll->sll_protocol, 2);
		len = ETH_HLEN + pd_steer_peek(m, skip, view + ETH_HLEN, sizeof(view) - ETH_HLEN);
	} else {
		len = pd_steer_peek(m, skip, view, sizeof(view));
	}
	type = (uint16_t)(view[2 * ETH_ALEN] << 8 | view[2 * ETH_ALEN + 1]);
	return pd_steer_hash(view + ETH_HLEN, len < ETH_HLEN ? 0 : len - ETH_HLEN, type, view,
			     source_only);
}

uint32_t pd_steer_message(struct pd_packet *s, struct pd_port *port, const struct msghdr *m)
{
	int logic = pd_vars.ring_allocation_logic_tx, class;
	uint32_t n;

	if (pd_packet_port_of(port)->by_class) {
		class = pd_steer_class(s, m);
		if (class >= 0)
			return (uint32_t) class;
	}
	if (logic >= PD_STEER_SOCKET)
		n = pd_steer_own_number(&s->send_own, logic, pd_vars.ring_migration_ratio_tx);
	else
		n = pd_steer_flow(s, port, m, logic == PD_STEER_IP);
	return n | PD_STEER_SPREAD;
}

uint32_t pd_steer_writable(struct pd_packet *s, struct pd_port *port)
{
	uint32_t key = pd_load_relaxed(&s->send_key);

	if (key != PD_STEER_NONE)
		return key;
	if (pd_packet_port_of(port)->by_class && pd_load_relaxed(&s->has_class))
		return pd_steer_sidecar_class(&s->default_sidecar);
	return PD_STEER_SPREAD | pd_load_relaxed(&s->send_own.number);
}

/* --- receiving ----------------------------------------------------------------------------- */

/* Every so many receives a socket begins with another lane than its own. */
#define PD_STEER_OTHERS_TURN 16

unsigned pd_steer_receive(struct pd_packet *s, const struct pd_port *port)
{
	unsigned next = pd_load_relaxed(&s->next_lane) % port->n_lanes, turns;
	int logic = pd_vars.ring_allocation_logic_rx;

	if (logic < PD_STEER_SOCKET || pd_load_relaxed(&s->lane_seen))
		return next;
	turns = pd_load_relaxed(&s->lane_turns) + 1;
	pd_store_relaxed(&s->lane_turns, turns);
	if (turns % PD_STEER_OTHERS_TURN == 0)
		return next;
	return pd_steer_own_number(&s->receive_own, logic, pd_vars.ring_migration_ratio_rx) %
	       port->n_lanes;
}

void pd_steer_received(struct pd_packet *s, const struct pd_port *port, unsigned lane,
		       unsigned first)
{
	/* What comes by the socket's own lane does not change whose turn it is among the others. */
	if (pd_vars.ring_allocation_logic_rx < PD_STEER_SOCKET || lane != first ||
	    first == pd_load_relaxed(&s->next_lane))
		pd_store_relaxed(&s->next_lane, (lane + 1) % port->n_lanes);
	pd_store_relaxed(&s->lane_seen, false);
}

void pd_steer_looked(struct pd_packet *s, unsigned lane)
{
	pd_store_relaxed(&s->next_lane, lane);
	pd_store_relaxed(&s->lane_seen, true);
}
