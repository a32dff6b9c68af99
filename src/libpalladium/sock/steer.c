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
 * Attach the calling thread to one of the cores that it may run on, a different one each time. A
 * thread inherits the mask of the thread that made it: one that stands on a core that was given
 * away is treated as if it might run where the first one might. A thread that the program has put
 * on one core itself stays there.
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

/* Mix one word into a hash. */
static inline uint64_t pd_steer_mix(uint64_t h, uint64_t word)
{
	h = (h ^ word) * 0x9e3779b97f4a7c15u;
	return h ^ h >> 32;
}

/* Mix eight bytes into a hash, or four. */
static inline uint64_t pd_steer_mix8(uint64_t h, const uint8_t *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return pd_steer_mix(h, word);
}

/* Mix four bytes. */
static inline uint64_t pd_steer_mix4(uint64_t h, const uint8_t *bytes)
{
	uint32_t word;

	memcpy(&word, bytes, sizeof(word));
	return pd_steer_mix(h, word);
}

/*
 * Mix what tells the flows between two hosts apart: the protocol, and the ports at `l4` if it has
 * such.
 */
static inline uint64_t pd_steer_mix_l4(uint64_t h, uint8_t protocol, const uint8_t *l4,
				       const uint8_t *end)
{
	if ((protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) && end - l4 >= 4)
		h = pd_steer_mix4(h, l4);
	return pd_steer_mix(h, protocol);
}

/* The hash of an IPv4 packet of 20 bytes and more. */
static inline uint64_t pd_steer_mix_ipv4(uint64_t h, const uint8_t *l3, size_t len,
					 bool source_only)
{
	size_t header = (l3[0] & 15u) * 4u;
	/* Only the first fragment has ports: none of them counts them. */
	bool whole = !((l3[6] & 0x3f) | l3[7]);

	if (source_only)
		return pd_steer_mix4(h, l3 + 12);
	h = pd_steer_mix8(h, l3 + 12);
	return pd_steer_mix_l4(h, l3[9], l3 + pd_min(whole ? header : len, len), l3 + len);
}

/* The hash of an IPv6 packet of 40 bytes and more. */
static inline uint64_t pd_steer_mix_ipv6(uint64_t h, const uint8_t *l3, size_t len,
					 bool source_only)
{
	h = pd_steer_mix8(pd_steer_mix8(h, l3 + 8), l3 + 16);
	if (source_only)
		return h;
	h = pd_steer_mix8(pd_steer_mix8(h, l3 + 24), l3 + 32);
	return pd_steer_mix_l4(h, l3[6], l3 + 40, l3 + len);
}

uint32_t pd_steer_hash(const uint8_t *l3, size_t len, uint16_t type, const uint8_t *macs,
		       bool source_only)
{
	uint64_t h = 0;

	while (pd_unlikely(type == ETH_P_8021Q || type == ETH_P_8021AD) && len >= 4) {
		/* The number of the network, not its priority. */
		if (!source_only)
			h = pd_steer_mix(h, (l3[0] & 15u) << 8 | l3[1]);
		type = (uint16_t)(l3[2] << 8 | l3[3]);
		l3 += 4;
		len -= 4;
	}
	if (type == ETH_P_IP && len >= 20)
		h = pd_steer_mix_ipv4(h, l3, len, source_only);
	else if (type == ETH_P_IPV6 && len >= 40)
		h = pd_steer_mix_ipv6(h, l3, len, source_only);
	else if (source_only)
		h = pd_steer_mix4(h, macs + 8) ^ macs[6] ^ macs[7] << 8;
	else
		h = pd_steer_mix4(pd_steer_mix8(h ^ type, macs), macs + 8);
	/* Whatever bit a flow differs in, each bit of the result depends on it: lanes are few. */
	h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
	h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
	return (uint32_t)(h >> 32);
}

/* --- messages ------------------------------------------------------------------------------ */

/*
 * Up to `n` bytes of a message from byte `skip` on, in one piece: where they are, or in `copy`,
 * which has room for as many. *len becomes how many there are.
 */
static const uint8_t *pd_steer_view(const struct msghdr *m, size_t skip, size_t n, uint8_t *copy,
				    size_t *len)
{
	const struct iovec *iov = m->msg_iov;
	size_t done = 0;

	if (pd_likely(m->msg_iovlen && iov->iov_len > skip &&
		      (iov->iov_len - skip >= n || m->msg_iovlen == 1))) {
		*len = pd_min(iov->iov_len - skip, n);
		return (const uint8_t *)iov->iov_base + skip;
	}
	for (size_t i = 0; i < m->msg_iovlen && done < n; i++, iov++) {
		size_t some = iov->iov_len > skip ? pd_min(iov->iov_len - skip, n - done) : 0;

		if (some)
			memcpy(copy + done, (const uint8_t *)iov->iov_base + skip, some);
		skip = some ? 0 : skip - iov->iov_len;
		done += some;
	}
	*len = done;
	return copy;
}

