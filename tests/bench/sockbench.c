/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One end of a packet-socket measurement, on any interface: a kernel's (veth) or a port. It knows
 * nothing of the library, so the same program runs on both and the figures compare.
 *
 *   sockbench tx   IF N SIZE BATCH    send N frames by sendmmsg; BATCH 0 is one a call here and below, sendmsg and recvmsg
 *   sockbench rx   IF N SIZE BATCH    receive N frames, check every byte, print the rate
 *   sockbench talk IF N SIZE BATCH    send N frames, at most WINDOW of which are out, and check each that comes back; print the rate
 *   sockbench echo IF N SIZE BATCH    send N frames back as they come, in batches
 *   sockbench pong IF N SIZE 0        send N frames back as they come
 *   sockbench ping IF N SIZE 0        send one frame, wait for it, N times; print the round trip's percentiles, less what the clock takes
 *   sockbench rarely IF N SIZE 0      send N frames that bear the time, each when the receiver has long fallen asleep
 *   sockbench late IF N SIZE 0        receive them; print how old they were: the way there and the wake-up
 *   sockbench idle IF SECONDS 0 0     sleep in poll on every one of the interfaces IF,IF...; print the process's CPU time
 *
 * A frame is an Ethernet header (EtherType 0x88b5), a 64-bit sequence number, and 64-bit words made
 * from it. Results are one line of JSON on standard output.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ETHERTYPE 0x88b5
#define BATCH_MAX 256
#define FRAME_MAX 12240
#define PORTS_MAX 64
#define WINDOW 512              /* frames on their way, at most */
#define IDLE_AFTER 20           /* seconds without a frame end a measurement */
#define ASLEEP_AFTER_NS 2000000 /* a receiver without frames sleeps by then */

static uint8_t frames[BATCH_MAX][FRAME_MAX];
static struct iovec iovs[BATCH_MAX];
static struct mmsghdr msgs[BATCH_MAX];

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "sockbench: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* A packet socket bound to interface `name` for our EtherType. */
static int open_port(const char *name)
{
	struct sockaddr_ll ll = {.sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE)};
	int fd, wide = 64 << 20;

	ll.sll_ifindex = (int)if_nametoindex(name);
	if (!ll.sll_ifindex)
		die(name);
	fd = socket(AF_PACKET, SOCK_RAW, htons(ETHERTYPE));
	if (fd < 0)
		die("socket");
	/* The kernel drops when its queue is full: give it all it can have. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &wide, sizeof(wide)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &wide, sizeof(wide));
	if (bind(fd, (struct sockaddr *)&ll, sizeof(ll)))
		die("bind");
	return fd;
}

/* Word `i` behind the Ethernet header of frame `seq`; word 0 is the number itself. */
static uint64_t word(uint64_t seq, unsigned i)
{
	return seq + i * 0x9e3779b97f4a7c15ull;
}

/* Write frame `seq` of `size` bytes. */
static void build(uint8_t *f, uint64_t seq, unsigned size)
{
	unsigned words = (size - 14) / 8, rest = (size - 14) % 8;
	uint64_t w;

	memset(f, 0xff, 6);
	memset(f + 6, 0x02, 6);
	f[12] = ETHERTYPE >> 8;
	f[13] = ETHERTYPE & 0xff;
	f += 14;
	for (unsigned i = 0; i < words; i++) {
		w = word(seq, i);
		memcpy(f + 8 * i, &w, 8);
	}
	w = word(seq, words);
	memcpy(f + 8 * words, &w, rest);
}

/* Whether `f` is a frame of ours of `size` bytes; its number goes to *seq. */
static int check(const uint8_t *f, unsigned len, unsigned size, uint64_t *seq)
{
	unsigned words = (size - 14) / 8, rest = (size - 14) % 8;
	uint64_t bad = 0, w;

	if (len != size || f[12] != ETHERTYPE >> 8 || f[13] != (ETHERTYPE & 0xff))
		return 0;
	f += 14;
	memcpy(seq, f, 8);
	for (unsigned i = 0; i < words; i++) {
		memcpy(&w, f + 8 * i, 8);
		bad |= w ^ word(*seq, i);
	}
	w = word(*seq, words);
	return !bad && !memcmp(f + 8 * words, &w, rest);
}

