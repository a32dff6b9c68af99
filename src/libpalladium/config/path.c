/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A Unix socket that has a path, a port's or the debug CLI's.
 *
 * What stands at a path that we are to listen on is replaced only when it is a socket, belongs to
 * this user (or to the one that such files of the port are given to), and no socket is bound to it
 * any more. A datagram connect tells, as the kernel refuses it with ECONNREFUSED for a dead file
 * and EPROTOTYPE for a live stream socket, of which the listener there notices nothing. Between
 * that test and the unlink another process could bind, so processes of this library take turns by a
 * lock on the directory; against others the file's identity is compared once more. Only who removes
 * a file needs the lock, so that whoever holds it for no good reason keeps nobody from a path that
 * is free. A symbolic link is never followed: bind does not, and what is looked at is the link.
 *
 * Access. The file is made with the mode 0600, less the umask, gets what was asked for, and only
 * then is the socket listened on: nobody can connect before. It is changed through a descriptor of
 * the file itself (O_PATH, no link followed), which was seen to be a socket of ours; so who can
 * write the directory can put something else in its place, but have nothing of ours or of another
 * opened up. Not another socket of ours either, by a link that is gone when the names are counted:
 * one whose mode is to be changed is made with a bit that no other has (S_ISVTX), and loses it. At
 * the end the file is removed only if it is still the one we made.
 *
 * The other end. The kernel notes who connects, and who listens, when they do; SO_PEERCRED reads
 * it. Who passes the connection on to another process answers for that.
 */
#include "config/path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/closer.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"

#define BACKLOG 64
/* In the mode of a socket's file until it has the one that was asked for. */
#define MARK S_ISVTX

/* Made-up errors, beyond errno. */
enum {
	PATH_NO_SOCKET = 5000,
	PATH_IN_USE,
	PATH_FOREIGN,
	PATH_REPLACED,
	PATH_MODE,
	PATH_OWNER,
	PATH_PEER,
	PATH_BACKLOG,
	PATH_NO_WAY,
	PATH_NO_PLACE,
	PATH_LOCKED,
	PATH_ERRORS_END
};

/* What each says to whoever has to do something about it, and the errno value that it comes of. */
static const struct {
	const char *text;
	int err;
} path_errors[] = {
	[PATH_NO_SOCKET - PATH_NO_SOCKET] = {"the path is not a socket", 0},
	[PATH_IN_USE - PATH_NO_SOCKET] = {"another process listens there", 0},
	[PATH_FOREIGN - PATH_NO_SOCKET] = {"a socket of another user is there", 0},
	[PATH_REPLACED - PATH_NO_SOCKET] = {"somebody put something else in its place", 0},
	[PATH_MODE - PATH_NO_SOCKET] = {"its file cannot have the mode asked for", 0},
	[PATH_OWNER -
		PATH_NO_SOCKET] = {"its file cannot be given to the owner or group asked for", 0},
	[PATH_PEER - PATH_NO_SOCKET] = {"who listens there is none of the users of peer_uid", 0},
	[PATH_BACKLOG - PATH_NO_SOCKET] = {"who listens there takes no connections: as many wait "
					   "as may (does it hang?)",
					   EAGAIN},
	[PATH_NO_WAY - PATH_NO_SOCKET] = {"not allowed: this user must be able to write the "
					  "socket's file and pass its folders",
					  EACCES},
	[PATH_NO_PLACE - PATH_NO_SOCKET] = {"not allowed: this user must be able to write the "
					    "socket's folder and pass those above",
					    EACCES},
	[PATH_LOCKED -
		PATH_NO_SOCKET] = {"another process has the lock on the socket's folder", EAGAIN},
};
_Static_assert(PD_ARRAY_SIZE(path_errors) == PATH_ERRORS_END - PATH_NO_SOCKET,
	       "every error has a text");

int pd_path_errno(int err)
{
	if (-err >= PATH_NO_SOCKET && -err < PATH_ERRORS_END)
		return path_errors[-err - PATH_NO_SOCKET].err;
	return -err;
}

