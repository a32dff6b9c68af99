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

/* Guarded by pd_control. */
static struct {
	struct pd_progress_fd listener;
	struct pd_progress_timer again; /* accept once more */
	char path[PD_PATH_BYTES];
	struct pd_path_id id;
	struct pd_conf_access access;
	bool tried;
	pid_t owner; /* who made the file: a child that forked behind our back must not remove it */
} server = {
	.listener = {.fd = -1, .events = EPOLLIN, .fn = on_listener},
	.again = {.node = PD_LIST_INIT(server.again.node), .fn = on_accept_again},
	/* The program's user, and root. */
	.access = {.peer_self = true, .peer_count = 1, .peers = {0}},
};

/* --- the listener -------------------------------------------------------------------------- */

/* Serve the new connection `fd` (taken), if it may be. */
static void take(int fd)
{
	uid_t uid;

	if (pd_path_admits(&server.access, fd, &uid)) {
		pd_cli_connection_begin(fd);
		return;
	}
	pd_log_ratelimited(PD_LOG_WARN, "cli",
			   "%s: a connection of user %u is refused: the CLI is the program's own "
			   "user's, and root's",
			   server.path, uid);
	pd_cli_turn_away(fd, "refused: this program runs as another user");
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
			take(fd);
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

	pd_cli_connections_end(forked);
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
