/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * generator: sends frames with a sidecar out of a port, and checks what comes back when asked.
 *
 *     LD_PRELOAD=libpalladium.so PALLADIUM_PORTS=pd0=vhost-user:/run/vlm0.sock ./generator pd0
 *
 * A frame: addresses, ethertype 0x88b5 (IEEE: for local experiments), its number in 8 bytes, then
 * bytes that follow from the number and their place. With --check the peer is expected to send each
 * frame back, once and in order; then no more than --window of them are under way at any time.
 */
#include "example.h"

#define HEADER_BYTES 14 /* Ethernet */
#define NUMBER_BYTES 8  /* big-endian, behind it */
#define ETHERTYPE 0x88b5

struct generator {
	int fd;
	const char *port;
	bool check;
	unsigned size, batch, window;
	uint64_t count, rate; /* frames; frames per second, 0: as fast as it goes */
	uint64_t timeout_ns;  /* --check: how long to wait for the next frame */
	struct avip_mdata_t sidecar;
	uint8_t header[HEADER_BYTES];
	uint64_t sent, returned, lost, altered, others, control, retries;
};

static uint8_t frames[EX_BATCH_MAX][EX_FRAME_BYTES];

/* Write frame `number` to `frame`. */
static void make_frame(const struct generator *g, uint64_t number, uint8_t *frame)
{
	uint8_t *p = frame + HEADER_BYTES;

	memcpy(frame, g->header, HEADER_BYTES);
	for (int i = 0; i < NUMBER_BYTES; i++)
		*p++ = (uint8_t)(number >> (56 - 8 * i));
	for (unsigned i = 0; p + i < frame + g->size; i++)
		p[i] = (uint8_t)(number * 7 + i);
}

/* Send frames `g->sent` and on, `n` of them. Returns how many went out. */
static unsigned send_some(struct generator *g, unsigned n)
{
	static union palladium_cmsg_buffer control[EX_BATCH_MAX];
	static struct mmsghdr messages[EX_BATCH_MAX];
	static struct iovec parts[EX_BATCH_MAX];
	int sent;

	for (unsigned i = 0; i < n; i++) {
		struct msghdr *msg = &messages[i].msg_hdr;

		make_frame(g, g->sent + i, frames[i]);
		parts[i] = (struct iovec){.iov_base = frames[i], .iov_len = g->size};
		memset(msg, 0, sizeof(*msg));
		msg->msg_iov = &parts[i];
		msg->msg_iovlen = 1;
		palladium_cmsg_put(msg, &control[i], &g->sidecar);
	}
	/* With --check do not wait in here: what comes back must be read meanwhile. */
	sent = sendmmsg(g->fd, messages, n, g->check ? MSG_DONTWAIT : 0);
	if (sent >= 0)
		return (unsigned)sent;
	g->retries++;
	if (!(g->check && errno == EAGAIN) && !ex_wait_to_send(g->fd, g->port))
		exit(1); /* all frames are of one length */
	return 0;
}

/* Look at a frame that came back. */
static void check_frame(struct generator *g, const uint8_t *frame, size_t len)
{
	static uint8_t expected[EX_FRAME_BYTES];
	uint64_t number = 0;

	if (len < HEADER_BYTES + NUMBER_BYTES || frame[12] != ETHERTYPE >> 8 ||
	    frame[13] != (ETHERTYPE & 0xff)) {
		g->others++;
		return;
	}
	for (int i = 0; i < NUMBER_BYTES; i++)
		number = number << 8 | frame[HEADER_BYTES + i];
	if (number >= g->sent || number < g->returned + g->lost) {
		g->altered++; /* never sent, or here before, or too late */
		return;
	}
	make_frame(g, number, expected);
	if (len != g->size || memcmp(frame, expected, len))
		g->altered++;
	g->lost += number - g->returned - g->lost;
	g->returned++;
}

