/* SPDX-License-Identifier: BSD-2-Clause */
/* The contract's rig: a link, frames, sleepers, flows. */
#include "contract.h"

#include <sys/eventfd.h>
#include <time.h>

#define TABLE_BYTES (PD_FRAME_MAX_BYTES + 8192)
#define POOL_BUFFERS 2048

const struct link *current;
struct pd_port *ports[2];
static struct pd_config *config;
static uint8_t table[TABLE_BYTES];
static struct pd_buffer_pool *headers;
static char socket_path[64];

int rig_init(void)
{
	int err = 0;

	for (size_t i = 0; i < sizeof(table); i++)
		table[i] = (uint8_t)((i * 2654435761u) >> 13 ^ i);
	headers = pd_buffer_pool_create("contract", POOL_BUFFERS, 0, &err);
	return err;
}

/* --- a link --------------------------------------------------------------------------------- */

void wait_state(struct pd_port *port, enum pd_port_state state)
{
	static const struct timespec nap = {0, 200000};
	uint64_t until = pd_clock_ns() + LOST_WAKEUP_MS * PD_NS_PER_MS;

	while (pd_load_acquire(&port->state) != state) {
		must(pd_clock_ns() < until);
		nanosleep(&nap, NULL);
	}
}

void link_up(void)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(pd_port_open(ports[i]), 0);
	for (int i = 0; i < 2; i++)
		wait_state(ports[i], PD_PORT_UP);
}

int link_setup(void **state)
{
	static const char *const names[2] = {"pd1", "pd2"};

	current = *state;
	config = calloc(1, sizeof(*config));
	assert_non_null(config);
	config->port_count = 2;
	snprintf(socket_path, sizeof(socket_path), "/tmp/pd-contract-%d.sock", (int)getpid());
	for (int i = 0; i < 2; i++) {
		struct pd_port_config *pc = &config->ports[i];

		snprintf(pc->name, sizeof(pc->name), "%s", names[i]);
		snprintf(pc->peer, sizeof(pc->peer), "%s", names[!i]);
		snprintf(pc->transport, sizeof(pc->transport), "%s", current->transport);
		snprintf(pc->path, sizeof(pc->path), "%s", socket_path);
		pc->mode = current->mode[i];
		pc->role = current->role[i];
		pc->mtu = PD_CONF_MTU_MAX;
		pc->queues = current->queues ? current->queues : 1;
		pc->ring = current->ring;
		pc->format = current->format;
		pc->mergeable = !current->single;
		pc->in_order = current->in_order;
		pc->dialect = current->offloads ? PD_CONF_DIALECT_VIRTIO : PD_CONF_DIALECT_AVIP;
		pc->offloads = current->offloads ? PD_CONF_OFFLOADS_ALL : PD_CONF_OFFLOADS_NONE;
		pc->mac[0] = 2;
		pc->mac[5] = (uint8_t)i;
	}
	assert_int_equal(pd_ports_init(config), 0);
	for (int i = 0; i < 2; i++)
		ports[i] = pd_port_by_name(names[i]);
	link_up();
	return 0;
}

int link_teardown(void **state)
{
	pd_ports_close_all();
	pd_progress_stop();
	unlink(socket_path);
	free(config);
	return headers->free_count == headers->count ? 0 : -1;
}

struct pd_lane *lane_of(int i)
{
	return ports[i]->lanes[0];
}

/* --- frames --------------------------------------------------------------------------------- */

/* The sidecar of frame `seq`: no two are alike, and no byte is constant. */
static void sidecar_of(uint32_t seq, uint8_t *out)
{
	uint32_t x = seq * 2654435761u + 1;

	for (int i = 0; i < PD_BUFFER_SIDECAR_BYTES; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		out[i] = (uint8_t)x;
	}
	out[2] &= 0xfe; /* bit 0 of generic_flags: a control frame, which has no bytes */
	memcpy(out + 40, &seq, sizeof(seq));
}

static const uint8_t *bytes_of(uint32_t seq)
{
	return table + seq % (TABLE_BYTES - PD_FRAME_MAX_BYTES - 1);
}

struct pd_buffer *frame(uint32_t seq, uint32_t len, unsigned segments)
{
	struct pd_buffer *head = NULL, *last = NULL;
	uint32_t idx[4], done = 0;

	must(pd_buffer_alloc(headers, idx, segments) == segments);
	for (unsigned i = 0; i < segments; i++) {
		struct pd_buffer *b = pd_buffer_get(idx[i]);

		b->data = (uint8_t *)(uintptr_t)bytes_of(seq) + done;
		b->len = i + 1 == segments ? len - done : (len - done) / 3;
		b->flags = PD_BUFFER_EXTERNAL;
		done += b->len;
		if (last)
			last->next = b->index;
		else
			head = b;
		last = b;
	}
	head->total_len = len;
	head->flags |= PD_BUFFER_SIDECAR | (len ? 0 : PD_BUFFER_CONTROL);
	sidecar_of(seq, head->sidecar);
	return head;
}

void frames_free(struct pd_buffer **bufs, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		pd_buffer_free(&bufs[i]->index, 1);
}