/* The class that a sidecar says. */
static inline unsigned pd_steer_sidecar_class(const uint8_t *sidecar)
{
	/* A control message has none. Every peer listens to the first queue. */
	if (sidecar[PD_SIDECAR_AT(generic_flags)] & IXVERIFY_ONLY_CTRL_PKT)
		return 0;
	return sidecar[PD_SIDECAR_AT(pd.pfc_priority)] % MAX_PFC_QUEUES;
}

/* The class of a message, or -1 when it has none. */
static int pd_steer_class(const struct pd_packet *s, const struct msghdr *m)
{
	const uint8_t *sidecar = NULL;
	uint8_t copy[PD_SIDECAR_BYTES];
	size_t len;
	int err = 0;

	if (pd_load_relaxed(&s->inline_mode)) {
		sidecar = pd_steer_view(m, 0, PD_SIDECAR_BYTES, copy, &len);
		if (len < PD_SIDECAR_BYTES)
			return -1;
	} else {
		if (m->msg_control && m->msg_controllen)
			sidecar = pd_packet_cmsg_sidecar(m, &err);
		if (!sidecar && !pd_load_relaxed(&s->has_class))
			return -1;
		if (!sidecar)
			sidecar = s->default_sidecar.bytes;
	}
	return (int)pd_steer_sidecar_class(sidecar);
}

/* The hash of a message's flow. */
static uint32_t pd_steer_flow(const struct pd_packet *s, const struct pd_port *port,
			      const struct msghdr *m, bool source_only)
{
	size_t skip = pd_packet_front_bytes(s), len;
	const struct sockaddr_ll *ll = m->msg_name;
	uint8_t copy[PD_STEER_VIEW_BYTES];
	const uint8_t *view;

	if (pd_unlikely(s->type == SOCK_DGRAM)) {
		uint8_t macs[2 * ETH_ALEN] = {0};

		view = pd_steer_view(m, skip, sizeof(copy), copy, &len);
		if (ll) /* the caller has looked at it */
			memcpy(macs, ll->sll_addr, ETH_ALEN);
		memcpy(macs + ETH_ALEN, port->mac, ETH_ALEN);
		return pd_steer_hash(view, len, ll ? ntohs(ll->sll_protocol) : 0, macs,
				     source_only);
	}
	view = pd_steer_view(m, skip, sizeof(copy), copy, &len);
	if (pd_unlikely(len < ETH_HLEN)) /* no frame; the send will say so */
		return 0;
	return pd_steer_hash(view + ETH_HLEN, len - ETH_HLEN, (uint16_t)(view[12] << 8 | view[13]),
			     view, source_only);
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
		return pd_steer_sidecar_class(s->default_sidecar.bytes);
	return PD_STEER_SPREAD | pd_load_relaxed(&s->send_own.number);
}

/* --- receiving ----------------------------------------------------------------------------- */

/* Every so many receives a socket begins with another lane than its own. */
#define PD_STEER_OTHERS_TURN 16
/*
 * Other lanes have so many in a row each: looking at lanes that are empty costs as much as
 * receiving a frame.
 */
#define PD_STEER_TURN 4

unsigned pd_steer_receive(struct pd_packet *s, const struct pd_port *port, unsigned *others)
{
	int logic = pd_vars.ring_allocation_logic_rx;
	unsigned turns;

	*others = pd_load_relaxed(&s->next_lane) % port->n_lanes;
	if (logic < PD_STEER_SOCKET || pd_load_relaxed(&s->lane_seen))
		return *others;
	turns = pd_load_relaxed(&s->own_turns) + 1;
	pd_store_relaxed(&s->own_turns, turns);
	if (turns % PD_STEER_OTHERS_TURN == 0)
		return *others;
	return pd_steer_own_number(&s->receive_own, logic, pd_vars.ring_migration_ratio_rx) %
	       port->n_lanes;
}

void pd_steer_received(struct pd_packet *s, const struct pd_port *port, unsigned lane,
		       unsigned first)
{
	unsigned next = pd_load_relaxed(&s->next_lane) % port->n_lanes, turns;

	pd_store_relaxed(&s->lane_seen, false);
	if (lane == first && first != next) /* its own: that changes nothing among the others */
		return;
	turns = lane == next ? pd_load_relaxed(&s->lane_turns) + 1 : 1;
	if (lane == first && pd_vars.ring_allocation_logic_rx >= PD_STEER_SOCKET)
		turns = PD_STEER_TURN; /* it is seldom enough that the others come first */
	pd_store_relaxed(&s->lane_turns, turns % PD_STEER_TURN);
	pd_store_relaxed(&s->next_lane, (lane + (turns == PD_STEER_TURN)) % port->n_lanes);
}

void pd_steer_looked(struct pd_packet *s, unsigned lane)
{
	pd_store_relaxed(&s->next_lane, lane);
	pd_store_relaxed(&s->lane_seen, true);
}