/* Take in what is there; wait up to `wait_ms` for it. Returns whether anything came. */
static bool receive_some(struct generator *g, int wait_ms)
{
	static uint8_t frame[EX_FRAME_BYTES];
	struct pollfd p = {.fd = g->fd, .events = POLLIN};
	bool any = false;
	ssize_t len;

	if (wait_ms && poll(&p, 1, wait_ms) <= 0)
		return false;
	while ((len = recv(g->fd, frame, sizeof(frame), MSG_DONTWAIT)) >= 0) {
		if (len)
			check_frame(g, frame, (size_t)len);
		else
			g->control++;
		any = true;
	}
	if (errno == ENETDOWN)
		poll(NULL, 0, 10);
	else if (errno != EAGAIN && errno != EINTR)
		ex_fail("recv");
	return any;
}

/* How many frames may go out now, by the rate, the window, the count and the batch. */
static unsigned allowance(const struct generator *g, uint64_t start_ns)
{
	uint64_t n = g->count - g->sent;

	if (g->rate) {
		double due = (double)(ex_now_ns() - start_ns) * (double)g->rate / 1e9 + 1;

		n = due <= (double)g->sent        ? 0
		    : n < (uint64_t)due - g->sent ? n
						  : (uint64_t)due - g->sent;
	}
	if (g->check) {
		uint64_t room = g->window - (g->sent - g->returned - g->lost);

		n = n < room ? n : room;
	}
	return n < g->batch ? (unsigned)n : g->batch;
}

/* Send everything, and with --check take everything back. */
static void run(struct generator *g)
{
	uint64_t start_ns = ex_now_ns(), news_ns = start_ns;

	while (!ex_stopped) {
		unsigned n = g->sent < g->count ? allowance(g, start_ns) : 0, out;
		bool in;

		out = n ? send_some(g, n) : 0;
		g->sent += out;
		if (!g->check) {
			if (g->sent == g->count)
				break;
			if (!n)
				poll(NULL, 0, 1);
			continue;
		}
		in = receive_some(g, out ? 0 : 1);
		if (g->returned + g->lost == g->count)
			break;
		if (in || out)
			news_ns = ex_now_ns();
		else if (g->sent > g->returned + g->lost && ex_now_ns() - news_ns > g->timeout_ns)
			break; /* the rest does not come any more */
	}
	if (g->check)
		g->lost = g->sent - g->returned;
}

static const char help[] =
	"Usage: generator [OPTION]... PORT\n"
	"Send frames with a sidecar out of PORT.\n"
	"\n"
	"  -c, --count=N            frames to send (1000)\n"
	"  -s, --size=BYTES         bytes of a frame, 60 to 12240 (60)\n"
	"  -r, --rate=N             frames per second (as fast as it goes)\n"
	"  -b, --batch=N            frames per call, 1 to 256 (32)\n"
	"      --ifg=OCTETS         inter-frame gap, in the sidecar\n"
	"      --pfc=PRIORITY       PFC priority 0 to 7, in the sidecar\n"
	"      --preamble=BYTES     length of the preamble, 1 to 8, in the sidecar\n"
	"      --check              expect every frame back, unaltered and in order\n"
	"      --window=N           --check: frames under way at most, 1 to 65536 (64)\n"
	"      --timeout=SECONDS    --check: how long to wait for the next frame "
	"(5)\n" EX_OPTIONS_HELP
	"Exit status: 0, 1 when --check found a frame lost or altered, 2 for wrong "
	"usage.\n";

enum { OPT_IFG = 256, OPT_PFC, OPT_PREAMBLE, OPT_CHECK, OPT_WINDOW, OPT_TIMEOUT };

