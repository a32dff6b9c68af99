/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The debug CLI's socket (contract and protocol in server.h).
 *
 * A connection is in one of these states: it waits for a line (input is read); a command runs (its
 * steps are posted work, one a round, as long as the client takes the output); or it is closing:
 * what waits is sent, nothing is read. Work that was posted and comes when there is nothing to do
 * does nothing, so the structures stay when a connection ends and are used for the next.
 */
#ifdef HAVE_CONFIG_H
#	include "config.h"
#endif

#include "cli/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/closer.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "config/path.h"
#include "config/vars.h"
#include "counters/counters.h"
#include "counters/file.h"
#include "vlib/progress.h"

#define ACCEPT_PAUSE_NS PD_NS_PER_SEC /* after an accept that failed */
/* Above the queue's bound, for the line that ends an answer. */
#define ANSWER_BYTES (2 * PD_CLI_ERROR_BYTES)

_Static_assert(PD_CLI_LINE_BYTES == 4096 && PD_CLI_CONNECTIONS_MAX == 8, "as the two say");
#define LINE_TOO_LONG "a line has at most 4095 bytes"
#define TOO_MANY "there are 8 connections already"

struct connection {
	struct pd_progress_fd entry; /* fd -1: free */
	struct pd_progress_work turn;
	struct pd_progress_timer timer;
	struct pd_cli cli;
	struct pd_cli_macros macros;
	struct pd_cli_queue out;
	char in[PD_CLI_LINE_BYTES];
	size_t in_n;
	bool eof, closing;
};

/* The commands that every server has. */
extern const char *const pd_cli_server_commands[];
const char *const pd_cli_server_commands[] = {&pd_cli_has_engines, &pd_cli_has_generator,
					      &pd_cli_has_graph,   &pd_cli_has_plugins,
					      &pd_cli_has_process, &pd_cli_has_trace};

uint64_t pd_cli_patience_ns = 10 * PD_NS_PER_SEC;

static void on_listener(struct pd_progress_fd *entry, uint32_t revents);
static void on_accept_again(struct pd_progress_timer *timer);

/* Guarded by pd_control. */
static struct {
	struct pd_progress_fd listener;
	struct pd_progress_timer again; /* accept once more */
	char path[PD_PATH_BYTES];
	struct pd_path_id id;
	struct pd_conf_access access;
	bool tried;
	pid_t owner; /* who made the file: a child that forked behind our back must not remove it */
	struct connection *connections[PD_CLI_CONNECTIONS_MAX]; /* made when needed, and kept */
} server = {
	.listener = {.fd = -1, .events = EPOLLIN, .fn = on_listener},
	.again = {.node = PD_LIST_INIT(server.again.node), .fn = on_accept_again},
	/* The program's user, and root. */
	.access = {.peer_self = true, .peer_count = 1, .peers = {0}},
};

/* --- connections --------------------------------------------------------------------------- */

/* End a connection at once: its socket by `close`. */
static void connection_end(struct connection *c, void (*close)(int fd))
{
	if (c->entry.fd < 0)
		return;
	pd_progress_del(&c->entry);
	pd_progress_timer_cancel(&c->timer);
	close(c->entry.fd);
	c->entry.fd = -1;
	pd_cli_abort(&c->cli);
	pd_cli_macros_free(&c->macros);
	pd_cli_memory_free(&c->out.memory);
}

/* The same for this process's own, whatever its client has sent. */
static void connection_close(struct connection *c)
{
	connection_end(c, pd_closer_hang_up);
}

/* Whether a whole line waits to be run. */
static bool line_waits(const struct connection *c)
{
	return memchr(c->in, '\n', c->in_n) != NULL;
}

/* Whether the connection has something to do that needs nothing from its client. */
static bool is_runnable(const struct connection *c)
{
	return !c->closing && (c->cli.command || line_waits(c) || c->eof) &&
	       pd_cli_queue_length(&c->out) < PD_CLI_QUEUE_HIGH_BYTES;
}

/*
 * After anything has happened: poll for what is waited for, have the next turn come, and give the
 * client its time.
 */
static void connection_settle(struct connection *c, bool moved)
{
	size_t waits = pd_cli_queue_length(&c->out);
	uint32_t events = 0;

	if (c->closing && !waits) {
		connection_close(c);
		return;
	}
	if (!c->closing && !c->eof && c->in_n < sizeof(c->in))
		events |= EPOLLIN;
	if (waits)
		events |= EPOLLOUT;
	if (events != c->entry.events)
		pd_progress_mod(&c->entry, events);
	if (is_runnable(c))
		pd_progress_post(&c->turn);
	if (!waits && (!c->in_n || c->cli.command || line_waits(c)))
		pd_progress_timer_cancel(&c->timer);
	else if (moved || pd_list_empty(&c->timer.node))
		pd_progress_timer_set(&c->timer, pd_cli_patience_ns);
}

