/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vhost-user connections with a random peer, from the first message to the end: both roles.
 *
 * A run is one role (backend.c, frontend.c and all below them, on lanes of their own but without
 * the glue of vhost.c) and a peer at the other end of a socket pair. It sends the protocol's
 * messages, sensible ones mostly, in any order, whole or in pieces, with descriptors of any kind;
 * writes to the rings; cuts its memory short; reads its answers or does not; goes and comes again.
 * Between its messages the data path is called. What a message looks like is taken from the
 * protocol's table (wire.h), so that one that becomes known there is sent from then on.
 *
 * After each run no descriptor and no mapping is left that was not there before it.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "vhost.h"
#include "vlib/buffer.h"

#define STEPS_MAX 40
#define CLOSING_WAITS 3000 /* of ten milliseconds */
#define FDS_LOOKED_AT 256
#define MEMORY_NAME "fuzz-memory"
#define AREA_NAME "palladium-rings"    /* vhost/area.c */
#define KEPT_NAME "palladium-inflight" /* vhost/inflight.c */

static const char *const kinds[] = {
	"back-end, sidecars",  "back-end, virtio",  "back-end, two pairs",
	"front-end, sidecars", "front-end, virtio", "front-end, two pairs",
};
#define KINDS PD_ARRAY_SIZE(kinds)

/* A kind's role, header and pairs of queues. */
static enum pd_conf_side kind_role(unsigned kind)
{
	return kind < 3 ? PD_CONF_BACKEND : PD_CONF_FRONTEND;
}
static enum pd_conf_dialect kind_dialect(unsigned kind)
{
	return kind % 3 ? PD_CONF_DIALECT_VIRTIO : PD_CONF_DIALECT_AVIP;
}
static uint32_t kind_queues(unsigned kind)
{
	return kind % 3 == 2 ? 2 : 1;
}

static struct side sides[KINDS];
struct side *side;

int pool[POOL];
static int pipe_end, socket_end;
static int statm; /* /proc/self/statm */
uint8_t *memory;

struct peer peer;

/* --- descriptors and mappings that are left -------------------------------------------------- */

static uint8_t open_before[FDS_LOOKED_AT];

/* Which descriptors are open, one byte each. */
static void look_at_fds(uint8_t *is_open)
{
	static struct pollfd all[FDS_LOOKED_AT];

	for (int i = 0; i < FDS_LOOKED_AT; i++)
		all[i] = (struct pollfd){.fd = i};
	MUST(poll(all, FDS_LOOKED_AT, 0) >= 0);
	for (int i = 0; i < FDS_LOOKED_AT; i++)
		is_open[i] = !(all[i].revents & POLLNVAL);
}

/*
 * Know what is open before a run. Whoever has opened or closed something since the last one has
 * changed which descriptor is the lowest that is free.
 */
static void look_before(void)
{
	static int lowest_before = -1;
	int lowest = dup(pool[NOTHING]);

	MUST(lowest >= 0);
	close(lowest);
	if (lowest != lowest_before)
		look_at_fds(open_before);
	lowest_before = lowest;
}

/* How many mappings there are of files whose path has `name` in it. */
static unsigned mappings_of(const char *name)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned n = 0;

	MUST(maps);
	while (fgets(line, sizeof(line), maps))
		n += !!strstr(line, name);
	fclose(maps);
	return n;
}

static void nothing_is_left(void)
{
	static unsigned long all_before, others_before;
	uint8_t is_open[FDS_LOOKED_AT];
	unsigned long all, data;
	char size[128] = "";

	look_at_fds(is_open);
	/* A thread that closes something (base/closer.h) may not have run yet where others do. */
	for (int i = 0; i < CLOSING_WAITS && memcmp(is_open, open_before, sizeof(is_open)); i++) {
		usleep(10000);
		look_at_fds(is_open);
	}
	MUST(!memcmp(is_open, open_before, sizeof(is_open)));
	/*
	 * How much is mapped first, and how much of that is not the process's own data: it is read
	 * in no time, and what malloc does leaves one or the other as it was.
	 */
	MUST(pread(statm, size, sizeof(size) - 1, 0) > 0);
	MUST(sscanf(size, "%lu %*u %*u %*u %*u %lu", &all, &data) == 2);
	if (all == all_before || all - data == others_before)
		return;
	all_before = all;
	others_before = all - data;
	MUST(mappings_of(MEMORY_NAME) == 1); /* our own */
	MUST(!mappings_of(AREA_NAME) && !mappings_of(KEPT_NAME));
}