/* Put what an option says into the sidecar. */
static void read_sidecar_option(struct palladium_packet_metadata *pd, int option, const char *text)
{
	switch (option) {
	case OPT_IFG:
		pd->ifg = ex_number("--ifg", text, 0, UINT64_MAX);
		pd->metadata_type |= PALLADIUM_IFG;
		break;
	case OPT_PFC:
		pd->pfc_priority = (uint8_t)ex_number("--pfc", text, 0, MAX_PFC_QUEUES - 1);
		break;
	default:
		pd->preamble_size = (uint8_t)ex_number("--preamble", text, 1, 8);
		memset(pd->preamble, 0, sizeof(pd->preamble));
		memset(pd->preamble, 0x55, pd->preamble_size);
		pd->preamble[pd->preamble_size - 1] = 0xd5;
		pd->metadata_type |= PALLADIUM_PREAMBLE;
		break;
	}
}

static void read_options(struct generator *g, int argc, char **argv)
{
	static const struct option options[] = {
		{"count", required_argument, NULL, 'c'},
		{"size", required_argument, NULL, 's'},
		{"rate", required_argument, NULL, 'r'},
		{"batch", required_argument, NULL, 'b'},
		{"ifg", required_argument, NULL, OPT_IFG},
		{"pfc", required_argument, NULL, OPT_PFC},
		{"preamble", required_argument, NULL, OPT_PREAMBLE},
		{"check", no_argument, NULL, OPT_CHECK},
		{"window", required_argument, NULL, OPT_WINDOW},
		{"timeout", required_argument, NULL, OPT_TIMEOUT},
		EX_OPTIONS,
	};
	int c;

	while ((c = getopt_long(argc, argv, "c:s:r:b:" EX_OPTIONS_SHORT, options, NULL)) != -1) {
		switch (c) {
		case 'c':
			g->count = ex_number("--count", optarg, 1, UINT64_MAX);
			break;
		case 's':
			g->size = (unsigned)ex_number("--size", optarg, 60, 12240);
			break;
		case 'r':
			g->rate = ex_number("--rate", optarg, 1, 1000000000);
			break;
		case 'b':
			g->batch = (unsigned)ex_number("--batch", optarg, 1, EX_BATCH_MAX);
			break;
		case OPT_IFG:
		case OPT_PFC:
		case OPT_PREAMBLE:
			read_sidecar_option(&g->sidecar.pd, c, optarg);
			break;
		case OPT_CHECK:
			g->check = true;
			break;
		case OPT_WINDOW:
			g->window = (unsigned)ex_number("--window", optarg, 1, 65536);
			break;
		case OPT_TIMEOUT:
			g->timeout_ns = ex_number("--timeout", optarg, 1, 1000000) * 1000000000u;
			break;
		default:
			ex_other_option(c);
		}
	}
	g->port = *ex_words(argc, argv, 1, "one port");
}

int main(int argc, char **argv)
{
	static struct generator g = {
		.size = 60,
		.batch = 32,
		.window = 64,
		.count = 1000,
		.timeout_ns = 5000000000u,
		/* To everybody; ex_read_address writes the sender. */
		.header = {0xff, 0xff, 0xff, 0xff, 0xff,
			   0xff, [12] = ETHERTYPE >> 8, [13] = ETHERTYPE & 0xff},
	};
	uint64_t start_ns, ns;

	ex_start("generator", help);
	read_options(&g, argc, argv);
	g.fd = ex_open_port(g.port);
	ex_read_address(g.fd, g.port, g.header + 6);
	start_ns = ex_now_ns();
	run(&g);
	ns = ex_now_ns() - start_ns;
	printf("generator: %s: %llu frames of %u bytes sent in %.3f s, %.0f frames/s; %llu "
	       "retries\n",
	       g.port, (unsigned long long)g.sent, g.size, (double)ns / 1e9,
	       (double)g.sent * 1e9 / (double)(ns ? ns : 1), (unsigned long long)g.retries);
	if (g.check)
		printf("generator: %s: %llu returned, %llu lost, %llu altered or out of order; "
		       "%llu other frames, %llu control messages\n",
		       g.port, (unsigned long long)g.returned, (unsigned long long)g.lost,
		       (unsigned long long)g.altered, (unsigned long long)g.others,
		       (unsigned long long)g.control);
	close(g.fd);
	return g.sent < g.count || g.lost || g.altered;
}