/* Put `text` into the queue, above its bound. */
static void answer(struct connection *c, const char *text)
{
	c->out.memory.limit += ANSWER_BYTES;
	c->out.memory.sink.take(&c->out.memory.sink, text, strlen(text));
	c->out.memory.limit -= ANSWER_BYTES;
}

/* End the answer to a line; `error` is NULL when it was done. */
static void answer_end(struct connection *c, const char *error)
{
	char line[PD_CLI_ERROR_BYTES + 16];

	snprintf(line, sizeof(line), "\036 %d%s%s\n", error != NULL, error ? " " : "",
		 error ? error : "");
	answer(c, line);
}

/* The client has broken a rule: tell it, and close when it has been told. */
static void connection_refuse(struct connection *c, const char *why)
{
	pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_CLI_REFUSED, 1);
	pd_log_ratelimited(PD_LOG_DEBUG, "cli", "a connection is closed: %s", why);
	pd_cli_abort(&c->cli);
	answer_end(c, why);
	c->closing = true;
}

/* A line, or a step of one, has been run with `ret`. */
static void line_ran(struct connection *c, int ret)
{
	if (ret == PD_CLI_MORE)
		return;
	answer_end(c, ret ? c->cli.error : NULL);
	if (c->cli.quit)
		c->closing = true;
}

/* Run the line at the head of the input, if there is a whole one. */
static void run_line(struct connection *c)
{
	char *end = memchr(c->in, '\n', c->in_n);
	char line[PD_CLI_LINE_BYTES];
	size_t n;

	if (!end) {
		if (c->in_n == sizeof(c->in))
			connection_refuse(c, LINE_TOO_LONG);
		else if (c->eof && c->in_n)
			connection_refuse(c, "the last line has no end");
		else if (c->eof)
			c->closing = true;
		return;
	}
	n = (size_t)(end - c->in);
	memcpy(line, c->in, n);
	line[n] = '\0';
	c->in_n -= n + 1;
	memmove(c->in, end + 1, c->in_n);
	pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_CLI_COMMANDS, 1);
	line_ran(c, pd_cli_begin(&c->cli, line));
}

/* Send what can be sent. Returns whether something was; closes a broken connection. */
static bool connection_flush(struct connection *c)
{
	ssize_t ret = pd_cli_queue_flush(&c->out);

	if (ret < 0)
		connection_close(c);
	return ret > 0;
}

/* One line or one step; as posted work. */
static void on_turn(struct pd_progress_work *work)
{
	struct connection *c = pd_container_of(work, struct connection, turn);
	bool moved;

	if (c->entry.fd < 0 || !is_runnable(c))
		return;
	if (c->cli.command)
		line_ran(c, pd_cli_continue(&c->cli));
	else
		run_line(c);
	moved = connection_flush(c);
	if (c->entry.fd >= 0)
		connection_settle(c, moved);
}

/* True when these bytes are text. */
static bool is_text(const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)bytes[i] < ' ' && !strchr("\t\r\n", bytes[i])) ||
		    bytes[i] == 0x7f || !bytes[i])
			return false;
	return true;
}

/* Read what has come. */
static void connection_read(struct connection *c)
{
	struct iovec iov = {c->in + c->in_n, sizeof(c->in) - c->in_n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n = pd_sys_recvmsg(c->entry.fd, &msg, MSG_DONTWAIT);

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n < 0) {
		connection_close(c);
		return;
	}
	if (n == 0)
		c->eof = true;
	if (!is_text(c->in + c->in_n, (size_t)n)) {
		connection_refuse(c, "this is no text");
		return;
	}
	c->in_n += (size_t)n;
	if (c->in_n == sizeof(c->in) && !line_waits(c))
		connection_refuse(c, LINE_TOO_LONG);
}

/* Something happened on a connection. */
static void on_connection(struct pd_progress_fd *entry, uint32_t revents)
{
	struct connection *c = pd_container_of(entry, struct connection, entry);
	bool moved = false;

	/* Gone both ways: nobody reads an answer any more. */
	if (revents & (EPOLLHUP | EPOLLERR)) {
		connection_close(c);
		return;
	}
	if (revents & EPOLLIN && !c->closing && !c->eof && c->in_n < sizeof(c->in))
		connection_read(c);
	if (c->entry.fd >= 0)
		moved = connection_flush(c);
	if (c->entry.fd >= 0)
		connection_settle(c, moved);
}

