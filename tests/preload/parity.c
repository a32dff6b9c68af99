/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every intercepted call on descriptors of the kernel's, good and bad: prints a line per call with
 * what it returned and errno. test_passthrough.py runs it with and without the preload and
 * compares.
 *
 * With the argument "footprint" it prints how many tasks and descriptors it has and which files it
 * maps.
 */
#undef _FORTIFY_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* Evaluate a call with errno at a known value, and print both. */
#define SHOW(call)                                                 \
	do {                                                       \
		errno = 77;                                        \
		long show_ret = (long)(call);                      \
		printf("%s = %ld (%d)\n", #call, show_ret, errno); \
	} while (0)

extern ssize_t __read_chk(int, void *, size_t, size_t);
extern ssize_t __recv_chk(int, void *, size_t, size_t, int);
extern ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);
extern int __poll_chk(struct pollfd *, nfds_t, int, size_t);
extern int __ppoll_chk(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t);

static char buf[256];
static struct iovec iov = {buf, sizeof(buf)};
static struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
static struct mmsghdr mmsg[2];
static socklen_t len;
static struct sockaddr_storage addr;

/* Everything on one number that is no descriptor, and on a file. */
static void refused(int fd)
{
	struct timespec zero = {0, 0};
	int on = 1;

	SHOW(close_range(9, 8, 0));
	SHOW(shutdown(fd, SHUT_RD));
	SHOW(listen(fd, 1));
	SHOW(accept(fd, NULL, NULL));
	SHOW(accept4(fd, NULL, NULL, SOCK_CLOEXEC));
	SHOW(bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	SHOW(connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on)));
	len = sizeof(on);
	SHOW(getsockopt(fd, SOL_SOCKET, SO_TYPE, &on, &len));
	SHOW(getsockname(fd, (struct sockaddr *)&addr, &len));
	SHOW(getpeername(fd, (struct sockaddr *)&addr, &len));
	SHOW(fcntl(fd, F_GETFD));
	SHOW(fcntl(fd, 9999, 0));
	SHOW(ioctl(fd, FIONREAD, &on));
	SHOW(ioctl(fd, 0x8933, NULL));
	SHOW(preadv2(fd, &iov, 1, -1, RWF_NOWAIT));
	SHOW(pwritev2(fd, &iov, 1, -1, 0x10000));
	SHOW(recv(fd, buf, 1, MSG_DONTWAIT));
	SHOW(recvfrom(fd, buf, 1, MSG_DONTWAIT, NULL, NULL));
	SHOW(recvmsg(fd, &msg, MSG_DONTWAIT));
	SHOW(recvmmsg(fd, mmsg, 1, MSG_DONTWAIT, &zero));
	SHOW(send(fd, buf, 1, 0));
	SHOW(sendto(fd, buf, 1, 0, NULL, 0));
	SHOW(sendmsg(fd, &msg, 0));
	SHOW(sendmmsg(fd, mmsg, 1, 0));
	SHOW(sendfile(fd, -1, NULL, 1));
	SHOW(sendfile64(-1, fd, NULL, 1));
	SHOW(splice(fd, NULL, -1, NULL, 1, 0));
	SHOW(epoll_ctl(fd, EPOLL_CTL_ADD, 0, NULL));
	SHOW(epoll_wait(fd, NULL, 0, 0));
	SHOW(epoll_pwait(fd, NULL, 1, 0, NULL));
	SHOW(epoll_pwait2(fd, NULL, 1, &zero, NULL));
	SHOW(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 1));
	SHOW(syscall(SYS_sendmmsg, fd, mmsg, 1, 0));
	SHOW(syscall(SYS_recvmmsg, fd, mmsg, 1, MSG_DONTWAIT, NULL));
}

