/* SPDX-License-Identifier: BSD-2-Clause */
/* The debug CLI's socket, to which others connect (contract in server.h). */
#include "cli/server.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/closer.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "cli/connection.h"
#include "cli/telnet.h"
#include "config/path.h"
#include "config/vars.h"
#include "counters/counters.h"
#include "counters/file.h"
#include "vlib/progress.h"

#define ACCEPT_PAUSE_NS PD_NS_PER_SEC /* after an accept that failed */

/* The commands that every server has. */
extern const char *const pd_cli_server_commands[];
const char *const pd_cli_server_commands[] = {&pd_cli_has_engines, &pd_cli_has_generator,
					      &pd_cli_has_graph,   &pd_cli_has_plugins,
					      &pd_cli_has_process, &pd_cli_has_trace};

static void on_listener(struct pd_progress_fd *entry, uint32_t revents);
static void on_accept_again(struct pd_progress_timer *timer);

/* A socket that others connect to. */
struct listener {
	struct pd_progress_fd entry;    /* fd -1: none */
	struct pd_progress_timer again; /* accept once more */
};
#define LISTENER(which)                                                                          \
	{                                                                                        \
		.entry = {.fd = -1, .events = EPOLLIN, .fn = on_listener},                       \
		.again = {.node = PD_LIST_INIT(server.which.again.node), .fn = on_accept_again}, \
	}

/* Guarded by pd_control. */
static struct {
	struct listener local, telnet;
	char path[PD_PATH_BYTES]; /* of `local` */
	struct pd_path_id id;
	struct pd_conf_access access;
	bool tried;
	bool forked; /* the parent has the telnet port */
	pid_t owner; /* who made the file: a child that forked behind our back must not remove it */
} server = {
	.local = LISTENER(local),
	.telnet = LISTENER(telnet),
	/* The program's user, and root. */
	.access = {.peer_self = true, .peer_count = 1, .peers = {0}},
};

/* --- the listeners ------------------------------------------------------------------------- */

/* Whether who is on the telnet connection from `peer` may be served; *uid is who that is. */
static bool telnet_admits(const struct sockaddr_in *peer, uid_t *uid)
{
	int err = pd_telnet_peer(peer, (uint16_t)pd_vars.cli_port, uid);

	if (!err)
		return !*uid || *uid == pd_sys_geteuid();
	*uid = (uid_t)-1;
	pd_log_ratelimited(PD_LOG_WARN, "cli", "port %d: who connects cannot be told: %s",
			   pd_vars.cli_port, pd_strerror(err));
	return false;
}

/* Serve the new connection `fd` (taken), if it may be. `peer` is its address, if it is telnet's. */
static void take(int fd, const struct sockaddr_in *peer)
{
	char port[16];
	uid_t uid;

	if (peer ? telnet_admits(peer, &uid) : pd_path_admits(&server.access, fd, &uid)) {
		pd_cli_connection_begin(fd, peer);
		return;
	}
	snprintf(port, sizeof(port), "port %d", pd_vars.cli_port);
	if (uid != (uid_t)-1)
		pd_log_ratelimited(PD_LOG_WARN, "cli",
				   "%s: a connection of user %u is refused: the CLI is the "
				   "program's own user's, and root's",
				   peer ? port : server.path, uid);
	pd_cli_turn_away(fd, peer,
			 uid == (uid_t)-1 ? "refused: the kernel does not say who you are"
					  : "refused: this program runs as another user");
}

/* Somebody connects. */
static void on_listener(struct pd_progress_fd *entry, uint32_t revents)
{
	struct listener *l = pd_container_of(entry, struct listener, entry);
	bool telnet = l == &server.telnet;

	(void)revents;
	for (unsigned i = 0; i < PD_CLI_CONNECTIONS_MAX; i++) {
		struct sockaddr_in peer = {0};
		socklen_t n = sizeof(peer);
		int fd = pd_internal_fd(pd_sys_accept4(entry->fd, telnet ? &peer : NULL,
						       telnet ? &n : NULL,
						       SOCK_NONBLOCK | SOCK_CLOEXEC));

		if (fd >= 0) {
			take(fd, telnet ? &peer : NULL);
			continue;
		}
		if (fd != -EAGAIN && fd != -EINTR && fd != -ECONNABORTED) {
			/* No descriptors or memory: it would go on being readable. */
			pd_progress_mod(entry, 0);
			pd_progress_timer_set(&l->again, ACCEPT_PAUSE_NS);
		}
		return;
	}
}

