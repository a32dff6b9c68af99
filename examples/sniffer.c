/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sniffer: prints what comes in on a port, frame by frame: its sidecar in words, and its bytes when
 * asked.
 *
 *     LD_PRELOAD=libpalladium.so PALLADIUM_PORTS=pd0=vhost-user:/run/vlm0.sock ./sniffer pd0
 *
 * The words come from palladium_decode(), which the preload brings along: the program is not linked
 * with the library, so the function may be missing (then the sidecar is shown in hex).
 */
#define PALLADIUM_WEAK
#include "example.h"

struct sniffer {
	int fd;
	const char *port;
	bool json, hex;
	uint64_t count; /* stop after so many; 0: never */
};

/* Print `len` bytes as one string of hex digits. */
static void print_hex(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		printf("%02x", bytes[i]);
}

/* Print `len` bytes in rows of 16 with their offsets. */
static void print_rows(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (i % 16 == 0)
			printf("%04zx ", i);
		printf(" %02x", bytes[i]);
		if (i % 16 == 15 || i == len - 1)
			putchar('\n');
	}
}

/* Print a sidecar: in words where the library is there, else in hex. */
static void print_sidecar(const struct avip_mdata_t *md, bool json)
{
	char words[4096];

	if (palladium_decode && palladium_decode(md, sizeof(*md), words, sizeof(words),
						 json ? PALLADIUM_JSON : PALLADIUM_TEXT) > 0) {
		fputs(words, stdout);
		return;
	}
	if (json)
		putchar('"');
	print_hex((const uint8_t *)md, sizeof(*md));
	putchar(json ? '"' : '\n');
}

/* Print the frame of `len` bytes that `msg` holds. */
static void print_frame(const struct sniffer *s, uint64_t number, const struct msghdr *msg,
			size_t len)
{
	const struct avip_mdata_t *md = palladium_cmsg_get(msg);
	const uint8_t *bytes = msg->msg_iov->iov_base;
	bool control = md && (md->generic_flags & IXVERIFY_ONLY_CTRL_PKT);
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (s->json) {
		printf("{\"number\":%llu,\"time\":\"%lld.%09ld\",\"port\":\"%s\",\"control\":%s,"
		       "\"bytes\":%zu",
		       (unsigned long long)number, (long long)now.tv_sec, now.tv_nsec, s->port,
		       control ? "true" : "false", len);
		if (md) {
			printf(",\"sidecar\":");
			print_sidecar(md, true);
		}
		if (s->hex && len) {
			printf(",\"data\":\"");
			print_hex(bytes, len);
			putchar('"');
		}
		puts("}");
		return;
	}
	printf("--- %llu  %lld.%09ld  %s  %s%zu bytes\n", (unsigned long long)number,
	       (long long)now.tv_sec, now.tv_nsec, s->port, control ? "control message, " : "",
	       len);
	if (md)
		print_sidecar(md, false);
	if (s->hex && len)
		print_rows(bytes, len);
}

/* Print frames until it is time to stop. Returns how many. */
static uint64_t run(const struct sniffer *s)
{
	static uint8_t frame[EX_FRAME_BYTES];
	union palladium_cmsg_buffer control;
	uint64_t number = 0;

	while (!ex_stopped && (!s->count || number < s->count)) {
		struct iovec part = {.iov_base = frame, .iov_len = sizeof(frame)};
		struct msghdr msg = {
			.msg_iov = &part,
			.msg_iovlen = 1,
			.msg_control = &control,
			.msg_controllen = sizeof(control),
		};
		ssize_t len = recvmsg(s->fd, &msg, 0);

		if (len >= 0)
			print_frame(s, ++number, &msg, (size_t)len);
		else if (errno == ENETDOWN) /* the peer is away: it may come back */
			poll(NULL, 0, 10);
		else if (errno != EAGAIN && errno != EINTR)
			ex_fail("recvmsg");
		if (ferror(stdout))
			ex_fail("standard output");
	}
	return number;
}

static const char help[] =
	"Usage: sniffer [OPTION]... PORT\n"
	"Print the frames and control messages that come in on PORT.\n"
	"\n"
	"  -c, --count=N            end after N of them\n"
	"  -j, --json               one JSON object on one line for each\n"
	"  -x, --hex                print the bytes of frames too\n" EX_OPTIONS_HELP
	"What is printed is consumed: nobody else gets it.\n";

static void read_options(struct sniffer *s, int argc, char **argv)
{
	static const struct option options[] = {
		{"count", required_argument, NULL, 'c'},
		{"json", no_argument, NULL, 'j'},
		{"hex", no_argument, NULL, 'x'},
		EX_OPTIONS,
	};
	int c;

	while ((c = getopt_long(argc, argv, "c:jx" EX_OPTIONS_SHORT, options, NULL)) != -1) {
		switch (c) {
		case 'c':
			s->count = ex_number("--count", optarg, 1, UINT64_MAX);
			break;
		case 'j':
			s->json = true;
			break;
		case 'x':
			s->hex = true;
			break;
		default:
			ex_other_option(c);
		}
	}
	s->port = *ex_words(argc, argv, 1, "one port");
}

int main(int argc, char **argv)
{
	struct sniffer s = {0};
	uint64_t printed;

	ex_start("sniffer", help);
	read_options(&s, argc, argv);
	s.fd = ex_open_port(s.port);
	if (!ex_want_sidecars(s.fd))
		fprintf(stderr, "sniffer: %s is an interface of the kernel: no sidecars\n", s.port);
	printed = run(&s);
	fprintf(stderr, "sniffer: %s: %llu printed\n", s.port, (unsigned long long)printed);
	close(s.fd);
	return 0;
}
