/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The two jumps of preload/asm.c, each way: syscall() that is for a port, that is for libc, and
 * whose number lies beyond the table; vfork with a child that runs, and one that execs. Run under
 * the preload with PALLADIUM_PORTS=pd1=loop:pd2. Prints what went wrong; the exit status tells
 * whether something did.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

#define must(cond)                                                             \
	do {                                                                   \
		if (!(cond)) {                                                 \
			printf("%d: %s (errno %d)\n", __LINE__, #cond, errno); \
			failures++;                                            \
		}                                                              \
	} while (0)

/* A packet socket on `port`, by number. */
static int packet_socket(const char *port)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	long fd = syscall(SYS_socket, AF_PACKET, SOCK_RAW, (int)htons(ETH_P_ALL));

	must(fd >= 0);
	to.sll_ifindex = (int)if_nametoindex(port);
	must(to.sll_ifindex != 0);
	must(syscall(SYS_bind, (int)fd, &to, sizeof(to)) == 0);
	return (int)fd;
}

/* A frame goes from pd1 to pd2 by syscall(), all six arguments in use. */
static void frames(void)
{
	int a = packet_socket("pd1"), b = packet_socket("pd2");
	unsigned char out[200], in[300];
	struct sockaddr_ll from = {0};
	socklen_t len = sizeof(from);

	for (unsigned i = 0; i < sizeof(out); i++)
		out[i] = (unsigned char)i;
	for (int i = 0; i < 100; i++) {
		out[20] = (unsigned char)i;
		must(syscall(SYS_sendto, a, out, sizeof(out), 0, NULL, 0) == sizeof(out));
		must(syscall(SYS_recvfrom, b, in, sizeof(in), 0, &from, &len) == sizeof(out));
		must(!memcmp(in, out, sizeof(out)));
		must(from.sll_family == AF_PACKET && from.sll_ifindex != 0);
	}
	must(syscall(SYS_close, a) == 0 && syscall(SYS_close, b) == 0);
	errno = 0;
	must(syscall(SYS_close, a) == -1 && errno == EBADF);
}

/* Numbers that are libc's. */
static void others(void)
{
	char c = 0;
	int fds[2];

	must(syscall(SYS_getpid) == getpid());
	errno = 0;
	must(syscall(511) == -1 && errno == ENOSYS);
	must(syscall(512) == -1 && errno == ENOSYS);
	must(syscall(-1L) == -1 && errno == ENOSYS);
	must(pipe(fds) == 0);
	must(syscall(SYS_write, fds[1], "x", 1) == 1 && syscall(SYS_read, fds[0], &c, 1) == 1);
	must(c == 'x');
}

/* Children by vfork, from `depth` frames down. */
static void children(int depth)
{
	int status = 0;
	pid_t pid;

	if (depth) {
		children(depth - 1);
		return;
	}
	for (int i = 0; i < 20; i++) {
		pid = vfork();
		if (pid == 0)
			_exit(i);
		must(pid > 0 && waitpid(pid, &status, 0) == pid);
		must(WIFEXITED(status) && WEXITSTATUS(status) == i);
	}
}

int main(void)
{
	others();
	frames();
	others();
	children(5);
	if (!failures)
		puts("ok");
	return !!failures;
}