/* Try to accept again. */
static void on_accept_again(struct pd_progress_timer *timer)
{
	pd_progress_mod(&pd_container_of(timer, struct listener, again)->entry, EPOLLIN);
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

/* Nobody waits for what is in the backlog of TCP. */
static void close_plainly(int fd)
{
	pd_sys_close(fd);
}

/* Begin to accept on `fd` (taken), or take the error. Returns 0 or that. */
static int listener_begin(struct listener *l, int fd)
{
	int err;

	if (fd < 0)
		return fd;
	l->entry.fd = fd;
	l->entry.events = EPOLLIN;
	err = pd_progress_add(&l->entry);
	if (err) {
		(l == &server.telnet ? close_plainly : pd_closer_listener)(fd);
		l->entry.fd = -1;
	}
	return err;
}

/* Have the socket that palladium_ctl talks to. */
static void local_start(void)
{
	bool automatic = !strcmp(pd_vars.cli, "auto");
	int fd = server_listen(), err;

	err = listener_begin(&server.local, fd);
	if (fd >= 0 && err)
		pd_path_remove(server.path, &server.id);
	/* Who did not ask for it is not told without asking. */
	if (err)
		pd_log(automatic ? PD_LOG_DEBUG : PD_LOG_WARN, "cli", "no debug CLI%s%s: %s%s",
		       automatic ? "" : " at ", automatic ? "" : pd_vars.cli, pd_path_strerror(err),
		       err == -EPERM ? " (others can write its directory)" : "");
}

/* Have the port for telnet. */
static void telnet_start(void)
{
	int err = listener_begin(&server.telnet, pd_telnet_listen((uint16_t)pd_vars.cli_port));

	if (err)
		pd_log(server.forked ? PD_LOG_DEBUG : PD_LOG_WARN, "cli",
		       "no debug CLI at port %d of 127.0.0.1: %s", pd_vars.cli_port,
		       pd_strerror(err));
	else
		pd_details("cli", "the debug CLI is at port %d of 127.0.0.1 too", pd_vars.cli_port);
}

void pd_cli_server_start(void)
{
	bool local = strcmp(pd_vars.cli, "off") && *pd_vars.cli;

	if (server.tried || (!local && !pd_vars.cli_port) || getauxval(AT_SECURE))
		return;
	server.tried = true;
	server.owner = pd_sys_getpid();
	if (local)
		local_start();
	if (pd_vars.cli_port)
		telnet_start();
}

/* Close a listener's descriptor by `close`. */
static void listener_end(struct listener *l, void (*close)(int fd))
{
	pd_progress_timer_cancel(&l->again);
	if (l->entry.fd < 0)
		return;
	pd_progress_del(&l->entry);
	close(l->entry.fd);
	l->entry.fd = -1;
}

/* Close all descriptors. */
static void server_close(void)
{
	bool forked = server.owner != pd_sys_getpid();

	pd_closer_copies(forked);
	pd_cli_connections_end();
	listener_end(&server.local, pd_closer_listener);
	listener_end(&server.telnet, close_plainly);
	pd_closer_copies(false);
	server.tried = false;
}

void pd_cli_server_stop(void)
{
	bool there = server.local.entry.fd >= 0;

	server_close();
	if (there && server.owner == pd_sys_getpid())
		pd_path_remove(server.path, &server.id);
}

void pd_cli_server_after_fork(void)
{
	server.forked |= server.telnet.entry.fd >= 0;
	server_close();
}

const char *pd_cli_server_path(void)
{
	return server.local.entry.fd >= 0 ? server.path : NULL;
}

/* A program that never ends its ports: its file goes all the same. */
__attribute__((destructor)) static void server_at_exit(void)
{
	if (server.local.entry.fd >= 0 && server.owner == pd_sys_getpid())
		pd_path_remove(server.path, &server.id);
}
