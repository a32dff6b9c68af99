/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program that meets memory of its peers that is gone, in all the states that a thread can be in
 * (test_sigbus.py). It says "ready", with a frame echoed on each port, waits for a line, during
 * which the memory goes, does what argv[1] says, and says "alive", or what was wrong. Then it
 * echoes on the last port until there is a line with the name of another mode, with which it
 * begins again: it says "ready", waits for a line...
 *
 *   faults MODE PORT...
 */
#include <errno.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PORTS 8
#define PAGE 4096

static int sock[PORTS], ports;
static pthread_barrier_t together;
static char *own; /* a mapping of the program's whose file is gone */
static char alt_stack[65536];
static volatile int hits, nested, wrong;

#define CHECK(cond)                                               \
	do {                                                      \
		if (!(cond)) {                                    \
			printf("line %d: %s\n", __LINE__, #cond); \
			fflush(stdout);                           \
			_exit(1);                                 \
		}                                                 \
	} while (0)

/* Look at the ring of a port: the memory is gone, or the port is down by now. */
static int look(int fd)
{
	char frame[2048];

	return recv(fd, frame, sizeof(frame), MSG_DONTWAIT) < 0 &&
	       (errno == EAGAIN || errno == ENETDOWN);
}

/* Send back a frame; with MSG_DONTWAIT one that is there, if any. */
static void echo(int fd, int flags)
{
	char frame[2048];
	ssize_t n;

	do
		n = recv(fd, frame, sizeof(frame), flags);
	while (n < 0 && !flags && (errno == ENETDOWN || errno == EINTR));
	if (n < 0 && flags)
		return;
	CHECK(n > 0);
	while (send(fd, frame, (size_t)n, 0) < 0)
		CHECK(errno == ENETDOWN || errno == EINTR);
}

static void block_all(void)
{
	sigset_t all, now;

	sigfillset(&all);
	CHECK(!pthread_sigmask(SIG_SETMASK, &all, NULL));
	CHECK(!sigprocmask(SIG_BLOCK, NULL, &now));
	CHECK(sigismember(&now, SIGBUS) == 1 && sigismember(&now, SIGUSR1) == 1);
}

static void on_usr1(int sig)
{
	hits++;
	wrong |= !look(sock[0]);
}

/*
 * The program's own SIGBUS: on its stack, with its address; it looks at the port too, and mends the
 * page.
 */
static void on_bus(int sig, siginfo_t *info, void *context)
{
	char here;

	hits++;
	wrong |= sig != SIGBUS || info->si_addr != own + 5;
	wrong |= &here < alt_stack || &here >= alt_stack + sizeof(alt_stack);
	nested += look(sock[0]);
	wrong |= mmap(own, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		      -1, 0) != own;
}

static void on_count(int sig)
{
	hits++;
}

/* A mapping of a file that has no bytes. */
static void own_make(void)
{
	int fd = memfd_create("own", MFD_CLOEXEC);

	CHECK(fd >= 0 && !ftruncate(fd, PAGE));
	own = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(own != MAP_FAILED && !ftruncate(fd, 0));
	close(fd);
}

/* Echoes for ever, with all signals blocked. */
static void *echo_for_ever(void *fd)
{
	block_all();
	while (1)
		echo(*(const int *)fd, 0);
	return NULL;
}

/* A thread for each port but the last. */
static void traffic(void)
{
	pthread_t thread;

	for (int i = 0; i < ports - 1; i++)
		CHECK(!pthread_create(&thread, NULL, echo_for_ever, &sock[i]));
}

/* All threads look at once, each at its port. */
static void *one_of_several(void *arg)
{
	const int *fd = arg;

	block_all();
	pthread_barrier_wait(&together);
	return look(*fd) ? arg : NULL;
}

static void several(void)
{
	pthread_t threads[PORTS];
	void *ret;

	pthread_barrier_init(&together, NULL, (unsigned)ports - 1);
	for (int i = 0; i < ports - 1; i++)
		CHECK(!pthread_create(&threads[i], NULL, one_of_several, &sock[i]));
	for (int i = 0; i < ports - 1; i++) {
		pthread_join(threads[i], &ret);
		CHECK(ret);
	}
}

/* The handler is called once, and what stands there afterwards is what the kernel would say. */
static void reset_hand(void)
{
	struct sigaction act = {.sa_handler = on_count, .sa_flags = (int)SA_RESETHAND | SA_RESTART},
			 now;

	CHECK(!sigaction(SIGBUS, &act, NULL));
	CHECK(look(sock[0])); /* none of its business */
	CHECK(!hits && !sigaction(SIGBUS, NULL, &now) && now.sa_handler == on_count);
	raise(SIGBUS);
	CHECK(hits == 1 && !sigaction(SIGBUS, NULL, &now) && now.sa_handler == SIG_DFL);
	CHECK(now.sa_flags & (int)SA_RESETHAND);
}

/*
 * Whether a SIGBUS waits; one that was just sent may be on its way back to the kernel
 * (base/fault.c) for a moment.
 */
static int waits(void)
{
	static const struct timespec moment = {.tv_nsec = 1000000};
	sigset_t pending;

	for (int i = 0; i < 10000; i++) {
		sigpending(&pending);
		if (sigismember(&pending, SIGBUS) == 1)
			return 1;
		nanosleep(&moment, NULL);
	}
	return 0;
}

/* What the program blocks and somebody sends waits, whole, until the program asks. */
static void sent(void)
{
	static const struct timespec long_time = {.tv_sec = 10};
	sigset_t bus;
	siginfo_t info;

	signal(SIGBUS, on_count);
	block_all();
	CHECK(look(sock[0]));
	CHECK(!sigqueue(getpid(), SIGBUS, (union sigval){.sival_int = 42}));
	CHECK(waits() && !hits);
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	CHECK(sigtimedwait(&bus, &info, &long_time) == SIGBUS && info.si_value.sival_int == 42);
	CHECK(!pthread_sigmask(SIG_UNBLOCK, &bus, NULL) && !hits);
	raise(SIGBUS);
	CHECK(hits == 1);
}

/* Flags and mask are the program's; they act. */
static void own_handler(void)
{
	stack_t stack = {.ss_sp = alt_stack, .ss_size = sizeof(alt_stack)};
	struct sigaction act = {.sa_sigaction = on_bus,
				.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART},
			 now;

	sigfillset(&act.sa_mask);
	CHECK(!sigaltstack(&stack, NULL) && !sigaction(SIGBUS, &act, NULL));
	CHECK(!sigaction(SIGBUS, NULL, &now) && now.sa_sigaction == on_bus);
	CHECK((now.sa_flags & 0x3fffffff & ~0x04000000) == (act.sa_flags & 0x3fffffff));
	CHECK(sigismember(&now.sa_mask, SIGTERM) == 1 && sigismember(&now.sa_mask, SIGBUS) == 1);
	own_make();
	own[5] = 1;
	CHECK(hits == 1 && nested == 1 && !wrong);
	CHECK(look(sock[0]) && hits == 1);
	CHECK(!munmap(own, PAGE));
}

static void act(const char *mode)
{
	struct sigaction usr1 = {.sa_handler = on_usr1};
	sigset_t none;

	sigemptyset(&none);
	CHECK(!pthread_sigmask(SIG_SETMASK, &none, NULL));
	hits = nested = wrong = 0;
	if (!strcmp(mode, "blocked")) {
		block_all();
		CHECK(look(sock[0]));
	} else if (!strcmp(mode, "handler")) {
		sigfillset(&usr1.sa_mask);
		CHECK(!sigaction(SIGUSR1, &usr1, NULL));
		raise(SIGUSR1);
		CHECK(hits == 1 && !wrong);
	} else if (!strcmp(mode, "own")) {
		own_handler();
	} else if (!strcmp(mode, "several")) {
		several();
	} else if (!strcmp(mode, "traffic")) {
		traffic();
	} else if (!strcmp(mode, "reset")) {
		reset_hand();
	} else if (!strcmp(mode, "sent")) {
		sent();
	} else if (
		!strcmp(mode,
			"dies")) { /* a fault that is the program's, blocked: the end, whatever the handler */
		signal(SIGBUS, on_count);
		block_all();
		own_make();
		own[5] = 1;
	}
}

/* Echo on the last port until there is a line, and take that. */
static void echo_until(char *line, int size)
{
	struct pollfd at[2] = {{.events = POLLIN}, {.fd = sock[ports - 1], .events = POLLIN}};

	while (1) {
		if (poll(at, 2, -1) < 0) {
			CHECK(errno == EINTR);
			continue;
		}
		if (at[0].revents)
			break;
		if (at[1].revents)
			echo(sock[ports - 1], MSG_DONTWAIT);
	}
	CHECK(fgets(line, size, stdin));
	line[strcspn(line, "\n")] = 0;
}

int main(int argc, char **argv)
{
	char line[16], mode[16];

	ports = argc - 2;
	for (int i = 0; i < ports; i++) {
		struct sockaddr_ll at = {.sll_family = AF_PACKET,
					 .sll_ifindex = (int)if_nametoindex(argv[2 + i])};

		sock[i] = socket(AF_PACKET, SOCK_RAW, 0x0300);
		CHECK(sock[i] >= 0 && !bind(sock[i], (void *)&at, sizeof(at)));
	}
	for (int i = 0; i < ports; i++)
		echo(sock[i], 0);
	snprintf(mode, sizeof(mode), "%s", argv[1]);
	while (1) {
		printf("ready\n");
		fflush(stdout);
		CHECK(fgets(line, sizeof(line), stdin));
		act(mode);
		printf("alive\n");
		fflush(stdout);
		echo_until(mode, sizeof(mode));
	}
}
