/* SPDX-License-Identifier: BSD-2-Clause */
/* The debug CLI for people with a telnet client (contract in telnet.h). */
#include "cli/telnet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/internal_fd.h"
#include "base/sys.h"

#define BACKLOG 8

/* Bytes of the protocol (RFC 854). */
enum {
	SE = 240,
	SB = 250,
	WILL = 251,
	WONT = 252,
	DO = 253,
	DONT = 254,
	IAC = 255,
};

/* What has been read last. */
enum {
	TEXT,
	RETURN,     /* CR: a NUL behind it belongs to it */
	COMMAND,    /* IAC */
	OPTION,     /* IAC and one of WILL to DONT */
	PARAMETERS, /* IAC SB */
	PARAMETERS_COMMAND,
};

/* --- the socket ---------------------------------------------------------------------------- */

int pd_telnet_listen(uint16_t port)
{
	struct sockaddr_in at = {.sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = pd_internal_fd(
		pd_sys_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	int on = 1, err;

	if (fd < 0)
		return fd;
	err = pd_sys_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (!err)
		err = pd_sys_bind(fd, &at, sizeof(at));
	if (!err)
		err = pd_sys_listen(fd, BACKLOG);
	if (!err)
		return fd;
	pd_sys_close(fd);
	return err;
}

/* Ask the kernel for the socket that is at `peer`. Returns 0 or -errno. */
static int diag_ask(int fd, const struct sockaddr_in *peer, uint16_t port)
{
	struct {
		struct nlmsghdr head;
		struct inet_diag_req_v2 req;
	} ask = {
		.head = {.nlmsg_len = sizeof(ask),
			 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			 .nlmsg_flags = NLM_F_REQUEST},
		.req = {.sdiag_family = AF_INET,
			.sdiag_protocol = IPPROTO_TCP,
			.idiag_states = UINT32_MAX,
			.id = {.idiag_sport = peer->sin_port,
			       .idiag_dport = htons(port),
			       .idiag_src = {peer->sin_addr.s_addr},
			       .idiag_dst = {htonl(INADDR_LOOPBACK)},
			       .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}},
	};
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct iovec iov = {&ask, sizeof(ask)};
	struct msghdr msg = {.msg_name = &kernel,
			     .msg_namelen = sizeof(kernel),
			     .msg_iov = &iov,
			     .msg_iovlen = 1};
	ssize_t n = pd_sys_sendmsg(fd, &msg, MSG_DONTWAIT);

	return n < 0 ? (int)n : 0;
}

/* What it answers. Returns as pd_telnet_peer. */
static int diag_hear(int fd, uid_t *uid)
{
	union {
		struct nlmsghdr head;
		char bytes[1024];
	} answer;
	const struct inet_diag_msg *sock = NLMSG_DATA(&answer.head);
	const struct nlmsgerr *err = NLMSG_DATA(&answer.head);
	struct sockaddr_nl from = {0};
	struct iovec iov = {&answer, sizeof(answer)};
	struct msghdr msg = {
		.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n = pd_sys_recvmsg(fd, &msg, MSG_DONTWAIT);

	if (n < 0)
		return (int)n;
	if (from.nl_pid) /* not the kernel */
		return -EPROTO;
	if ((size_t)n >= NLMSG_LENGTH(sizeof(*err)) && answer.head.nlmsg_type == NLMSG_ERROR)
		return err->error == -ENOENT ? -ENOTCONN : err->error < 0 ? err->error : -EPROTO;
	if ((size_t)n < NLMSG_LENGTH(sizeof(*sock)) ||
	    answer.head.nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return -EPROTO;
	/* What is left of one that was closed belongs to nobody, which reads as user 0. */
	if (!sock->idiag_inode)
		return -ENOTCONN;
	*uid = sock->idiag_uid;
	return 0;
}

int pd_telnet_peer(const struct sockaddr_in *peer, uint16_t port, uid_t *uid)
{
	int fd = pd_internal_fd(pd_sys_socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC,
					      NETLINK_SOCK_DIAG));
	int err;

	if (fd < 0)
		return fd;
	err = diag_ask(fd, peer, port);
	if (!err)
		err = diag_hear(fd, uid);
	pd_sys_close(fd);
	return err;
}

/* --- what is said -------------------------------------------------------------------------- */

/* Refuse the option that `in` has got a command about. */
static void refuse(const struct pd_telnet_in *in, uint8_t option, struct pd_cli_sink *replies)
{
	char reply[3] = {(char)IAC, (char)(in->command == DO ? WONT : DONT), (char)option};

	/* That an option is off needs no answer. */
	if (in->command == DO || in->command == WILL)
		replies->take(replies, reply, sizeof(reply));
}

/* Whether `byte` is text. */
static bool filter_one(struct pd_telnet_in *in, uint8_t byte, struct pd_cli_sink *replies)
{
	uint8_t state = in->state;

	in->state = TEXT;
	switch (state) {
	case COMMAND:
		in->command = byte;
		if (byte >= WILL && byte <= DONT)
			in->state = OPTION;
		else if (byte == SB)
			in->state = PARAMETERS;
		return byte == IAC;
	case OPTION:
		refuse(in, byte, replies);
		return false;
	case PARAMETERS:
		in->state = byte == IAC ? PARAMETERS_COMMAND : PARAMETERS;
		return false;
	case PARAMETERS_COMMAND:
		in->state = byte == SE ? TEXT : PARAMETERS;
		return false;
	case RETURN:
		if (!byte)
			return false;
		break;
	}
	if (byte == IAC)
		in->state = COMMAND;
	else if (byte == '\r')
		in->state = RETURN;
	return byte != IAC;
}

size_t pd_telnet_filter(struct pd_telnet_in *in, char *bytes, size_t n, struct pd_cli_sink *replies)
{
	size_t left = 0;

	for (size_t i = 0; i < n; i++)
		if (filter_one(in, (uint8_t)bytes[i], replies))
			bytes[left++] = bytes[i];
	return left;
}

/* take of a telnet sink. */
static int out_take(struct pd_cli_sink *sink, const char *bytes, size_t n)
{
	struct pd_telnet_out *out = pd_container_of(sink, struct pd_telnet_out, sink);
	char *text = malloc(2 * n + 1);
	size_t length = 0;
	int ret;

	if (!text)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] == '\n')
			text[length++] = '\r';
		text[length++] = bytes[i];
	}
	ret = out->to->take(out->to, text, length);
	free(text);
	return ret;
}

void pd_telnet_out_init(struct pd_telnet_out *out, struct pd_cli_sink *to)
{
	*out = (struct pd_telnet_out){.sink.take = out_take, .to = to};
}
