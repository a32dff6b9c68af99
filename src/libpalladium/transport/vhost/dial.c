/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connecting, listening, and trying again.
 *
 * Connecting. A Unix connect never takes time: it works or fails at once. After a failure the next
 * try comes PALLADIUM_RECONNECT_MIN_MS later, then after twice that each time, up to
 * PALLADIUM_RECONNECT_MAX_MS. A connection that ends before it was of use counts as a failure, so a
 * peer that accepts and hangs up is not hammered.
 *
 * Listening. One listener per path, however many ports name it. A connection goes to the first
 * port, in configuration order, that admits it and has none, past others that no such port is there
 * for. When all have one the newcomer is kept for a second: a peer that was killed and is back at
 * once may be seen before its old connection's end is. Then one that is good for nothing gives way
 * to it, the one from which nothing has come for longest: that has never said anything, or has
 * begun and then said nothing for two seconds without ever running a ring. The newcomer is kept on
 * for as long as those may last, or it is closed, with a line in the log. Without a newcomer
 * everybody may be silent for as long as they like, as a guest is before its driver starts; and who
 * has run a ring has its place. A newcomer that says nothing itself takes nobody's.
 *
 * A crowd. Connections cost whoever makes them nothing, so the listener never stops taking them for
 * the sake of those that wait, or a backlog kept full would keep everybody out; and those that say
 * nothing have no claim against one that has spoken. A port that is free goes to the first that has
 * spoken, and only then to the first at all. When more wait than there are places, the one that has
 * waited for longest and not spoken goes (it may also have hung up); if all have spoken, the
 * newcomer. When the process has no descriptor left for a newcomer, all that have not spoken go, on
 * every path. A driver speaks as soon as it is connected, so it has, as a rule, before we look. (A
 * device that a front-end of ours waits for does not, and there they are all alike.)
 *
 * Who is let in: path.c makes the file and asks who is at the other end. Ports that share a path
 * share its file, which is as the first of them wants it; each asks for its own peers, so a
 * connection that a port does not admit goes to the next.
 */
#include "transport/vhost/dial.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/closer.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"
#include "config/path.h"
#include "config/vars.h"

#define ACCEPT_PAUSE_NS (1000 * PD_NS_PER_MS) /* after an accept that failed */
#define GRACE_NS (1000 * PD_NS_PER_MS)
#define PATIENCE_NS (2 * GRACE_NS + PD_VHOST_SILENT_NS) /* the longest that one is kept */
#define EARLY_MAX 16   /* connections kept for ports that are not free yet */
#define ACCEPTS_MAX 64 /* connections taken at once: other work comes in between */

struct early {
	int fd;
	uint64_t until_ns, came_ns;
};

struct pd_vhost_listener {
	struct pd_list node; /* in listeners */
	struct pd_list ports;
	char path[PD_PATH_BYTES];
	struct pd_conf_access access;
	struct pd_progress_fd io; /* fd -1: not bound yet */
	struct pd_progress_timer timer;
	uint64_t backoff_ns;
	struct pd_path_id id;              /* of our socket file */
	struct early early[EARLY_MAX + 1]; /* as they came; the last place is for a moment only */
	unsigned n_early;
};

/* Every listener of the process. Under pd_control. */
static struct pd_list listeners = PD_LIST_INIT(listeners);

static void listener_serve(struct pd_vhost_listener *l);

/* The delay after the first failure. */
static uint64_t backoff_first(void)
{
	return (uint64_t)pd_vars.reconnect_min_ms * PD_NS_PER_MS;
}

/* Twice the delay, up to the longest. */
static void backoff_grow(uint64_t *backoff_ns)
{
	*backoff_ns = pd_min(*backoff_ns * 2, (uint64_t)pd_vars.reconnect_max_ms * PD_NS_PER_MS);
}

/* Tell the port of an error, and whether it was the last one too. */
static void dial_trouble(struct pd_vhost_dial *dial, int err)
{
	bool again = dial->last_err == err;

	dial->last_err = err;
	dial->trouble(dial, err, again);
}

/* Tell the port that what it was told of is over: its peer may come. */
static void dial_listening(struct pd_vhost_dial *dial)
{
	dial->last_err = 0;
	dial->listening(dial);
}

/* --- connecting ---------------------------------------------------------------------------- */