static bool single; /* sendmsg and recvmsg */

static void prepare(unsigned batch, unsigned size)
{
	for (unsigned i = 0; i < batch; i++) {
		iovs[i] = (struct iovec){frames[i], size};
		msgs[i].msg_hdr = (struct msghdr){.msg_iov = &iovs[i], .msg_iovlen = 1};
	}
}

/* Send `n` prepared frames, waiting out a full or absent peer. */
static void send_all(int fd, unsigned n)
{
	uint64_t give_up = now_ns() + IDLE_AFTER * 1000000000ull;
	unsigned done = 0;

	while (done < n) {
		int ret = single ? (int)sendmsg(fd, &msgs[0].msg_hdr, 0)
				 : sendmmsg(fd, msgs + done, n - done, 0);

		if (ret > 0) {
			done += single ? 1 : (unsigned)ret;
			continue;
		}
		if (errno != EAGAIN && errno != ENOBUFS && errno != ENETDOWN && errno != EINTR)
			die("send");
		if (now_ns() > give_up)
			die("the peer takes nothing");
		if (errno == ENETDOWN)
			usleep(1000);
	}
}

static int run_tx(int fd, uint64_t n, unsigned size, unsigned batch)
{
	uint64_t start = 0;

	prepare(batch, size);
	for (uint64_t seq = 0; seq < n;) {
		unsigned k = n - seq < batch ? (unsigned)(n - seq) : batch;

		for (unsigned i = 0; i < k; i++)
			build(frames[i], seq + i, size);
		send_all(fd, k);
		if (!seq)
			start = now_ns();
		seq += k;
	}
	printf("{\"mode\":\"tx\",\"frames\":%llu,\"mpps\":%.4f}\n", (unsigned long long)n,
	       (double)n * 1e3 / (double)(now_ns() - start));
	return 0;
}