/* --- the library's side ---------------------------------------------------------------------- */

static void role_up(struct pd_vhost_role_base *role)
{
	(void)role;
	side->is_up = true;
	side->ups++;
}

static void role_stopped(struct pd_vhost_role_base *role, const char *reason)
{
	MUST(reason && *reason && side->is_up);
	side->is_up = false;
	for (unsigned q = 0; q < role->n_lanes; q++)
		MUST(!role->lanes[q].lane.side[PD_RX].up || !role->lanes[q].lane.side[PD_TX].up);
}

static void role_negotiates(struct pd_vhost_role_base *role, const char *what, const char *message)
{
	MUST(*what && *message);
}

static void role_refused(struct pd_vhost_role_base *role, const char *text)
{
	MUST(*text && strlen(text) < PD_VHOST_REASON);
}

static void role_lost(struct pd_vhost_role_base *role, const char *reason, bool fault)
{
	(void)fault;
	MUST(reason && *reason);
	side->is_up = false;
	for (unsigned q = 0; q < role->n_lanes; q++)
		for (int dir = 0; dir < PD_DIRS; dir++)
			MUST(!role->lanes[q].lane.side[dir].up);
}

static void role_broken(struct pd_progress_work *work)
{
	struct side *s = pd_container_of(work, struct side, broken);

	if (s->role)
		s->role->ops->broken(s->role);
}

void turn(void)
{
	for (int i = 0; i < 8 && pd_progress_run_once(0) > 0; i++)
		;
}

/* Take frames, and read them to their last byte. */
static void receive(struct pd_lane *lane)
{
	struct pd_buffer *bufs[32];
	int n = lane->ops->rx(lane, bufs, PD_ARRAY_SIZE(bufs));

	MUST(n >= 0 || n == -ENETDOWN);
	for (int i = 0; i < n; i++) {
		for (const struct pd_buffer *b = bufs[i];; b = pd_buffer_get(b->next)) {
			fuzz_read(b->data, b->len);
			if (b->next == PD_BUFFER_NONE)
				break;
		}
	}
	if (n > 0)
		lane->ops->rx_done(lane, rnd((uint32_t)n + 1));
}

/* The last chance to take what is in a ring; or an announcement. */
static void take_last(struct pd_port *port, struct pd_lane *lane)
{
	receive(lane);
}

/* Send one frame. */
static void transmit(struct pd_lane *lane)
{
	static uint8_t frame[2048];
	struct pd_buffer *b = pd_container_of(lane, struct pd_vhost_lane, lane)->headers[0];
	int n;

	b->data = frame;
	b->len = b->total_len = 14 + rnd(1500);
	b->flags = PD_BUFFER_EXTERNAL;
	b->next = PD_BUFFER_NONE;
	n = lane->ops->tx(lane, &b, 1);
	MUST(n == 0 || n == 1 || n == -EMSGSIZE || n == -ENETDOWN);
	lane->ops->tx_flush(lane);
}

void channel_gone(void)
{
	if (peer.channel >= 0)
		close(peer.channel);
	peer.channel = -1;
	peer.drops_channel = false;
}