/* Try to connect, and arm the next try when it fails. */
static void dial_connect(struct pd_vhost_dial *dial)
{
	int fd = pd_path_connect(dial->path, dial->access);

	if (fd >= 0) {
		dial->waiting = false;
		dial->last_err = 0;
		dial->connected(dial, fd);
		return;
	}
	pd_progress_timer_set(&dial->timer, dial->backoff_ns);
	backoff_grow(&dial->backoff_ns);
	dial_trouble(dial, fd);
}

/* A port's timer: connect, or give it a connection that waits. */
static void dial_timer(struct pd_progress_timer *timer)
{
	struct pd_vhost_dial *dial = pd_container_of(timer, struct pd_vhost_dial, timer);

	if (!dial->listens) {
		dial_connect(dial);
		return;
	}
	dial->waiting = true;
	listener_serve(dial->listener);
}

/* --- listening ----------------------------------------------------------------------------- */

/* The first port that waits for a connection and admits the one on `fd`, or NULL. */
static struct pd_vhost_dial *listener_free_port(struct pd_vhost_listener *l, int fd)
{
	struct pd_vhost_dial *dial;
	uid_t uid;

	pd_list_for_each (dial, &l->ports, node) {
		if (dial->waiting && pd_path_admits(dial->access, fd, &uid))
			return dial;
	}
	return NULL;
}

/*
 * Of the ports that admit the connection on `fd` and have one, that whose peer nothing has come
 * from for longest. Returns from when on it yields, UINT64_MAX: none does.
 */
static uint64_t listener_idlest(struct pd_vhost_listener *l, int fd, struct pd_vhost_dial **idlest)
{
	uint64_t first = UINT64_MAX, at;
	struct pd_vhost_dial *dial;
	uid_t uid;

	*idlest = NULL;
	pd_list_for_each (dial, &l->ports, node) {
		if (dial->waiting || !pd_path_admits(dial->access, fd, &uid))
			continue;
		at = dial->yields_at(dial);
		if (at >= first)
			continue;
		first = at;
		*idlest = dial;
	}
	return first;
}

/* True when a port of the listener admits who is on `fd`; else that is told to all. */
static bool listener_admits(struct pd_vhost_listener *l, int fd)
{
	struct pd_vhost_dial *dial;
	uid_t uid = 0;

	pd_list_for_each (dial, &l->ports, node) {
		if (pd_path_admits(dial->access, fd, &uid))
			return true;
	}
	pd_log_ratelimited(PD_LOG_WARN, "vhost",
			   "%s: a connection of user %u is refused: peer_uid does not name it",
			   l->path, uid);
	pd_list_for_each (dial, &l->ports, node)
		dial->refused(dial, uid);
	return false;
}

/* Tell the ports that would have admitted `fd` that it is turned away, and close it. */
static void listener_turn_away(struct pd_vhost_listener *l, int fd)
{
	struct pd_vhost_dial *dial;
	uid_t uid;

	pd_list_for_each (dial, &l->ports, node) {
		if (pd_path_admits(dial->access, fd, &uid))
			dial->turned_away(dial);
	}
	pd_closer_hang_up(fd);
	pd_log_ratelimited(PD_LOG_WARN, "vhost",
			   "%s: one more connection than open ports on this path, closed", l->path);
}

/* True when who is on `fd` has said something and is still there. */
static bool is_keen(int fd)
{
	return pd_internal_fd_ready(fd, POLLIN | POLLRDHUP) == POLLIN;
}

/* True when who was on `fd` has closed it. */
static bool has_left(int fd)
{
	int ready = pd_internal_fd_ready(fd, 0);

	return ready > 0 && ready & POLLHUP;
}

/*
 * `e` has waited for as long as it was to: find a place for it by ending another connection, or a
 * reason to wait on. Returns false when there is none.
 */
static bool listener_insist(struct pd_vhost_listener *l, struct early *e, uint64_t now)
{
	struct pd_vhost_dial *dial = NULL;
	uint64_t at = is_keen(e->fd) ? listener_idlest(l, e->fd, &dial) : UINT64_MAX;

	if (at <= now) {
		dial->yield(dial);
		e->until_ns = now + GRACE_NS; /* the port asks for it in a moment */
		return true;
	}
	e->until_ns = at;
	return at != UINT64_MAX && at - e->came_ns <= PATIENCE_NS;
}

/* Take the connection at place `i` out of those that wait. Returns its socket. */
static int listener_pick(struct pd_vhost_listener *l, unsigned i)
{
	int fd = l->early[i].fd;

	l->n_early--;
	memmove(&l->early[i], &l->early[i + 1], (l->n_early - i) * sizeof(l->early[0]));
	return fd;
}

