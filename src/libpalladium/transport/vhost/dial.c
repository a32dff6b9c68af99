/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connecting, listening, and trying again.
 *
 * Connecting. A Unix connect never takes time: it works or fails at once. After a failure the next
 * try comes 20 ms later, then after twice that each time, up to a second. A connection that ends
 * before it was of use counts as a failure, so a peer that accepts and hangs up is not hammered.
 *
 * Listening. One listener per path, however many ports name it. A connection goes to the first port,
 * in configuration order, that has none. When all have one the newcomer is kept for a second: a
 * peer that was killed and is back at once may be seen before its old connection's end is. Then one
 * that has never said anything gives way to it, or it is closed, with a line in the log.
 *
 * The socket file. It is made with mode 0600. What stands at the path already is replaced only when
 * it is a socket, belongs to this user, and no socket is bound to it any more; a datagram connect
 * tells, as the kernel refuses it with ECONNREFUSED for a dead file and EPROTOTYPE for a live
 * stream socket, of which the listener there notices nothing. Between that test and the unlink
 * another process could bind, so processes of this library take turns by a lock on the directory;
 * against others the file's identity is compared once more. At the end the file is removed only if
 * it is still the one we made.
 */
#include "transport/vhost/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"

#define BACKOFF_MIN_NS (20 * PD_NS_PER_MS)
#define BACKOFF_MAX_NS (1000 * PD_NS_PER_MS)
#define GRACE_NS (1000 * PD_NS_PER_MS)
#define EARLY_MAX 8 /* connections kept for ports that are not free yet */
#define BACKLOG 64

/* Made-up errors, beyond errno: what stands at a listening path. */
enum { PATH_NO_SOCKET = 5000, PATH_IN_USE, PATH_FOREIGN };

struct early {
	int fd;
	uint64_t until_ns;
};

struct pd_vhost_listener {
	struct pd_list node; /* in listeners */
	struct pd_list ports;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct pd_progress_fd io; /* fd -1: not bound yet */
	struct pd_progress_timer timer;
	uint64_t backoff_ns;
	dev_t dev; /* identity of our socket file */
	ino_t ino;
	struct early early[EARLY_MAX];
	unsigned n_early;
};

/* Every listener of the process. Under pd_control. */
static struct pd_list listeners = PD_LIST_INIT(listeners);

static void listener_serve(struct pd_vhost_listener *l);

/* Twice the delay, up to the longest. */
static void backoff_grow(uint64_t *backoff_ns)
{
	*backoff_ns = pd_min(*backoff_ns * 2, (uint64_t)BACKOFF_MAX_NS);
}

/* The address of `path`. Returns its length for the kernel. */
static socklen_t address_of(struct sockaddr_un *addr, const char *path)
{
	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	memcpy(addr->sun_path, path, pd_min(strlen(path), sizeof(addr->sun_path) - 1));
	return sizeof(*addr);
}