static int run_rx(int fd, uint64_t n, unsigned size, unsigned batch)
{
	uint64_t got = 0, bad = 0, seq, last = UINT64_MAX, start = 0, end = 0, disorder = 0;
	struct timeval tv = {IDLE_AFTER, 0};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	prepare(batch, FRAME_MAX);
	while (last == UINT64_MAX || last + 1 < n) {
		int k = single ? (int)recvmsg(fd, &msgs[0].msg_hdr, 0)
			       : recvmmsg(fd, msgs, batch, MSG_WAITFORONE, NULL);

		if (k <= 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		if (single) {
			msgs[0].msg_len = (unsigned)k;
			k = 1;
		}
		end = now_ns();
		if (!got)
			start = end;
		for (int i = 0; i < k; i++) {
			if (!check(frames[i], msgs[i].msg_len, size, &seq)) {
				bad++;
				continue;
			}
			disorder += last != UINT64_MAX && seq <= last;
			last = seq;
		}
		got += (unsigned)k;
	}
	printf("{\"mode\":\"rx\",\"frames\":%llu,\"sent\":%llu,\"bad\":%llu,\"disorder\":%llu,"
	       "\"mpps\":%.4f}\n",
	       (unsigned long long)got, (unsigned long long)n, (unsigned long long)bad,
	       (unsigned long long)disorder,
	       got > 1 ? (double)got * 1e3 / (double)(end - start) : 0.0);
	return bad || disorder;
}

/*
 * Receive up to `n` frames into the first messages. Returns how many, 0 on a timeout.
 */
static unsigned receive_some(int fd, unsigned n)
{
	for (;;) {
		int k;

		if (single) {
			ssize_t len = recvmsg(fd, &msgs[0].msg_hdr, 0);

			msgs[0].msg_len = (unsigned)len;
			k = len < 0 ? -1 : 1;
		} else {
			k = recvmmsg(fd, msgs, n, MSG_WAITFORONE, NULL);
		}
		if (k > 0)
			return (unsigned)k;
		if (errno != EINTR)
			return 0;
	}
}

static int run_echo(int fd, uint64_t n, unsigned batch)
{
	struct timeval tv = {IDLE_AFTER, 0};
	uint64_t done = 0;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	while (done < n) {
		unsigned k;

		prepare(batch, FRAME_MAX);
		k = receive_some(fd, batch);
		if (!k)
			break;
		for (unsigned i = 0; i < k; i++)
			iovs[i].iov_len = msgs[i].msg_len;
		send_all(fd, k);
		done += k;
	}
	return done != n;
}

static int run_talk(int fd, uint64_t n, unsigned size, unsigned batch)
{
	uint64_t sent = 0, got = 0, bad = 0, seq, start = now_ns();
	struct timeval tv = {2, 0};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	while (got < n) {
		unsigned k;

		while (sent < n && sent - got + batch <= WINDOW) {
			prepare(batch, size);
			for (unsigned i = 0; i < batch; i++)
				build(frames[i], sent + i, size);
			send_all(fd, batch);
			sent += batch;
		}
		prepare(batch, FRAME_MAX);
		k = receive_some(fd, batch);
		if (!k)
			break;
		for (unsigned i = 0; i < k; i++)
			bad += !check(frames[i], msgs[i].msg_len, size, &seq) || seq != got + i;
		got += k;
	}
	printf("{\"mode\":\"talk\",\"frames\":%llu,\"bad\":%llu,\"disorder\":0,\"mpps\":%.4f}\n",
	       (unsigned long long)got, (unsigned long long)bad,
	       (double)got * 1e3 / (double)(now_ns() - start));
	return bad || got < n;
}

static int run_pong(int fd, uint64_t n)
{
	struct timeval tv = {IDLE_AFTER, 0};
	uint64_t done = 0;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	while (done < n) {
		ssize_t len = recv(fd, frames[0], FRAME_MAX, 0);

		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			break;
		while (send(fd, frames[0], (size_t)len, 0) < 0)
			if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR)
				die("send");
		done++;
	}
	return done != n;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/*
 * What reading the clock takes, which is in the middle of all that is timed by itself: the middle
 * of many. In ns.
 */
static uint32_t clock_cost(void)
{
	static uint32_t cost[1001];

	for (unsigned i = 0; i < 1001; i++) {
		uint64_t start = now_ns();

		cost[i] = (uint32_t)(now_ns() - start);
	}
	qsort(cost, 1001, sizeof(*cost), by_value);
	return cost[500];
}

static int run_ping(int fd, uint64_t n, unsigned size)
{
	uint32_t *rtt = calloc(n, sizeof(*rtt)), clock = clock_cost();
	struct timeval tv = {2, 0};
	uint64_t seq, done = 0, lost = 0;

	if (!rtt)
		die("memory");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	prepare(1, size);
	while (done < n && lost < 100) {
		uint64_t start;

		build(frames[0], done, size);
		start = now_ns();
		send_all(fd, 1);
		do {
			ssize_t len = recv(fd, frames[1], FRAME_MAX, 0);

			if (len < 0 && errno == EINTR)
				continue;
			if (len < 0 || !check(frames[1], (unsigned)len, size, &seq)) {
				lost++;
				seq = done + 1;
				break;
			}
		} while (seq != done);
		if (seq == done) {
			uint32_t took = (uint32_t)(now_ns() - start);

			rtt[done++] = took > clock ? took - clock : 0;
		}
	}
	qsort(rtt, done, sizeof(*rtt), by_value);
	if (done)
		printf("{\"mode\":\"ping\",\"frames\":%llu,\"lost\":%llu,\"p50_us\":%.3f,\"p99_"
		       "us\":%.3f,\"p999_us\":%.3f}\n",
		       (unsigned long long)done, (unsigned long long)lost, rtt[done / 2] / 1e3,
		       rtt[done * 99 / 100] / 1e3, rtt[done * 999 / 1000] / 1e3);
	return done != n;
}

/* The number of such a frame is the time at which it was sent. */
static int run_rarely(int fd, uint64_t n, unsigned size)
{
	prepare(1, size);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t until = now_ns() + ASLEEP_AFTER_NS;

		while (now_ns() < until)
			;
		build(frames[0], now_ns(), size);
		send_all(fd, 1);
	}
	return 0;
}