void call_lanes(void)
{
	for (unsigned i = 0; i < 2 * side->role->n_lanes; i++) {
		struct pd_vhost_lane *lane = &side->role->lanes[i / 2];
		enum pd_dir dir = i & 1 ? PD_TX : PD_RX;

		pd_vhost_lane_lock(lane, dir);
		if (lane->lane.side[dir].up) {
			uint32_t position = lane->lane.ops->position(&lane->lane, dir);

			(dir == PD_RX ? receive : transmit)(&lane->lane);
			if (one_in(2))
				lane->lane.ops->arm(&lane->lane, dir, position, 1);
			else
				lane->lane.ops->disarm(&lane->lane, dir);
			lane->lane.ops->drain(&lane->lane, dir);
		}
		pd_vhost_lane_unlock(lane, dir);
	}
	if (peer.drops_channel)
		channel_gone();
	turn();
}

/* --- the peer's connection -------------------------------------------------------------------- */

void peer_gone(void)
{
	if (peer.area)
		munmap(peer.area, peer.area_bytes);
	peer.area = NULL;
	channel_gone();
	if (peer.sock >= 0)
		close(peer.sock);
	peer.sock = -1;
}

void peer_comes(void)
{
	int pair[2];

	peer_gone();
	turn();
	MUST(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	peer.sock = pair[0];
	if (one_in(16)) /* it takes two messages or three, and no more before they are read */
		MUST(!setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &(int){1}, sizeof(int)));
	memset(peer.offset, 0, sizeof(peer.offset));
	peer.taken = 0;
	if (pd_vhost_conn_is_open(side->config.role == PD_CONF_BACKEND
					  ? &((struct pd_vhost_backend *)side->role)->conn
					  : &((struct pd_vhost_frontend *)side->role)->conn))
		close(pair[1]); /* it has not noticed yet that the last one went */
	else
		MUST(!side->role->ops->connected(side->role, pair[1]));
	turn();
}

void another_comes(void)
{
	/* For how long nothing was said is its listener's affair. */
	if (side->role->ops->yields_at(side->role) == UINT64_MAX)
		return;
	side->role->ops->yield(side->role);
	peer_comes();
}

/* --- the fuzzer ------------------------------------------------------------------------------ */

static void role_make(void)
{
	const struct pd_vhost_role_ops *ops = side->config.role == PD_CONF_BACKEND
						      ? &pd_vhost_backend_ops
						      : &pd_vhost_frontend_ops;

	side->role = calloc(1, ops->bytes);
	MUST(side->role);
	*side->role = (struct pd_vhost_role_base){
		.ops = ops,
		.config = &side->config,
		.name = "fuzz",
		.n_lanes = side->config.queues,
		.lanes = side->lanes,
		.negotiates = role_negotiates,
		.up = role_up,
		.stopped = role_stopped,
		.refused = role_refused,
		.lost = role_lost,
	};
	side->is_up = false;
	MUST(!ops->init(side->role));
}

/* One connection, or several. Returns whether frames could move. */
static bool run(unsigned kind)
{
	unsigned long ups;
	uint64_t count;

	side = &sides[kind];
	ups = side->ups;
	look_before();
	any_calm();
	memset(memory, 0, MEM_BYTES);
	memset(&peer, 0, sizeof(peer));
	peer.sock = peer.channel = peer.kept_fd = -1;
	peer.features = any_features() | BIT(PD_VHOST_F_PROTOCOL_FEATURES);
	side->config.format = (enum pd_conf_format)rnd(3);
	side->config.mergeable = one_in(2);
	side->config.iommu = one_in(2);
	/* No choice of its own, so that the corpus keeps its meaning. */
	side->config.inband = side->config.iommu && side->config.mergeable;
	side->config.offloads = (enum pd_conf_offloads)rnd(3);
	peer.iommu = side->config.iommu && !one_in(4);
	side->config.inband = one_in(2);
	if (peer.iommu)
		peer.features |= BIT(VIRTIO_F_ACCESS_PLATFORM);
	role_make();
	peer_comes();
	for (uint32_t n = 1 + rnd(STEPS_MAX); n; n--) {
		if (peer.sock < 0 && !one_in(4))
			break;
		if (peer.sock < 0)
			peer_comes();
		(side->config.role == PD_CONF_BACKEND ? front_end_step : back_end_step)();
	}
	/* Abandoned, a front-end does not wait for frames that it sent. */
	side->role->ops->fini(side->role, side->config.role == PD_CONF_FRONTEND || one_in(2));
	free(side->role);
	side->role = NULL;
	peer_gone();
	kept_take(NULL, -1);
	turn();
	if (peer.cut)
		MUST(!ftruncate(pool[MEMORY], MEM_BYTES) && !ftruncate(pool[LOG], LOG_BYTES));
	if (read(pool[EVENT], &count, sizeof(count)) < 0)
		MUST(errno == EAGAIN);
	nothing_is_left();
	return side->ups != ups;
}

