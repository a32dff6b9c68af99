/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the example programs share: the command line, opening a packet socket, ending on a signal.
 *
 * Nothing here is special to libpalladium but the two socket options of ex_want_sidecars(). Without
 * the preload the programs run on an interface of the kernel, where frames have no sidecar.
 */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "palladium_extra.h"

#ifdef HAVE_CONFIG_H
#	include "config.h"
#else
#	define PACKAGE_VERSION "?" /* built by hand */
#endif

#define EX_FRAME_BYTES 16384 /* room for any frame: the largest is 12,240 */
#define EX_BATCH_MAX 256
#define EX_TICK_MS 100 /* how often a waiting program looks at its stop flag and its clock */

/* What every program takes besides its own options. */
#define EX_OPTIONS                                                             \
	{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, \
	{                                                                      \
		0                                                              \
	}
#define EX_OPTIONS_SHORT "hV"
#define EX_OPTIONS_HELP                                  \
	"  -h, --help               print this text\n"   \
	"  -V, --version            print the version\n" \
	"\n"                                             \
	"SIGINT and SIGTERM end it; the last line says what was done.\n"

static const char *ex_program; /* for messages */
static const char *ex_help;    /* what --help prints */
static volatile sig_atomic_t ex_stopped;

static void ex_on_signal(int number)
{
	(void)number;
	ex_stopped = 1;
}

/* Remember the program's name and help, and let SIGINT and SIGTERM end it in order. */
static inline void ex_start(const char *program, const char *help)
{
	struct sigaction action = {.sa_handler = ex_on_signal}; /* no SA_RESTART: calls end */

	ex_program = program;
	ex_help = help;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
}

/* Say what went wrong with `what`, from errno, and end. */
static inline void __attribute__((noreturn)) ex_fail(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", ex_program, what, strerror(errno));
	exit(1);
}

/* An option that is not the program's own: print what it asks for, or that it is none, and end. */
static inline void __attribute__((noreturn)) ex_other_option(int option)
{
	if (option == 'V')
		printf("%s (libpalladium) %s\n", ex_program, PACKAGE_VERSION);
	else
		fputs(ex_help, option == 'h' ? stdout : stderr);
	exit(option == 'h' || option == 'V' ? 0 : 2);
}

/*
 * The `n` words behind the options; ends the program when there are more or fewer. `what` says what
 * they are.
 */
static inline char **ex_words(int argc, char **argv, int n, const char *what)
{
	if (argc - optind == n)
		return argv + optind;
	fprintf(stderr, "%s: expected %s, got %d word%s\n", ex_program, what, argc - optind,
		argc - optind == 1 ? "" : "s");
	ex_other_option('?');
}

/* Tell who waits for it that frames are taken from now on. */
static inline void ex_ready(const char *port)
{
	printf("%s: %s is ready\n", ex_program, port);
}

/* The number that the text of an option is; ends the program when it is none or out of range. */
static inline unsigned long long ex_number(const char *option, const char *text,
					   unsigned long long low, unsigned long long high)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno || end == text || *end || *text == '-' || value < low || value > high) {
		fprintf(stderr, "%s: %s %s: expected a number from %llu to %llu\n", ex_program,
			option, text, low, high);
		exit(2);
	}
	return value;
}

/* Nanoseconds of a clock that never goes back. */
static inline uint64_t ex_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/*
 * Open a packet socket for all frames of the port (or interface) `name`. Calls that wait for a
 * frame give up with EAGAIN after EX_TICK_MS, so that a loop around them sees the stop flag.
 */
static inline int ex_open_port(const char *name)
{
	struct timeval tick = {.tv_usec = EX_TICK_MS * 1000};
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)if_nametoindex(name),
	};
	/* Protocol 0: nothing comes in before bind says from where. */
	int fd = socket(AF_PACKET, SOCK_RAW, 0), on = 1;

	if (!address.sll_ifindex) {
		fprintf(stderr,
			"%s: there is no port or interface \"%s\"; ports come from PALLADIUM_PORTS "
			"or "
			"libpalladium.conf, under LD_PRELOAD=libpalladium.so\n",
			ex_program, name);
		exit(1);
	}
	if (fd < 0)
		ex_fail("socket");
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
		ex_fail(name);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof(tick)))
		ex_fail("SO_RCVTIMEO");
	/* What we send does not interest us; kernels before 4.20 do not know the option. */
	setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
	return fd;
}

/* Write the hardware address of the port to `mac`; it stays as it is when there is none. */
static inline void ex_read_address(int fd, const char *port, uint8_t mac[6])
{
	struct ifreq request = {0};

	strncpy(request.ifr_name, port, sizeof(request.ifr_name) - 1);
	if (ioctl(fd, SIOCGIFHWADDR, &request) == 0)
		memcpy(mac, request.ifr_hwaddr.sa_data, 6);
}

/*
 * Ask for the sidecar of each frame, and for control messages too. Returns false when the socket is
 * the kernel's: it has none.
 */
static inline bool ex_want_sidecars(int fd)
{
	int on = 1;

	if (setsockopt(fd, SOL_PALLADIUM, PALLADIUM_RECV_METADATA, &on, sizeof(on)))
		return false;
	return !setsockopt(fd, SOL_PALLADIUM, PALLADIUM_RECV_CONTROL, &on, sizeof(on));
}

/* Say, once, that a frame is too long for the port, and what helps. */
static inline void ex_say_too_long(int fd, const char *port)
{
	struct ifreq request = {0};
	static bool said;

	if (said)
		return;
	said = true;
	strncpy(request.ifr_name, port, sizeof(request.ifr_name) - 1);
	ioctl(fd, SIOCGIFMTU, &request);
	fprintf(stderr, "%s: %s: a frame is longer than the port's MTU %d: set mtu=\n", ex_program,
		port, request.ifr_mtu);
}

/*
 * A send over `port` failed. Returns true after there was time for things to change, so that trying
 * again makes sense; false when the frame is longer than the port takes. Other errors end the
 * program.
 */
static inline bool ex_wait_to_send(int fd, const char *port)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	switch (errno) {
	case EINTR:
		return true;
	case EAGAIN: /* the peer's ring is full */
		poll(&p, 1, EX_TICK_MS);
		return true;
	case ENETDOWN: /* the peer is away: it may come back */
		poll(NULL, 0, 10);
		return true;
	case ENOBUFS: /* the kernel's queue is full, and poll would not tell */
		poll(NULL, 0, 1);
		return true;
	case EMSGSIZE:
		ex_say_too_long(fd, port);
		return false;
	default:
		ex_fail("send");
	}
}

#endif /* EXAMPLE_H */
