/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * responder: answers ARP requests and ICMP echo for one IPv4 address, over a packet socket.
 *
 * A plain Linux program: it knows nothing of libpalladium, and runs the same way on a kernel
 * interface and, under the preload, on a port.
 *
 *     responder INTERFACE ADDRESS
 *
 * It prints "ready" once it is bound, and the number of answers when SIGINT or SIGTERM ends it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/if_ether.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netpacket/packet.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define FRAME_MAX 16384

struct responder {
	int fd;
	uint8_t mac[ETH_ALEN];
	struct in_addr address;
};

static volatile sig_atomic_t stopping;

/**
 * stop() - Signal handler: end the loop at its next turn
 * @number:	The signal, unused
 */
static void stop(int number)
{
	(void)number;
	stopping = 1;
}

/**
 * fail() - Say which call failed, and why
 * @what:	The call
 *
 * Return: 1, the exit status
 */
static int fail(const char *what)
{
	fprintf(stderr, "responder: %s: %s\n", what, strerror(errno));
	return 1;
}

/**
 * checksum() - The Internet checksum of RFC 1071, in network byte order
 * @data:	Bytes
 * @length:	How many
 */
static uint16_t checksum(const uint8_t *data, size_t length)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < length; i++)
		sum += i & 1 ? data[i] : (uint32_t)data[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons(~sum & 0xffff);
}

/**
 * answer_arp() - Turn an ARP request for our address into its reply (RFC 826)
 * @r:		The responder
 * @frame:	The frame, changed in place
 * @length:	Its bytes
 *
 * Return: the reply's length, 0 when there is nothing to answer
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

/**
 * answer_icmp() - Turn an ICMP echo request to our address into its reply (RFC 792)
 * @r:		The responder
 * @frame:	The frame, changed in place
 * @length:	Its bytes
 *
 * Fragments are not answered.
 *
 * Return: the reply's length, 0 when there is nothing to answer
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

/**
 * answer() - Turn a frame into the answer to it
 * @r:		The responder
 * @frame:	The frame, changed in place
 * @length:	Its bytes
 *
 * Return: the answer's length, 0 when there is nothing to answer
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

/**
 * responder_open() - Open a packet socket on one interface and learn its MAC address
 * @r:		The responder, whose fd and mac are set
 * @name:	The interface
 *
 * Return: 0, or 1 after saying what is wrong
 */
static int responder_open(struct responder *r, const char *name)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	/* So that a signal which comes just before the call does not wait for the next frame. */
	const struct timeval patience = {.tv_sec = 1};
	struct ifreq ifr = {0};

	if (strlen(name) >= sizeof(ifr.ifr_name)) {
		errno = ENAMETOOLONG;
		return fail(name);
	}
	r->fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	if (r->fd < 0)
		return fail("socket(AF_PACKET)");
	strcpy(ifr.ifr_name, name);
	if (ioctl(r->fd, SIOCGIFHWADDR, &ifr) < 0)
		return fail(name);
	memcpy(r->mac, ifr.ifr_hwaddr.sa_data, ETH_ALEN);
	to.sll_ifindex = (int)if_nametoindex(name);
	if (to.sll_ifindex == 0)
		return fail(name);
	if (bind(r->fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		return fail("bind");
	if (setsockopt(r->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0)
		return fail("SO_RCVTIMEO");
	return 0;
}

/**
 * transient() - Is this error of a packet socket one that passes?
 * @error:	errno of a send or receive
 */
static bool transient(int error)
{
	return error == EINTR || error == ENETDOWN || error == EAGAIN || error == ENOBUFS;
}

int main(int argc, char **argv)
{
	static const struct sigaction on_stop = {.sa_handler = stop};
	static uint8_t frame[FRAME_MAX];
	struct responder r = {.fd = -1};
	unsigned long answers = 0;

	if (argc != 3 || inet_pton(AF_INET, argv[2], &r.address) != 1) {
		fprintf(stderr, "usage: responder INTERFACE ADDRESS\n");
		return 2;
	}
	sigaction(SIGINT, &on_stop, NULL);
	sigaction(SIGTERM, &on_stop, NULL);
	if (responder_open(&r, argv[1]) != 0)
		return 1;
	printf("ready\n");
	fflush(stdout);

	while (!stopping) {
		struct sockaddr_ll from;
		socklen_t from_length = sizeof(from);
		ssize_t length;
		size_t reply;

		length = recvfrom(r.fd, frame, sizeof(frame), 0, (struct sockaddr *)&from,
				  &from_length);
		if (length < 0 && !transient(errno))
			return fail("recvfrom");
		if (length <= 0 || from.sll_pkttype == PACKET_OUTGOING)
			continue;
		reply = answer(&r, frame, (size_t)length);
		if (reply == 0)
			continue;
		if (send(r.fd, frame, reply, 0) >= 0)
			answers++;
		else if (!transient(errno))
			return fail("send");
	}
	printf("%lu answers\n", answers);
	close(r.fd);
	return 0;
}