static int run_late(int fd, uint64_t n, unsigned size)
{
	uint32_t *age = calloc(n, sizeof(*age));
	struct timeval tv = {IDLE_AFTER, 0};
	uint64_t sent, done = 0;

	if (!age)
		die("memory");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	while (done < n) {
		ssize_t len = recv(fd, frames[0], FRAME_MAX, 0);

		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			break;
		if (check(frames[0], (unsigned)len, size, &sent))
			age[done++] = (uint32_t)(now_ns() - sent);
	}
	qsort(age, done, sizeof(*age), by_value);
	if (done)
		printf("{\"mode\":\"late\",\"frames\":%llu,\"p50_us\":%.3f,\"p99_us\":%.3f}\n",
		       (unsigned long long)done, age[done / 2] / 1e3, age[done * 99 / 100] / 1e3);
	return done != n;
}

/* Sleep in poll on a socket for each of the interfaces in `names`. */
static int run_idle(char *names, uint64_t seconds)
{
	struct pollfd p[PORTS_MAX];
	unsigned count = 0;
	struct rusage a, b;
	uint64_t start;
	double cpu;

	for (char *rest, *name = strtok_r(names, ",", &rest); name && count < PORTS_MAX;
	     name = strtok_r(NULL, ",", &rest))
		p[count++] = (struct pollfd){.fd = open_port(name), .events = POLLIN};
	fprintf(stderr, "ready\n");
	start = now_ns();
	getrusage(RUSAGE_SELF, &a);
	poll(p, count, (int)seconds * 1000);
	getrusage(RUSAGE_SELF, &b);
	cpu = (double)(b.ru_utime.tv_sec - a.ru_utime.tv_sec + b.ru_stime.tv_sec -
		       a.ru_stime.tv_sec) +
	      (double)(b.ru_utime.tv_usec - a.ru_utime.tv_usec + b.ru_stime.tv_usec -
		       a.ru_stime.tv_usec) /
		      1e6;
	printf("{\"mode\":\"idle\",\"ports\":%u,\"seconds\":%.1f,\"cpu_percent\":%.4f}\n", count,
	       (double)(now_ns() - start) / 1e9, cpu * 1e11 / (double)(now_ns() - start));
	return 0;
}

int main(int argc, char **argv)
{
	unsigned size, batch;
	uint64_t n;
	int fd;

	if (argc != 6) {
		fprintf(stderr, "usage: sockbench tx|rx|talk|echo|ping|pong|rarely|late|idle IF N "
				"SIZE BATCH\n");
		return 2;
	}
	n = strtoull(argv[3], NULL, 0);
	size = (unsigned)strtoul(argv[4], NULL, 0);
	batch = (unsigned)strtoul(argv[5], NULL, 0);
	if (size > FRAME_MAX || batch > BATCH_MAX) {
		fprintf(stderr, "sockbench: SIZE is at most %d, BATCH at most %d\n", FRAME_MAX,
			BATCH_MAX);
		return 2;
	}
	single = !batch;
	batch += single;
	if (!strcmp(argv[1], "idle"))
		return run_idle(argv[2], n);
	fd = open_port(argv[2]);
	fprintf(stderr, "ready\n");
	if (!strcmp(argv[1], "tx"))
		return run_tx(fd, n, size, batch);
	if (!strcmp(argv[1], "rx"))
		return run_rx(fd, n, size, batch);
	if (!strcmp(argv[1], "talk"))
		return run_talk(fd, n - n % batch, size, batch);
	if (!strcmp(argv[1], "echo"))
		return run_echo(fd, n - n % batch, batch);
	if (!strcmp(argv[1], "pong"))
		return run_pong(fd, n);
	if (!strcmp(argv[1], "ping"))
		return run_ping(fd, n, size);
	if (!strcmp(argv[1], "rarely"))
		return run_rarely(fd, n, size);
	if (!strcmp(argv[1], "late"))
		return run_late(fd, n, size);
	fprintf(stderr, "sockbench: no mode %s\n", argv[1]);
	return 2;
}
