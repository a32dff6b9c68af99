/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * loopback: sends every frame of a port back to where it came from.
 *
 *     LD_PRELOAD=libpalladium.so PALLADIUM_PORTS=pd0=vhost-user:/run/vlm0.sock ./loopback pd0
 *
 * A frame goes back as it is, from the memory it was received into. Its sidecar goes back as
 * zeroes, or with --keep as it came. Control messages, and frames whose generic_flags are not 0,
 * are counted and not sent back. What cannot be sent now is tried until it can.
 */
#include "example.h"

struct loopback {
	int fd;
	const char *port;
	bool keep, verbose, one_by_one;
	unsigned batch;
	uint64_t count;        /* stop after so many; 0: never */
	uint64_t idle_exit_ns; /* stop after so long without a frame; 0: never */
	uint64_t echoed, bytes, control, not_echoed, retries;
	/* Message i is received into, and sent from, buffer i. */
	struct mmsghdr rx[EX_BATCH_MAX], tx[EX_BATCH_MAX];
	struct iovec part[EX_BATCH_MAX];
	struct sockaddr_ll from[EX_BATCH_MAX];
	union palladium_cmsg_buffer sidecar[EX_BATCH_MAX];
};

static uint8_t frames[EX_BATCH_MAX][EX_FRAME_BYTES];

/* Make message `i` ready to receive: recvmsg overwrites the sizes. */
static void prepare(struct loopback *l, unsigned i)
{
	struct msghdr *msg = &l->rx[i].msg_hdr;

	l->part[i].iov_base = frames[i];
	l->part[i].iov_len = EX_FRAME_BYTES;
	msg->msg_iov = &l->part[i];
	msg->msg_iovlen = 1;
	msg->msg_name = &l->from[i];
	msg->msg_namelen = sizeof(l->from[i]);
	msg->msg_control = &l->sidecar[i];
	msg->msg_controllen = sizeof(l->sidecar[i]);
}

/* Receive one frame or more. Returns how many, or -1 with errno. */
static int receive(struct loopback *l)
{
	ssize_t len;

	if (!l->one_by_one)
		return recvmmsg(l->fd, l->rx, l->batch, MSG_WAITFORONE, NULL);
	len = recvmsg(l->fd, &l->rx[0].msg_hdr, 0);
	l->rx[0].msg_len = (unsigned)len;
	return len < 0 ? -1 : 1;
}

/* Send `n` messages, however often that has to be tried. */
static void send_all(struct loopback *l, unsigned n)
{
	unsigned done = 0;

	while (done < n && !ex_stopped) {
		int sent;

		if (l->one_by_one)
			sent = sendmsg(l->fd, &l->tx[done].msg_hdr, 0) < 0 ? -1 : 1;
		else
			sent = sendmmsg(l->fd, l->tx + done, n - done, 0);
		if (sent > 0) {
			for (int i = 0; i < sent; i++)
				l->bytes += l->tx[done++].msg_hdr.msg_iov->iov_len;
			l->echoed += (unsigned)sent;
		} else if (ex_wait_to_send(l->fd, l->port)) {
			l->retries++;
		} else { /* too long for the port */
			l->not_echoed++;
			done++;
		}
	}
}

/* Tell of a control message. */
static void show_control(const struct loopback *l, const struct avip_mdata_t *md)
{
	printf("%s: control message, metadata_type 0x%llx", l->port,
	       (unsigned long long)md->pd_control.metadata_type);
	if (md->pd_control.metadata_type & PALLADIUM_PORT_ID)
		printf(", PORT_ID chassis 0x%08x card %u port %u",
		       md->pd_control.port_id.chassis_ip, md->pd_control.port_id.card_number,
		       md->pd_control.port_id.port_number);
	if (md->pd_control.metadata_type & PALLADIUM_LINE_SPEED)
		printf(", LINE_SPEED %u", md->pd_control.line_speed);
	if (md->pd_control.metadata_type & PALLADIUM_PORT_NAME)
		printf(", PORT_NAME %.16s", md->pd_control.port_name);
	printf(", queues %u\n", md->pd_control.ixia_queues);
}