/* The client has had its time. */
static void on_patience(struct pd_progress_timer *timer)
{
	struct connection *c = pd_container_of(timer, struct connection, timer);

	if (pd_cli_queue_length(&c->out)) {
		pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_CLI_REFUSED, 1);
		pd_log_ratelimited(PD_LOG_DEBUG, "cli",
				   "a connection is closed: its client does not read");
		connection_close(c);
		return;
	}
	connection_refuse(c, "the rest of the line did not come");
	connection_flush(c);
	if (c->entry.fd >= 0)
		connection_settle(c, true);
}

/* --- the listener -------------------------------------------------------------------------- */

/* A free connection, or NULL: all are in use, or there is no memory. */
static struct connection *connection_find(void)
{
	for (unsigned i = 0; i < PD_CLI_CONNECTIONS_MAX; i++) {
		struct connection **c = &server.connections[i];

		if (*c && (*c)->entry.fd >= 0)
			continue;
		if (!*c) {
			*c = calloc(1, sizeof(**c));
			if (!*c)
				return NULL;
			(*c)->entry = (struct pd_progress_fd){.fd = -1, .fn = on_connection};
			(*c)->turn.fn = on_turn;
			pd_list_init(&(*c)->timer.node);
			(*c)->timer.fn = on_patience;
		}
		return *c;
	}
	return NULL;
}

/* Turn a new connection away, as far as it reads that at once. */
static void turn_away(int fd, const char *why)
{
	char line[160];
	struct iovec iov = {line, 0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	iov.iov_len = (size_t)snprintf(line, sizeof(line), "\036 1 %s\n", why);
	pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_CLI_REFUSED, 1);
	pd_sys_sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	pd_closer_hang_up(fd);
}

/* Serve the new connection `fd` (taken). */
static void connection_begin(int fd)
{
	struct connection *c;
	char hello[192];
	uid_t uid;

	if (!pd_path_admits(&server.access, fd, &uid)) {
		pd_log_ratelimited(PD_LOG_WARN, "cli",
				   "%s: a connection of user %u is refused: the CLI is the "
				   "program's own user's, and root's",
				   server.path, uid);
		turn_away(fd, "refused: this program runs as another user");
		return;
	}
	c = connection_find();
	if (!c) {
		turn_away(fd, TOO_MANY);
		return;
	}
	c->entry.fd = fd;
	c->entry.events = EPOLLIN;
	c->in_n = 0;
	c->eof = c->closing = false;
	pd_cli_queue_init(&c->out, fd, PD_CLI_QUEUE_MAX_BYTES);
	pd_cli_init(&c->cli, &c->out.memory.sink, &c->macros);
	if (pd_progress_add(&c->entry)) {
		c->entry.fd = -1;
		turn_away(fd, "there is no memory for the connection");
		return;
	}
	snprintf(hello, sizeof(hello), "palladium-cli %d %d %s %.63s\n", PD_CLI_PROTOCOL,
		 (int)pd_sys_getpid(), PACKAGE_VERSION, program_invocation_short_name);
	answer(c, hello);
	connection_flush(c);
	if (c->entry.fd >= 0)
		connection_settle(c, true);
}