/* The lanes of a kind, as a port would have them. */
static void side_make(unsigned k)
{
	struct side *s = &sides[k];
	struct pd_port *port = &pd_ports[k];
	enum pd_vhost_role role =
		kind_role(k) == PD_CONF_BACKEND ? PD_VHOST_DEVICE : PD_VHOST_DRIVER;
	enum pd_vhost_dialect dialect = (enum pd_vhost_dialect)kind_dialect(k);

	s->config = (struct pd_port_config){.role = kind_role(k),
					    .dialect = kind_dialect(k),
					    .queues = kind_queues(k),
					    .mtu = 1500,
					    .ring = 32,
					    .in_order = true};
	s->broken.fn = role_broken;
	s->lanes = aligned_alloc(PD_CACHE_LINE, s->config.queues * sizeof(*s->lanes));
	MUST(s->lanes);
	memset(s->lanes, 0, s->config.queues * sizeof(*s->lanes));
	snprintf(port->name, sizeof(port->name), "pd%u", k);
	port->n_lanes = s->config.queues;
	port->index = (uint16_t)k;
	pd_port_lanes_init(port);
	for (uint16_t q = 0; q < s->config.queues; q++) {
		MUST(!pd_vhost_lane_init(&s->lanes[q], role, dialect, &s->broken));
		pd_port_lane_init(port, &s->lanes[q].lane, pd_vhost_lane_ops(role, dialect, false),
				  q);
	}
}

/* The files, the lanes, and what the library makes at its first connection. */
static void prepare(void)
{
	int two[2];

	pd_log_set_level(PD_LOG_NONE);
	pool[MEMORY] = memfd_create(MEMORY_NAME, MFD_CLOEXEC);
	pool[SHORT_MEMORY] = memfd_create(MEMORY_NAME, MFD_CLOEXEC);
	MUST(!ftruncate(pool[MEMORY], MEM_BYTES) && !ftruncate(pool[LOG], LOG_BYTES));
	memory = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, pool[MEMORY], 0);
	MUST(memory != MAP_FAILED);
	pool[EVENT] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pool[BLOCKING_EVENT] = eventfd(0, EFD_CLOEXEC);
	MUST(!pipe2(two, O_CLOEXEC | O_NONBLOCK));
	pool[PIPE] = two[1];
	pipe_end = two[0];
	MUST(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, two));
	pool[SOCKET] = two[1];
	socket_end = two[0];
	pool[FOLDER] = open("/", O_RDONLY | O_CLOEXEC);
	pool[NOTHING] = open("/dev/null", O_RDWR | O_CLOEXEC);
	statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	pd_progress_set_manual(true);
	pd_port_on_receive_end = take_last;
	for (unsigned k = 0; k < KINDS; k++)
		side_make(k);
	side = &sides[0];
	peer.sock = peer.channel = peer.kept_fd = -1;
	role_make();
	peer_comes();
	side->role->ops->fini(side->role, false);
	free(side->role);
	side->role = NULL;
	peer_gone();
}

static void summary(unsigned k)
{
	printf(", %lu messages, up %lu times", sides[k].messages, sides[k].ups);
}

const struct fuzz_target fuzz_target = {
	.name = "vhost",
	FUZZ_KINDS(kinds),
	.good = "came up",
	.seeds = 1000,
	.prepare = prepare,
	.run = run,
	.summary = summary,
};