/* A new Unix socket of ours. Returns it or -errno. */
static int socket_make(int type)
{
	return pd_internal_fd(pd_sys_socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

/* Tell the port of an error (errno or PATH_*) when it is another one than before. */
static void dial_trouble(struct pd_vhost_dial *dial, int err)
{
	const char *text = err == PATH_NO_SOCKET ? "the path is not a socket"
			   : err == PATH_IN_USE  ? "another process listens there"
			   : err == PATH_FOREIGN ? "a socket of another user is there"
						 : pd_strerror(err);

	if (dial->last_err == err)
		return;
	dial->last_err = err;
	dial->trouble(dial, text);
}

/* --- connecting ---------------------------------------------------------------------------- */

/* Try to connect, and arm the next try when it fails. */
static void dial_connect(struct pd_vhost_dial *dial)
{
	struct sockaddr_un addr;
	socklen_t len = address_of(&addr, dial->path);
	int fd = socket_make(SOCK_STREAM);
	int err = fd < 0 ? fd : pd_sys_connect(fd, &addr, len);

	if (!err) {
		dial->waiting = false;
		dial->last_err = 0;
		dial->connected(dial, fd);
		return;
	}
	if (fd >= 0)
		pd_sys_close(fd);
	pd_progress_timer_set(&dial->timer, dial->backoff_ns);
	backoff_grow(&dial->backoff_ns);
	dial_trouble(dial, -err);
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

/* The first port that waits for a connection, or NULL. */
static struct pd_vhost_dial *listener_free_port(struct pd_vhost_listener *l)
{
	struct pd_vhost_dial *dial;

	pd_list_for_each (dial, &l->ports, node) {
		if (dial->waiting)
			return dial;
	}
	return NULL;
}

/* Have a port end a connection that nothing comes from. Returns whether one did. */
static bool listener_make_way(struct pd_vhost_listener *l)
{
	struct pd_vhost_dial *dial;

	pd_list_for_each (dial, &l->ports, node) {
		if (!dial->waiting && dial->give_way(dial))
			return true;
	}
	return false;
}

/* Hand waiting connections to free ports, and refuse those that have waited long enough. */
static void listener_serve(struct pd_vhost_listener *l)
{
	uint64_t now = pd_clock_ns();
	struct pd_vhost_dial *dial;

	while (l->n_early) {
		struct early first = l->early[0];

		dial = listener_free_port(l);
		if (!dial && now < first.until_ns)
			break;
		if (!dial && listener_make_way(l)) {
			l->early[0].until_ns =
				now + GRACE_NS; /* the port asks for it in a moment */
			break;
		}
		l->n_early--;
		memmove(&l->early[0], &l->early[1], l->n_early * sizeof(l->early[0]));
		if (dial) {
			dial->waiting = false;
			dial->connected(dial, first.fd);
			continue;
		}
		pd_sys_close(first.fd);
		pd_log_ratelimited(PD_LOG_WARN, "vhost",
				   "%s: one more connection than open ports on this path, "
				   "closed",
				   l->path);
	}
	if (l->n_early)
		pd_progress_timer_set(&l->timer, l->early[0].until_ns - now);
}

/* Somebody connects. */
static void listener_io(struct pd_progress_fd *io, uint32_t revents)
{
	struct pd_vhost_listener *l = pd_container_of(io, struct pd_vhost_listener, io);

	while (l->n_early < EARLY_MAX) {
		int fd = pd_internal_fd(
			pd_sys_accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));

		if (fd == -EINTR || fd == -ECONNABORTED)
			continue;
		if (fd < 0 && fd != -EAGAIN) {
			/* No descriptors free, most likely: the connection stays in the backlog and
			 * would wake us at once. */
			pd_log_ratelimited(PD_LOG_WARN, "vhost", "%s: accept: %s", l->path,
					   pd_strerror(fd));
			pd_progress_mod(io, 0);
			pd_progress_timer_set(&l->timer, BACKOFF_MAX_NS);
			return;
		}
		if (fd < 0)
			break;
		l->early[l->n_early++] = (struct early){fd, pd_clock_ns() + GRACE_NS};
		listener_serve(l);
	}
	if (l->n_early == EARLY_MAX)
		pd_progress_mod(io, 0); /* the timer comes back to it */
}

/*
 * Remove a dead socket file at the listener's path. Returns 0 when the path is free now, -errno, or
 * minus a PATH_*.
 */
static int path_clear(struct pd_vhost_listener *l)
{
	struct sockaddr_un addr;
	socklen_t len = address_of(&addr, l->path);
	struct stat before, after;
	int fd, err;

	err = pd_sys_lstat(l->path, &before);
	if (err)
		return err == -ENOENT ? 0 : err;
	if (!S_ISSOCK(before.st_mode))
		return -PATH_NO_SOCKET;
	if (before.st_uid != geteuid())
		return -PATH_FOREIGN;
	fd = socket_make(SOCK_DGRAM);
	if (fd < 0)
		return fd;
	err = pd_sys_connect(fd, &addr, len);
	pd_sys_close(fd);
	if (err != -ECONNREFUSED)
		return err == -ENOENT ? 0 : -PATH_IN_USE;
	if (pd_sys_lstat(l->path, &after) || before.st_ino != after.st_ino ||
	    before.st_dev != after.st_dev)
		return -PATH_IN_USE;
	pd_info("vhost", "%s: removed the socket file of a listener that is gone", l->path);
	return pd_sys_unlink(l->path);
}

/*
 * Lock the directory of `path` against other processes of this library. Returns a descriptor to
 * close, or -errno (-EWOULDBLOCK: another one has it).
 */
static int directory_lock(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 1;
	int fd, err;

	memcpy(dir, slash ? path : ".", n);
	dir[n] = 0;
	fd = pd_internal_fd(pd_sys_open(n ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
	if (fd < 0)
		return fd;
	err = pd_sys_flock(fd, LOCK_EX | LOCK_NB);
	if (!err)
		return fd;
	pd_sys_close(fd);
	return err;
}

/* Bind `fd` to the listener's path and listen. Returns 0, -errno or minus a PATH_*. */
static int listener_bind(struct pd_vhost_listener *l, int fd)
{
	struct sockaddr_un addr;
	socklen_t len = address_of(&addr, l->path);
	struct stat st;
	int err;

	/* The kernel gives a socket file the mode of its socket, less the umask. */
	pd_sys_fchmod(fd, 0600);
	err = pd_sys_bind(fd, &addr, len);
	if (err == -EADDRINUSE) {
		err = path_clear(l);
		if (!err)
			err = pd_sys_bind(fd, &addr, len);
		if (err == -EADDRINUSE)
			err = -PATH_IN_USE;
	}
	if (!err)
		err = pd_sys_lstat(l->path, &st);
	if (err)
		return err;
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	err = pd_sys_listen(fd, BACKLOG);
	if (err)
		pd_sys_unlink(l->path);
	return err;
}

/* Try to take the path. Returns 0, -errno or minus a PATH_*. */
static int listener_try(struct pd_vhost_listener *l)
{
	int lock, fd, err;

	lock = directory_lock(l->path);
	if (lock < 0)
		return lock;
	fd = socket_make(SOCK_STREAM);
	err = fd < 0 ? fd : listener_bind(l, fd);
	pd_sys_close(lock);
	if (err) {
		if (fd >= 0)
			pd_sys_close(fd);
		return err;
	}
	l->io.fd = fd;
	l->io.events = EPOLLIN;
	err = pd_progress_add(&l->io);
	if (err) {
		pd_sys_unlink(l->path);
		pd_sys_close(fd);
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
		if (l->n_early < EARLY_MAX)
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
			dial_trouble(dial, -err);
		else
			dial->last_err = 0;
	}
	if (!err)
		pd_debug("vhost", "listening on %s", l->path);
}

/* The listener of `path`, made when there is none yet; NULL when there is no memory. */
static struct pd_vhost_listener *listener_get(const char *path)
{
	struct pd_vhost_listener *l;

	pd_list_for_each (l, &listeners, node) {
		if (!strcmp(l->path, path))
			return l;
	}
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	memcpy(l->path, path, strlen(path) + 1);
	pd_list_init(&l->ports);
	pd_list_init(&l->timer.node);
	l->timer.fn = listener_timer;
	l->io.fd = -1;
	l->io.fn = listener_io;
	l->backoff_ns = BACKOFF_MIN_NS;
	pd_list_add_tail(&listeners, &l->node);
	pd_progress_timer_set(&l->timer, 0);
	return l;
}

/* The last port has left. */
static void listener_put(struct pd_vhost_listener *l, bool abandon)
{
	struct stat st;

	if (!pd_list_empty(&l->ports))
		return;
	pd_progress_timer_cancel(&l->timer);
	while (l->n_early)
		pd_sys_close(l->early[--l->n_early].fd);
	if (l->io.fd >= 0) {
		pd_progress_del(&l->io);
		if (!abandon && !pd_sys_lstat(l->path, &st) && st.st_dev == l->dev &&
		    st.st_ino == l->ino)
			pd_sys_unlink(l->path);
		pd_sys_close(l->io.fd);
	}
	pd_list_del(&l->node);
	free(l);
}

/* --- what ports call ----------------------------------------------------------------------- */

int pd_vhost_dial_start(struct pd_vhost_dial *dial)
{
	struct pd_vhost_dial *other;
	struct pd_list *at;

	if (!dial->path[0] || strlen(dial->path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return -EINVAL;
	pd_list_init(&dial->node);
	pd_list_init(&dial->timer.node);
	dial->timer.fn = dial_timer;
	dial->backoff_ns = BACKOFF_MIN_NS;
	dial->last_err = 0;
	dial->waiting = true;
	dial->listener = NULL;
	if (!dial->listens) {
		pd_progress_timer_set(&dial->timer, 0);
		return 0;
	}
	dial->listener = listener_get(dial->path);
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
	dial->backoff_ns = BACKOFF_MIN_NS;
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
