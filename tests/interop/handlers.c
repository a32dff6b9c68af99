/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Handlers at 1 kHz that call into port pd0 themselves, in whatever call of a port they find the
 * program: `handlers COUNT` has that many, then echoes the frames of the port for ever.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int sock, ep, most;
static volatile sig_atomic_t handled;
static unsigned char frame[60];

/* A packet socket on the port. */
static int packet(void)
{
	struct sockaddr_ll addr = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	addr.sll_ifindex = (int)if_nametoindex("pd0");
	if (fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void clock_of(int us)
{
	const struct itimerval each = {{0, us}, {0, us}};

	setitimer(ITIMER_REAL, &each, NULL);
}

/* One call in turn, of those that do not wait. */
static void handler(int sig)
{
	struct pollfd p = {.fd = sock, .events = POLLIN | POLLOUT};
	struct epoll_event ev;
	unsigned char buf[2048];
	int err = errno, value;
	socklen_t n = sizeof(value);

	switch (handled % 7) {
	case 0:
		send(sock, frame, sizeof(frame), MSG_DONTWAIT);
		break;
	case 1:
		recv(sock, buf, sizeof(buf), MSG_DONTWAIT);
		break;
	case 2:
		poll(&p, 1, 0);
		break;
	case 3:
		close(dup(sock));
		break;
	case 4:
		close(packet());
		break;
	case 5:
		getsockopt(sock, SOL_SOCKET, SO_ERROR, &value, &n);
		break;
	case 6:
		epoll_wait(ep, &ev, 1, 0);
		break;
	}
	if (++handled >= most)
		clock_of(0);
	errno = err;
}

/* One call in turn, of those that a handler may find the program in. */
static void call(unsigned i, int other)
{
	struct pollfd p = {.fd = other, .events = POLLIN};
	struct epoll_event ev;
	unsigned char buf[2048];
	int fd;

	switch (i % 7) {
	case 0:
		recv(sock, buf, sizeof(buf), 0);
		break;
	case 1:
		epoll_wait(ep, &ev, 1, 3);
		break;
	case 2:
		poll(&p, 1, 3);
		break;
	case 3:
		send(sock, frame, sizeof(frame), MSG_DONTWAIT);
		break;
	case 4:
		fd = packet();
		if (fd < 0 && errno != EINTR)
			perror("socket");
		else
			close(fd);
		break;
	case 5:
		recv(other, buf, sizeof(buf), MSG_DONTWAIT);
		break;
	case 6:
		close(dup(other));
		break;
	}
}

int main(int argc, char **argv)
{
	const struct sigaction act = {.sa_handler = handler};
	const struct timeval limit = {0, 20000}, none = {0, 0};
	struct epoll_event ev = {.events = EPOLLIN};
	unsigned char buf[4096];
	int other;

	setvbuf(stdout, NULL, _IONBF, 0);
	most = argc > 1 ? atoi(argv[1]) : 0;
	memset(frame, 0xff, 12);
	frame[12] = 0x88;
	frame[13] = 0xb5;
	sock = packet();
	other = packet();
	ep = epoll_create1(0);
	if (sock < 0 || other < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, sock, &ev) < 0)
		return 1;
	printf("ready\n");
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	sigaction(SIGALRM, &act, NULL);
	clock_of(1000);
	for (unsigned i = 0; handled < most; i++)
		call(i, other);
	close(other);
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
	printf("over\n");
	for (;;) {
		ssize_t n = recv(sock, buf, sizeof(buf), 0);

		if (n > 0)
			send(sock, buf, (size_t)n, 0);
	}
}