/* Descriptors that come and go. */
static void descriptors(void)
{
	int fds[2], fd;

	SHOW(read(-1, buf, 1));
	SHOW(write(-1, buf, 1));
	SHOW(readv(-1, &iov, 1));
	SHOW(writev(-1, &iov, 1));
	SHOW(close(-1));
	SHOW(dup(-1));
	SHOW(dup2(-1, 5));
	SHOW(dup3(0, 0, 0));
	SHOW(dup3(0, 5, 12345));
	SHOW(fdopen(-1, "r"));
	SHOW(fdopen(0, "nonsense"));
	SHOW(socket(-1, 0, 0));
	SHOW(socketpair(AF_INET, SOCK_STREAM, 0, fds));
	SHOW(open("/nonexistent", O_RDONLY));
	SHOW(open64("/nonexistent/x", O_CREAT | O_WRONLY, 0600));
	SHOW(openat(-1, "x", O_RDONLY));
	SHOW(openat64(AT_FDCWD, "/tmp", O_TMPFILE | O_RDONLY, 0600));
	SHOW(creat("/nonexistent/x", 0600));
	SHOW(creat64("/nonexistent/x", 0600));
	SHOW(pipe(fds));
	SHOW(fds[0] * 100 + fds[1]);
	SHOW(write(fds[1], "abc", 3));
	SHOW(splice(fds[0], NULL, fds[1], NULL, 3, 0));
	SHOW(__read_chk(fds[0], buf, 3, sizeof(buf)));
	SHOW(close_range((unsigned)fds[0], (unsigned)fds[1], 0));
	SHOW(close(fds[0]));
	SHOW(pipe2(fds, 12345));
	SHOW(pipe2(fds, O_NONBLOCK | O_CLOEXEC));
	SHOW(fcntl(fds[0], F_GETFL));
	SHOW(fcntl64(fds[0], F_DUPFD_CLOEXEC, 100));
	SHOW(read(fds[0], buf, 1));
	SHOW(dup2(fds[0], 50));
	SHOW(dup(fds[1]));
	closefrom(3);
	SHOW(close(50));
	SHOW(close_range(3, ~0u, 4096));
	fd = open("/proc/self/exe", O_RDONLY);
	SHOW(fd);
	SHOW(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED);
	SHOW(mmap64(NULL, 0, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED);
	SHOW(munmap((void *)1, 1));
	refused(fd);
	close(fd);
}

/* Sockets of the kernel's, both ends here. */
static void sockets(void)
{
	struct timespec zero = {0, 0};
	struct pollfd pfd;
	struct epoll_event ev = {.events = EPOLLIN};
	struct timeval tv = {0, 0};
	int fds[2], ep;
	fd_set set;

	SHOW(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds));
	mmsg[0].msg_hdr = mmsg[1].msg_hdr = msg;
	SHOW(send(fds[0], "hello", 5, 0));
	SHOW(recv(fds[1], buf, 2, MSG_PEEK | MSG_TRUNC));
	SHOW(__recv_chk(fds[1], buf, 2, 2, MSG_TRUNC));
	SHOW(sendto(fds[0], "x", 1, 0, (void *)1, 12));
	SHOW(sendmmsg(fds[0], mmsg, 2, 0));
	SHOW(mmsg[1].msg_len);
	SHOW(recvmmsg(fds[1], mmsg, 2, 0, &zero));
	SHOW(__recvfrom_chk(fds[1], buf, 1, 1, MSG_DONTWAIT, NULL, NULL));
	SHOW(preadv2(fds[1], &iov, 1, -1, RWF_NOWAIT));
	SHOW(preadv2(fds[1], &iov, 1, 5, 0));
	SHOW(pwritev2(fds[0], &iov, 1, -1, 0));
	pfd = (struct pollfd){fds[1], POLLIN | POLLPRI, 0};
	SHOW(poll(&pfd, 1, 1000));
	SHOW(pfd.revents);
	SHOW(ppoll(&pfd, 1, &zero, NULL));
	SHOW(__poll_chk(&pfd, 1, 0, sizeof(pfd)));
	SHOW(__ppoll_chk(&pfd, 1, &zero, NULL, sizeof(pfd)));
	SHOW(poll((void *)1, 1, 0));
	FD_ZERO(&set);
	FD_SET(fds[1], &set);
	SHOW(select(fds[1] + 1, &set, NULL, NULL, &tv));
	SHOW(pselect(fds[1] + 1, &set, NULL, NULL, &zero, NULL));
	SHOW(select(-1, NULL, NULL, NULL, &tv));
	SHOW(epoll_create(0));
	SHOW(epoll_create1(12345));
	ep = epoll_create1(EPOLL_CLOEXEC);
	SHOW(ep);
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fds[1], &ev));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fds[1], &ev));
	SHOW(epoll_wait(ep, &ev, 1, 1000));
	SHOW(epoll_pwait2(ep, &ev, 1, &zero, NULL));
	SHOW(syscall(SYS_dup3, fds[0], fds[1], 0));
	SHOW(syscall(SYS_close, fds[1]));
	SHOW(syscall(SYS_close, fds[1]));
	SHOW(syscall(99999));
	SHOW(syscall(SYS_getpid) == getpid());
	refused(fds[0]);
	closefrom(3);
}