/* Make message `i`, just received, the next to send, if it is one. Returns whether it is. */
static bool turn_round(struct loopback *l, unsigned i, unsigned n_tx)
{
	struct msghdr *in = &l->rx[i].msg_hdr, *out = &l->tx[n_tx].msg_hdr;
	const struct avip_mdata_t *md = palladium_cmsg_get(in);

	if (md && md->generic_flags) {
		if (md->generic_flags & IXVERIFY_ONLY_CTRL_PKT) {
			l->control++;
			if (l->verbose)
				show_control(l, md);
		} else {
			l->not_echoed++;
		}
		return false;
	}
	if (l->from[i].sll_pkttype == PACKET_OUTGOING || (in->msg_flags & MSG_TRUNC) ||
	    !l->rx[i].msg_len) {
		l->not_echoed++;
		return false;
	}
	memset(out, 0, sizeof(*out));
	l->part[i].iov_len = l->rx[i].msg_len;
	out->msg_iov = &l->part[i];
	out->msg_iovlen = 1;
	if (l->keep && md) { /* the ancillary data that came goes back as it is */
		out->msg_control = in->msg_control;
		out->msg_controllen = in->msg_controllen;
	}
	return true;
}

/* Send back what comes in until it is time to stop. */
static void run(struct loopback *l)
{
	uint64_t last_ns = ex_now_ns();

	for (unsigned i = 0; i < l->batch; i++)
		prepare(l, i);
	while (!ex_stopped && (!l->count || l->echoed < l->count)) {
		int got = receive(l);
		unsigned n = 0;

		if (got < 0) {
			if (errno != EAGAIN && errno != EINTR && errno != ENETDOWN)
				ex_fail("receive");
			if (errno == ENETDOWN)
				poll(NULL, 0, 10);
			if (l->idle_exit_ns && ex_now_ns() - last_ns >= l->idle_exit_ns)
				break;
			continue;
		}
		if (l->idle_exit_ns)
			last_ns = ex_now_ns();
		for (int i = 0; i < got; i++)
			n += turn_round(l, (unsigned)i, n);
		send_all(l, n);
		for (int i = 0; i < got; i++)
			prepare(l, (unsigned)i);
	}
}

static const char help[] =
	"Usage: loopback [OPTION]... PORT\n"
	"Send every frame of PORT back to where it came from, with a sidecar of zeroes.\n"
	"\n"
	"  -k, --keep               send the sidecar back as it came\n"
	"  -b, --batch=N            frames per call, 1 to 256 (32)\n"
	"  -1, --one-by-one         recvmsg and sendmsg in place of recvmmsg and sendmmsg\n"
	"  -c, --count=N            end after N frames\n"
	"  -i, --idle-exit=SECONDS  end after so long without a frame\n"
	"  -v, --verbose            print control messages\n" EX_OPTIONS_HELP;

static void read_options(struct loopback *l, int argc, char **argv)
{
	static const struct option options[] = {
		{"keep", no_argument, NULL, 'k'},
		{"batch", required_argument, NULL, 'b'},
		{"one-by-one", no_argument, NULL, '1'},
		{"count", required_argument, NULL, 'c'},
		{"idle-exit", required_argument, NULL, 'i'},
		{"verbose", no_argument, NULL, 'v'},
		EX_OPTIONS,
	};
	int c;

	while ((c = getopt_long(argc, argv, "kb:1c:i:v" EX_OPTIONS_SHORT, options, NULL)) != -1) {
		switch (c) {
		case 'k':
			l->keep = true;
			break;
		case 'b':
			l->batch = (unsigned)ex_number("--batch", optarg, 1, EX_BATCH_MAX);
			break;
		case '1':
			l->one_by_one = true;
			break;
		case 'c':
			l->count = ex_number("--count", optarg, 1, UINT64_MAX);
			break;
		case 'i':
			l->idle_exit_ns =
				ex_number("--idle-exit", optarg, 1, 1000000) * 1000000000u;
			break;
		case 'v':
			l->verbose = true;
			break;
		default:
			ex_other_option(c);
		}
	}
	l->port = *ex_words(argc, argv, 1, "one port");
}

int main(int argc, char **argv)
{
	static struct loopback l = {.batch = 32};

	ex_start("loopback", help);
	read_options(&l, argc, argv);
	l.fd = ex_open_port(l.port);
	if (!ex_want_sidecars(l.fd))
		fprintf(stderr, "loopback: %s is an interface of the kernel: no sidecars\n",
			l.port);
	ex_ready(l.port);
	run(&l);
	printf("loopback: %s: %llu frames echoed, %llu bytes; %llu control messages; %llu frames "
	       "not "
	       "echoed; %llu retries\n",
	       l.port, (unsigned long long)l.echoed, (unsigned long long)l.bytes,
	       (unsigned long long)l.control, (unsigned long long)l.not_echoed,
	       (unsigned long long)l.retries);
	close(l.fd);
	return 0;
}
