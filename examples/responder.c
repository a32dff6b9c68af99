/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * responder: answers ARP requests and ICMP echo for one IPv4 address, over a packet socket.
 *
 * A plain Linux program: it knows nothing of libpalladium, and runs the same way on a kernel
 * interface and, under the preload, on a port.
 *
 *     responder PORT ADDRESS
 */
#include <netinet/if_ether.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>

#include "example.h"

struct responder {
	int fd;
	const char *port;
	uint8_t mac[ETH_ALEN];
	struct in_addr address;
	unsigned long long answers, not_answered;
};

/* The Internet checksum of RFC 1071, in network byte order. */
static uint16_t checksum(const uint8_t *data, size_t length)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < length; i++)
		sum += i & 1 ? data[i] : (uint32_t)data[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons(~sum & 0xffff);
}

/*
 * Turn an ARP request for our address into its reply (RFC 826). Returns the reply's length, 0 when
 * there is nothing to answer.
 */
static size_t answer_arp(const struct responder *r, uint8_t *frame, size_t length)
{
	struct ether_arp arp;

	if (length < ETH_HLEN + sizeof(arp))
		return 0;
	memcpy(&arp, frame + ETH_HLEN, sizeof(arp));
	if (ntohs(arp.ea_hdr.ar_op) != ARPOP_REQUEST || ntohs(arp.ea_hdr.ar_pro) != ETHERTYPE_IP ||
	    memcmp(arp.arp_tpa, &r->address, sizeof(arp.arp_tpa)) != 0)
		return 0;
	arp.ea_hdr.ar_op = htons(ARPOP_REPLY);
	memcpy(arp.arp_tha, arp.arp_sha, sizeof(arp.arp_tha));
	memcpy(arp.arp_tpa, arp.arp_spa, sizeof(arp.arp_tpa));
	memcpy(arp.arp_sha, r->mac, sizeof(arp.arp_sha));
	memcpy(arp.arp_spa, &r->address, sizeof(arp.arp_spa));
	memcpy(frame + ETH_HLEN, &arp, sizeof(arp));
	return length;
}

/*
 * Turn an ICMP echo request to our address into its reply (RFC 792). Fragments are not answered.
 * Returns the reply's length, 0 when there is nothing to answer.
 */
static size_t answer_icmp(const struct responder *r, uint8_t *frame, size_t length)
{
	size_t ip_length, head;
	uint16_t sum = 0;
	struct iphdr ip;
	uint8_t *icmp;

	if (length < ETH_HLEN + sizeof(ip))
		return 0;
	memcpy(&ip, frame + ETH_HLEN, sizeof(ip));
	head = ip.ihl * 4u;
	ip_length = ntohs(ip.tot_len);
	if (ip.version != 4 || head < sizeof(ip) || ip_length < head + ICMP_MINLEN ||
	    ETH_HLEN + ip_length > length || ip.protocol != IPPROTO_ICMP ||
	    ip.daddr != r->address.s_addr || (ntohs(ip.frag_off) & (IP_MF | IP_OFFMASK)))
		return 0;
	icmp = frame + ETH_HLEN + head;
	if (icmp[0] != ICMP_ECHO || checksum(icmp, ip_length - head) != 0)
		return 0;
	icmp[0] = ICMP_ECHOREPLY;
	memset(icmp + 2, 0, sizeof(sum));
	sum = checksum(icmp, ip_length - head);
	memcpy(icmp + 2, &sum, sizeof(sum));
	/* Swapping the addresses leaves the IP checksum as it is. */
	ip.daddr = ip.saddr;
	ip.saddr = r->address.s_addr;
	memcpy(frame + ETH_HLEN, &ip, sizeof(ip));
	return length;
}

/*
 * Turn a frame into the answer to it. Returns the answer's length, 0 when there is nothing to
 * answer.
 */
static size_t answer(const struct responder *r, uint8_t *frame, size_t length)
{
	struct ether_header eth;

	if (length < sizeof(eth))
		return 0;
	memcpy(&eth, frame, sizeof(eth));
	switch (ntohs(eth.ether_type)) {
	case ETHERTYPE_ARP:
		length = answer_arp(r, frame, length);
		break;
	case ETHERTYPE_IP:
		length = answer_icmp(r, frame, length);
		break;
	default:
		return 0;
	}
	memcpy(frame, eth.ether_shost, ETH_ALEN);
	memcpy(frame + ETH_ALEN, r->mac, ETH_ALEN);
	return length;
}

/* Send the answer in `frame`, however often that has to be tried. */
static void send_answer(struct responder *r, const uint8_t *frame, size_t length)
{
	while (!ex_stopped) {
		if (send(r->fd, frame, length, 0) >= 0) {
			r->answers++;
			return;
		}
		if (!ex_wait_to_send(r->fd, r->port)) {
			r->not_answered++;
			return;
		}
	}
}

/* Answer what comes in until it is time to stop. */
static void run(struct responder *r)
{
	static uint8_t frame[EX_FRAME_BYTES];

	while (!ex_stopped) {
		struct sockaddr_ll from;
		socklen_t from_length = sizeof(from);
		ssize_t length;
		size_t reply;

		length = recvfrom(r->fd, frame, sizeof(frame), 0, (struct sockaddr *)&from,
				  &from_length);
		if (length < 0 && errno == ENETDOWN) /* the peer is away: it may come back */
			poll(NULL, 0, 10);
		else if (length < 0 && errno != EAGAIN && errno != EINTR)
			ex_fail("recvfrom");
		if (length <= 0 || from.sll_pkttype == PACKET_OUTGOING)
			continue;
		reply = answer(r, frame, (size_t)length);
		if (reply)
			send_answer(r, frame, reply);
	}
}

static const char help[] =
	"Usage: responder [OPTION]... PORT ADDRESS\n"
	"Answer ARP requests and ICMP echo for the IPv4 address ADDRESS on PORT.\n"
	"\n" EX_OPTIONS_HELP;

static void read_options(struct responder *r, int argc, char **argv)
{
	static const struct option options[] = {EX_OPTIONS};
	char **words;
	int c;

	while ((c = getopt_long(argc, argv, EX_OPTIONS_SHORT, options, NULL)) != -1)
		ex_other_option(c);
	words = ex_words(argc, argv, 2, "a port and an address");
	r->port = words[0];
	if (inet_pton(AF_INET, words[1], &r->address) == 1)
		return;
	fprintf(stderr, "%s: expected an IPv4 address, not \"%s\"\n", ex_program, words[1]);
	exit(2);
}

int main(int argc, char **argv)
{
	struct responder r = {0};

	ex_start("responder", help);
	read_options(&r, argc, argv);
	r.fd = ex_open_port(r.port);
	ex_read_address(r.fd, r.port, r.mac);
	ex_ready(r.port);
	run(&r);
	printf("responder: %s: %llu answers, %llu not sent\n", r.port, r.answers, r.not_answered);
	close(r.fd);
	return 0;
}