/*
 * Hand waiting connections to free ports, the first first; with `spoken`, those alone that have
 * said something.
 */
static void listener_hand_over(struct pd_vhost_listener *l, bool spoken)
{
	struct pd_vhost_dial *dial;

	for (unsigned i = 0; i < l->n_early;) {
		dial = listener_free_port(l, l->early[i].fd);
		if (!dial || (spoken && !is_keen(l->early[i].fd))) {
			i++;
			continue;
		}
		dial->waiting = false;
		dial->connected(dial, listener_pick(l, i));
	}
}

/*
 * Hand waiting connections to free ports, and refuse those that have waited long enough or that
 * wait no longer.
 */
static void listener_serve(struct pd_vhost_listener *l)
{
	uint64_t now = pd_clock_ns(), next = UINT64_MAX;

	listener_hand_over(l, true);
	listener_hand_over(l, false);
	for (unsigned i = 0; i < l->n_early;) {
		struct early *e = &l->early[i];

		if (!has_left(e->fd) && (now < e->until_ns || listener_insist(l, e, now))) {
			next = pd_min(next, e->until_ns);
			i++;
		} else {
			listener_turn_away(l, listener_pick(l, i));
		}
	}
	if (l->n_early)
		pd_progress_timer_set(&l->timer, next - pd_min(next, now));
}

/* The place of the first that waits and has not spoken; one behind the last: all have. */
static unsigned listener_first_silent(const struct pd_vhost_listener *l)
{
	unsigned i = 0;

	while (i < l->n_early && is_keen(l->early[i].fd))
		i++;
	return i;
}

/* A newcomer: it gets a port, or waits for one, and if too many do, one of them goes. */
static void listener_take(struct pd_vhost_listener *l, int fd)
{
	uint64_t now = pd_clock_ns();

	if (!listener_admits(l, fd)) {
		pd_closer_hang_up(fd);
		return;
	}
	l->early[l->n_early++] = (struct early){fd, now + GRACE_NS, now};
	listener_serve(l);
	if (l->n_early > EARLY_MAX)
		listener_turn_away(
			l, listener_pick(l, pd_min(listener_first_silent(l), (unsigned)EARLY_MAX)));
}

/*
 * There are no descriptors left: let those go that wait on any path and have not spoken. Returns
 * whether there were any.
 */
static bool listeners_make_room(void)
{
	struct pd_vhost_listener *l;
	bool any = false;
	unsigned i;

	pd_list_for_each (l, &listeners, node) {
		while ((i = listener_first_silent(l)) < l->n_early) {
			listener_turn_away(l, listener_pick(l, i));
			any = true;
		}
	}
	return any;
}

/* Somebody connects. */
static void listener_io(struct pd_progress_fd *io, uint32_t revents)
{
	struct pd_vhost_listener *l = pd_container_of(io, struct pd_vhost_listener, io);

	for (int n = 0; n < ACCEPTS_MAX; n++) {
		int fd = pd_internal_fd(
			pd_sys_accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));

		if (fd >= 0) {
			listener_take(l, fd);
			continue;
		}
		if (fd == -EAGAIN)
			return;
		if (fd == -EINTR || fd == -ECONNABORTED ||
		    ((fd == -EMFILE || fd == -ENFILE) && listeners_make_room()))
			continue;
		/* No descriptors free, most likely: the connection stays in the backlog and would
		 * wake us at once. */
		pd_log_ratelimited(PD_LOG_WARN, "vhost", "%s: accept: %s", l->path,
				   pd_strerror(fd));
		pd_progress_mod(io, 0);
		pd_progress_timer_set(&l->timer, ACCEPT_PAUSE_NS);
		return;
	}
}

/* Try to take the path. Returns 0 or an error of path.h. */
static int listener_try(struct pd_vhost_listener *l)
{
	int fd = pd_path_listen(l->path, &l->access, &l->id), err;

	if (fd < 0)
		return fd;
	l->io.fd = fd;
	l->io.events = EPOLLIN;
	err = pd_progress_add(&l->io);
	if (err) {
		pd_path_remove(l->path, &l->id);
		pd_closer_listener(fd);
		l->io.fd = -1;
	}
	return err;
}