const char *pd_path_strerror(int err)
{
	if (-err >= PATH_NO_SOCKET && -err < PATH_ERRORS_END)
		return path_errors[-err - PATH_NO_SOCKET].text;
	return pd_strerror(err);
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

/* --- the other end ------------------------------------------------------------------------- */

bool pd_path_admits(const struct pd_conf_access *access, int fd, uid_t *uid)
{
	struct ucred peer = {0};
	socklen_t len = sizeof(peer);

	*uid = (uid_t)-1;
	if (!access->peer_self && !access->peer_count)
		return true;
	if (pd_sys_getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || len != sizeof(peer))
		return false;
	*uid = peer.uid;
	if (access->peer_self && peer.uid == pd_sys_geteuid())
		return true;
	for (uint32_t i = 0; i < access->peer_count; i++)
		if (peer.uid == access->peers[i])
			return true;
	return false;
}

int pd_path_connect(const char *path, const struct pd_conf_access *access)
{
	struct sockaddr_un addr;
	socklen_t len = address_of(&addr, path);
	int fd = socket_make(SOCK_STREAM), err;
	struct stat st;
	uid_t uid;

	if (fd < 0)
		return fd;
	err = pd_sys_connect(fd, &addr, len);
	/* The kernel says the same of what is no socket and of one that nobody listens on. */
	if (err == -ECONNREFUSED && !pd_sys_lstat(path, &st) && !S_ISSOCK(st.st_mode) &&
	    !S_ISLNK(st.st_mode))
		err = -PATH_NO_SOCKET;
	/* Of a socket that does not wait, the kernel says that of a full backlog alone. */
	if (err == -EAGAIN)
		err = -PATH_BACKLOG;
	if (err == -EACCES)
		err = -PATH_NO_WAY;
	if (!err && !pd_path_admits(access, fd, &uid))
		err = -PATH_PEER;
	if (!err)
		return fd;
	pd_closer_hang_up(fd);
	return err;
}

/* --- the file ------------------------------------------------------------------------------ */

/* Remove a dead socket file at `path`. Returns 0 when the path is free now, or an error. */
static int path_clear(const char *path, const struct pd_conf_access *access)
{
	struct sockaddr_un addr;
	socklen_t len = address_of(&addr, path);
	struct stat before, after;
	int fd, err;

	err = pd_sys_lstat(path, &before);
	if (err)
		return err == -ENOENT ? 0 : err;
	if (!S_ISSOCK(before.st_mode))
		return -PATH_NO_SOCKET;
	if (before.st_uid != pd_sys_geteuid() &&
	    !(access->has_owner && before.st_uid == access->owner))
		return -PATH_FOREIGN;
	fd = socket_make(SOCK_DGRAM);
	if (fd < 0)
		return fd;
	err = pd_sys_connect(fd, &addr, len);
	pd_sys_close(fd);
	if (err != -ECONNREFUSED)
		return err == -ENOENT ? 0 : -PATH_IN_USE;
	if (pd_sys_lstat(path, &after) || before.st_ino != after.st_ino ||
	    before.st_dev != after.st_dev)
		return -PATH_IN_USE;
	pd_info("socket", "%s: removed the socket file of a listener that is gone", path);
	return pd_sys_unlink(path);
}

/*
 * Lock the directory of `path` against other processes of this library. Returns a descriptor to
 * close, or an error.
 */
static int directory_lock(const char *path)
{
	char dir[PD_PATH_BYTES];
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
	return err == -EWOULDBLOCK ? -PATH_LOCKED : err;
}

/* True when the file of a socket is to be opened up, to another mode or owner than it has first. */
static bool path_is_opened(const struct pd_conf_access *access)
{
	return pd_conf_access_mode(access) != PD_CONF_SOCKET_MODE || access->has_owner ||
	       access->has_group;
}

/* Bind `fd` to `path`, in place of a dead socket if one is there. Returns 0 or an error. */
static int path_bind(const char *path, const struct pd_conf_access *access, int fd)
{
	struct sockaddr_un addr;
	socklen_t len = address_of(&addr, path);
	int err, lock;

	/* The kernel gives a socket file the mode of its socket, less the umask. */
	pd_sys_fchmod(fd, PD_CONF_SOCKET_MODE | (path_is_opened(access) ? MARK : 0));
	err = pd_sys_bind(fd, &addr, len);
	if (err == -EACCES)
		return -PATH_NO_PLACE;
	if (err != -EADDRINUSE)
		return err;
	lock = directory_lock(path);
	if (lock < 0)
		return lock;
	err = path_clear(path, access);
	if (!err)
		err = pd_sys_bind(fd, &addr, len);
	pd_sys_close(lock);
	return err == -EADDRINUSE ? -PATH_IN_USE : err;
}

/* Give the file that `fd` (O_PATH) stands for the mode `mode`. Returns 0 or -errno. */
static int file_chmod(int fd, mode_t mode)
{
	char name[40];
	uint32_t turn;
	int err;

	/*
	 * fchmod takes no such descriptor; its link in /proc leads to the file itself, whatever its
	 * path leads to.
	 */
	snprintf(name, sizeof(name), "/proc/self/fd/%d", pd_internal_fd_hold(fd, &turn));
	err = (int)PD_SYS_3(SYS_fchmodat, AT_FDCWD, name, mode);
	pd_internal_fd_release(fd, turn);
	return err;
}

/* Give the file that `fd` (O_PATH) stands for what `access` asks for. Returns 0 or an error. */
static int file_give(int fd, const struct stat *st, const struct pd_conf_access *access)
{
	uid_t owner = access->has_owner ? access->owner : st->st_uid;
	gid_t group = access->has_group ? access->group : st->st_gid;
	mode_t mode = pd_conf_access_mode(access);

	/* The mode first: who has given a file away may not change it any more. */
	if ((st->st_mode & 07777) != mode && file_chmod(fd, mode))
		return -PATH_MODE;
	if ((owner != st->st_uid || group != st->st_gid) &&
	    PD_SYS_FD_5(SYS_fchownat, fd, "", owner, group, AT_EMPTY_PATH))
		return -PATH_OWNER;
	return 0;
}

/*
 * Set up the file that we just made at `path`. Returns 0 or an error; *id is set unless it is not
 * ours.
 */
static int path_give(const char *path, const struct pd_conf_access *access, struct pd_path_id *id)
{
	int fd = pd_internal_fd(pd_sys_open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0));
	struct stat st;
	int err;

	if (fd < 0)
		return fd;
	err = pd_sys_fstat(fd, &st);
	if (!err && (!S_ISSOCK(st.st_mode) || st.st_uid != pd_sys_geteuid() || st.st_nlink != 1 ||
		     (bool)(st.st_mode & MARK) != path_is_opened(access)))
		err = -PATH_REPLACED;
	if (!err) {
		*id = (struct pd_path_id){st.st_dev, st.st_ino};
		err = file_give(fd, &st, access);
	}
	pd_sys_close(fd);
	return err;
}

void pd_path_remove(const char *path, const struct pd_path_id *id)
{
	struct stat st;

	if (id->ino && !pd_sys_lstat(path, &st) && st.st_dev == id->dev && st.st_ino == id->ino)
		pd_sys_unlink(path);
}

int pd_path_listen(const char *path, const struct pd_conf_access *access, struct pd_path_id *id)
{
	struct pd_path_id made = {0};
	int fd = socket_make(SOCK_STREAM), err;

	if (fd < 0)
		return fd;
	err = path_bind(path, access, fd);
	if (err)
		goto err_socket;
	err = path_give(path, access, &made);
	if (!err)
		err = pd_sys_listen(fd, BACKLOG);
	if (err)
		goto err_path;
	*id = made;
	return fd;

err_path:
	pd_path_remove(path, &made);
err_socket:
	pd_sys_close(fd);
	return err;
}