void check_frame(const struct pd_buffer *b, uint32_t seq, uint32_t len)
{
	static __thread uint8_t got[PD_FRAME_MAX_BYTES + 1];
	uint8_t want[PD_BUFFER_SIDECAR_BYTES];

	must(b->total_len == len);
	must(!!(b->flags & PD_BUFFER_CONTROL) == !len);
	must(b->flags & PD_BUFFER_SIDECAR);
	must(pd_buffer_copy_out(b, 0, got, sizeof(got)) == len);
	must(!memcmp(got, bytes_of(seq), len));
	sidecar_of(seq, want);
	must(!memcmp(b->sidecar + 2, want + 2, sizeof(want) - 2));
	if (current->mrg_is_one)
		must(b->sidecar[0] == 1 && b->sidecar[1] == 0);
}

/* --- waiting -------------------------------------------------------------------------------- */

void sleeper_init(struct sleeper *s)
{
	memset(s, 0, sizeof(*s));
	pd_list_init(&s->w.node);
	s->w.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	must(s->w.wake_fd >= 0);
}

bool sleep_once(struct pd_lane *lane, enum pd_dir dir, struct sleeper *s)
{
	struct pd_lane_side *side = &lane->side[dir];
	struct pollfd fds[2];
	uint64_t count;
	int n;

	if (!pd_lane_sleep(lane, dir, &s->w))
		return false;
	fds[0] = (struct pollfd){.fd = s->w.wake_fd, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = side->event_fd, .events = POLLIN};
	pd_unlock(&side->lock);
	n = poll(fds, 2, LOST_WAKEUP_MS);
	must(n > 0);
	if (fds[0].revents)
		must(read(s->w.wake_fd, &count, sizeof(count)) == sizeof(count));
	pd_lock(&side->lock);
	pd_lane_wake(lane, dir, &s->w, fds[1].revents & POLLIN);
	s->rounds++;
	return true;
}

void wait_ready(struct pd_lane *lane, enum pd_dir dir, struct sleeper *s)
{
	while (!pd_lane_ready(lane, dir)) {
		/*
		 * Not a position read now: what came since pd_lane_ready looked must end the sleep.
		 */
		s->w.seen = lane->side[dir].cursor;
		sleep_once(lane, dir, s);
	}
}

void send_all(struct pd_lane *lane, struct pd_buffer **bufs, unsigned n, struct sleeper *s)
{
	struct pd_lane_side *side = &lane->side[PD_TX];
	unsigned done = 0;

	pd_lock(&side->lock);
	while (done < n) {
		int ret;

		/* Read before tx: room that comes after tx has looked must end the sleep. */
		s->w.seen = lane->ops->position(lane, PD_TX);
		ret = lane->ops->tx(lane, bufs + done, n - done);
		must(ret >= 0);
		lane->ops->tx_flush(lane);
		done += (unsigned)ret;
		if (ret == 0)
			sleep_once(lane, PD_TX, s);
	}
	pd_unlock(&side->lock);
}

void send_one(struct pd_lane *lane, uint32_t seq, uint32_t len)
{
	struct sleeper s;
	struct pd_buffer *b = frame(seq, len, 1);

	sleeper_init(&s);
	send_all(lane, &b, 1, &s);
	frames_free(&b, 1);
	close(s.w.wake_fd);
}

/* --- flows ---------------------------------------------------------------------------------- */

void *flow_sender(void *arg)
{
	struct flow *f = arg;
	struct pd_buffer *bufs[PD_VECTOR_MAX];
	unsigned seed = 1, n;
	struct sleeper s;

	sleeper_init(&s);
	for (uint32_t seq = 0; seq < f->frames; seq += n) {
		n = f->mixed ? 1 + (unsigned)rand_r(&seed) % PD_VECTOR_MAX : 1;
		n = pd_min(n, f->frames - seq);
		for (unsigned i = 0; i < n; i++)
			bufs[i] = frame(seq + i, f->len_of(seq + i),
					f->mixed ? 1 + (seq + i) % 3 : 1);
		send_all(f->from, bufs, n, &s);
		frames_free(bufs, n);
	}
	close(s.w.wake_fd);
	return NULL;
}

void flow_receive(struct flow *f)
{
	struct pd_lane_side *side = &f->to->side[PD_RX];
	struct pd_buffer *bufs[PD_VECTOR_MAX];
	unsigned seed = 2;
	uint32_t seq = 0;
	struct sleeper s;

	sleeper_init(&s);
	pd_lock(&side->lock);
	while (seq < f->frames) {
		unsigned n = f->mixed ? 1 + (unsigned)rand_r(&seed) % PD_VECTOR_MAX : 1;
		int got;

		wait_ready(f->to, PD_RX, &s);
		got = f->to->ops->rx(f->to, bufs, n);
		must(got > 0 && (unsigned)got <= n);
		for (int i = 0; i < got; i++)
			check_frame(bufs[i], seq + (uint32_t)i, f->len_of(seq + (uint32_t)i));
		f->to->ops->rx_done(f->to, (unsigned)got);
		seq += (uint32_t)got;
	}
	must(f->to->ops->rx(f->to, bufs, 1) == 0);
	pd_unlock(&side->lock);
	close(s.w.wake_fd);
}

void *flow_receiver(void *arg)
{
	flow_receive(arg);
	return NULL;
}

void flow_run(struct flow *f)
{
	pthread_t sender;

	assert_int_equal(pthread_create(&sender, NULL, flow_sender, f), 0);
	flow_receive(f);
	pthread_join(sender, NULL);
}