/* The listener's timer: take the path if that failed before; serve, and accept again. */
static void listener_timer(struct pd_progress_timer *timer)
{
	struct pd_vhost_listener *l = pd_container_of(timer, struct pd_vhost_listener, timer);
	struct pd_vhost_dial *dial, *next;
	int err;

	if (l->io.fd >= 0) {
		listener_serve(l);
		if (!l->io.events)
			pd_progress_mod(&l->io, EPOLLIN);
		return;
	}
	err = listener_try(l);
	if (err) {
		pd_progress_timer_set(&l->timer, l->backoff_ns);
		backoff_grow(&l->backoff_ns);
	}
	pd_list_for_each_safe (dial, next, &l->ports, node) {
		if (err)
			dial_trouble(dial, err);
		else if (dial->last_err)
			dial_listening(dial);
	}
	if (!err)
		pd_debug("vhost", "listening on %s", l->path);
}

/* Say so when a port wants the file of its socket otherwise than it is. */
static void listener_compare(const struct pd_vhost_listener *l, const struct pd_conf_access *access)
{
	const struct pd_conf_access *is = &l->access;

	if (pd_conf_access_mode(is) == pd_conf_access_mode(access) &&
	    is->has_owner == access->has_owner && is->has_group == access->has_group &&
	    (!is->has_owner || is->owner == access->owner) &&
	    (!is->has_group || is->group == access->group))
		return;
	pd_warn("vhost",
		"%s: ports that share it ask for different modes, owners or groups; those of the "
		"first count",
		l->path);
}

/* The listener of the path of `dial`, made when there is none yet; NULL when there is no memory. */
static struct pd_vhost_listener *listener_get(const struct pd_vhost_dial *dial)
{
	struct pd_vhost_listener *l;

	pd_list_for_each (l, &listeners, node) {
		if (strcmp(l->path, dial->path))
			continue;
		listener_compare(l, dial->access);
		return l;
	}
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	memcpy(l->path, dial->path, strlen(dial->path) + 1);
	l->access = *dial->access;
	pd_list_init(&l->ports);
	pd_list_init(&l->timer.node);
	l->timer.fn = listener_timer;
	l->io.fd = -1;
	l->io.fn = listener_io;
	l->backoff_ns = backoff_first();
	pd_list_add_tail(&listeners, &l->node);
	pd_progress_timer_set(&l->timer, 0);
	return l;
}

/* The last port has left; `abandon`: in a forked child. */
static void listener_put(struct pd_vhost_listener *l, bool abandon)
{
	if (!pd_list_empty(&l->ports))
		return;
	pd_progress_timer_cancel(&l->timer);
	while (l->n_early)
		pd_closer_hang_up(l->early[--l->n_early].fd);
	if (l->io.fd >= 0) {
		pd_progress_del(&l->io);
		if (!abandon)
			pd_path_remove(l->path, &l->id);
		pd_closer_listener(l->io.fd);
	}
	pd_list_del(&l->node);
	free(l);
}

/* --- what ports call ----------------------------------------------------------------------- */

int pd_vhost_dial_start(struct pd_vhost_dial *dial)
{
	struct pd_vhost_dial *other;
	struct pd_list *at;

	if (!dial->path[0] || strlen(dial->path) >= PD_PATH_BYTES)
		return -EINVAL;
	pd_list_init(&dial->node);
	pd_list_init(&dial->timer.node);
	dial->timer.fn = dial_timer;
	dial->backoff_ns = backoff_first();
	dial->last_err = 0;
	dial->waiting = true;
	dial->listener = NULL;
	if (!dial->listens) {
		pd_progress_timer_set(&dial->timer, 0);
		return 0;
	}
	dial->listener = listener_get(dial);
	if (!dial->listener)
		return -ENOMEM;
	at = &dial->listener->ports;
	pd_list_for_each (other, &dial->listener->ports, node) {
		if (other->order > dial->order) {
			at = &other->node;
			break;
		}
	}
	pd_list_add_tail(at, &dial->node);
	return 0;
}

void pd_vhost_dial_again(struct pd_vhost_dial *dial)
{
	pd_progress_timer_set(&dial->timer, dial->listens ? 0 : dial->backoff_ns);
	backoff_grow(&dial->backoff_ns);
}

void pd_vhost_dial_settled(struct pd_vhost_dial *dial)
{
	dial->backoff_ns = backoff_first();
}

void pd_vhost_dial_stop(struct pd_vhost_dial *dial, bool abandon)
{
	pd_progress_timer_cancel(&dial->timer);
	dial->waiting = false;
	pd_list_del(&dial->node);
	if (dial->listener)
		listener_put(dial->listener, abandon);
	dial->listener = NULL;
}