/* Somebody connects. */
static void on_listener(struct pd_progress_fd *entry, uint32_t revents)
{
	int fd;

	(void)revents;
	for (unsigned i = 0; i < PD_CLI_CONNECTIONS_MAX; i++) {
		fd = pd_internal_fd(
			pd_sys_accept4(entry->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
		if (fd >= 0) {
			connection_begin(fd);
			continue;
		}
		if (fd != -EAGAIN && fd != -EINTR && fd != -ECONNABORTED) {
			/* No descriptors or memory: it would go on being readable. */
			pd_progress_mod(entry, 0);
			pd_progress_timer_set(&server.again, ACCEPT_PAUSE_NS);
		}
		return;
	}
}

/* Try to accept again. */
static void on_accept_again(struct pd_progress_timer *timer)
{
	(void)timer;
	pd_progress_mod(&server.listener, EPOLLIN);
}

/* --- start and end ------------------------------------------------------------------------- */

/*
 * Listen in the open directory `dirfd`, whose path `path` becomes the socket's. Returns it or
 * -errno.
 */
static int listen_in(int dirfd, char *path, size_t path_bytes, void *arg)
{
	size_t n = strlen(path);
	struct pd_shm_owner self;
	char name[96];
	int fd;

	(void)arg;
	pd_ctr_file_self(&self);
	pd_ctr_clean(dirfd, PD_SHM_CLI_PREFIX, &self);
	pd_ctr_file_name(PD_SHM_CLI_PREFIX, &self, 0, name, sizeof(name));
	if (n + 1 + strlen(name) >= path_bytes)
		return -ENAMETOOLONG;
	snprintf(path + n, path_bytes - n, "/%s", name);
	fd = pd_path_listen(path, &server.access, &server.id);
	if (fd >= 0)
		return fd;
	return pd_path_errno(fd) ? -pd_path_errno(fd) : -EADDRINUSE;
}

/* Write the path of PALLADIUM_CLI with its %d replaced to server.path. Returns 0 or -errno. */
static int own_path(const char *text)
{
	const char *pid = strstr(text, "%d");
	int n;

	if (*text != '/')
		return -EINVAL;
	if (pid)
		n = snprintf(server.path, sizeof(server.path), "%.*s%d%s", (int)(pid - text), text,
			     (int)pd_sys_getpid(), pid + 2);
	else
		n = snprintf(server.path, sizeof(server.path), "%s", text);
	return n >= (int)sizeof(server.path) ? -ENAMETOOLONG : 0;
}

/* Listen at the path that PALLADIUM_CLI names. Its directory may be written by nobody else. */
static int listen_at(const char *text)
{
	char dir[sizeof(server.path)], *slash;
	struct stat st;
	int ret = own_path(text);

	if (ret)
		return ret;
	strcpy(dir, server.path);
	slash = strrchr(dir, '/');
	slash[slash == dir] = '\0';
	ret = pd_sys_lstat(dir, &st);
	if (ret)
		return ret;
	if (!S_ISDIR(st.st_mode) || (st.st_uid && st.st_uid != pd_sys_geteuid()) ||
	    st.st_mode & 022)
		return -EPERM;
	return pd_path_listen(server.path, &server.access, &server.id);
}

/* Listen where PALLADIUM_CLI says. Returns the socket or an error of config/path.h. */
static int server_listen(void)
{
	const char *dir = NULL;

	if (strcmp(pd_vars.cli, "auto"))
		return listen_at(pd_vars.cli);
	if (pd_vars_is_set(&pd_vars, &pd_vars.stats_shmem_dir) && *pd_vars.stats_shmem_dir)
		dir = pd_vars.stats_shmem_dir;
	return pd_ctr_dir_each(dir, listen_in, NULL, server.path, sizeof(server.path));
}

void pd_cli_server_start(void)
{
	bool automatic = !strcmp(pd_vars.cli, "auto");
	int fd, ret;

	if (server.tried || !strcmp(pd_vars.cli, "off") || !*pd_vars.cli || getauxval(AT_SECURE))
		return;
	server.tried = true;
	fd = server_listen();
	if (fd < 0) {
		/* Who did not ask for it is not told without asking. */
		pd_log(automatic ? PD_LOG_DEBUG : PD_LOG_WARN, "cli", "no debug CLI%s%s: %s%s",
		       automatic ? "" : " at ", automatic ? "" : pd_vars.cli, pd_path_strerror(fd),
		       fd == -EPERM ? " (others can write its directory)" : "");
		return;
	}
	server.owner = pd_sys_getpid();
	server.listener.fd = fd;
	server.listener.events = EPOLLIN;
	ret = pd_progress_add(&server.listener);
	if (ret) {
		pd_debug("cli", "no debug CLI: %s", pd_strerror(ret));
		pd_cli_server_stop();
		server.tried = true;
	}
}

/* Close all descriptors. */
static void server_close(void)
{
	bool forked = server.owner != pd_sys_getpid();

	for (unsigned i = 0; i < PD_CLI_CONNECTIONS_MAX; i++)
		if (server.connections[i])
			connection_end(server.connections[i],
				       forked ? pd_closer_copy : pd_closer_hang_up);
	pd_progress_timer_cancel(&server.again);
	if (server.listener.fd < 0)
		return;
	pd_progress_del(&server.listener);
	(forked ? pd_closer_copy : pd_closer_listener)(server.listener.fd);
	server.listener.fd = -1;
}

void pd_cli_server_stop(void)
{
	bool there = server.listener.fd >= 0;

	server_close();
	if (there && server.owner == pd_sys_getpid())
		pd_path_remove(server.path, &server.id);
	server.tried = false;
}

void pd_cli_server_after_fork(void)
{
	server_close();
	server.tried = false;
}

const char *pd_cli_server_path(void)
{
	return server.listener.fd >= 0 ? server.path : NULL;
}

/* A program that never ends its ports: its file goes all the same. */
__attribute__((destructor)) static void server_at_exit(void)
{
	if (server.listener.fd >= 0 && server.owner == pd_sys_getpid())
		pd_path_remove(server.path, &server.id);
}