static volatile int caught;

static void on_signal(int sig)
{
	caught = sig;
}

/* A thread that waits in read until it is cancelled. */
static void *wait_in_read(void *arg)
{
	read(*(int *)arg, buf, 1);
	return NULL;
}

/* Processes, signals and cancellation. */
static void processes(void)
{
	char *argv[] = {"true", NULL}, *none[] = {NULL};
	int status, fds[2];
	pthread_t thread;
	void *result;
	pid_t pid;

	pid = fork();
	if (!pid)
		_exit(3);
	SHOW(waitpid(pid, &status, 0) == pid);
	SHOW(status);
	pid = vfork();
	if (!pid)
		_exit(4);
	SHOW(waitpid(pid, &status, 0) == pid);
	SHOW(status);
	SHOW(posix_spawn(&pid, "/nonexistent", NULL, NULL, argv, none));
	SHOW(posix_spawnp(&pid, "true", NULL, NULL, argv, none));
	SHOW(waitpid(pid, &status, 0) == pid);
	SHOW(status);
	SHOW(sigaction(SIGKILL, &(struct sigaction){.sa_handler = on_signal}, NULL));
	SHOW(signal(SIGUSR1, on_signal) == SIG_DFL);
	SHOW(signal(SIGUSR1, on_signal) == on_signal);
	SHOW(signal(9999, on_signal) == SIG_ERR);
	raise(SIGUSR1);
	SHOW(caught);
	SHOW(pipe(fds));
	pthread_create(&thread, NULL, wait_in_read, &fds[0]);
	SHOW(pthread_cancel(thread));
	SHOW(pthread_join(thread, &result));
	SHOW(result == PTHREAD_CANCELED);
	pid = fork();
	if (!pid) {
		closefrom(3);
		_exit(daemon(1, 0) == 0 && open("/dev/null", O_RDWR) == 3 ? 5 : 6);
	}
	SHOW(waitpid(pid, &status, 0) == pid);
	SHOW(status);
}

/* Interfaces. */
static void interfaces(void)
{
	struct if_nameindex *names;
	struct ifaddrs *addrs;
	char name[IF_NAMESIZE];

	SHOW(if_nametoindex("lo"));
	SHOW(if_nametoindex("no-such-if"));
	SHOW(if_indextoname(1, name) == name);
	SHOW(if_indextoname(99999, name) == NULL);
	names = if_nameindex();
	for (struct if_nameindex *p = names; p && p->if_index; p++)
		printf("%u %s\n", p->if_index, p->if_name);
	if_freenameindex(names);
	SHOW(getifaddrs(&addrs));
	for (struct ifaddrs *p = addrs; p; p = p->ifa_next)
		printf("%s %d\n", p->ifa_name, p->ifa_addr ? p->ifa_addr->sa_family : -1);
	freeifaddrs(addrs);
}

/* The number of entries of a folder of /proc. */
static int count(const char *path)
{
	DIR *dir = opendir(path);
	int n = 0;

	while (dir && readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* What this process has that a preload might have added. */
static void footprint(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512], *path;

	printf("tasks %d\nfds %d\n", count("/proc/self/task"), count("/proc/self/fd"));
	while (fgets(line, sizeof(line), maps)) {
		path = strchr(line, '/');
		if (path)
			printf("map %s", path);
	}
	fclose(maps);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1 && !strcmp(argv[1], "overflow")) {
		__read_chk(0, buf, 10, 5);
		return 0;
	}
	if (argc > 1) {
		footprint();
		return 0;
	}
	refused(-1);
	refused(1000000);
	descriptors();
	sockets();
	processes();
	interfaces();
	return 0;
}
