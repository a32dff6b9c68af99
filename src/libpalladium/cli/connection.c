/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One who talks to the debug CLI (contract in connection.h, protocol in server.h).
 *
 * A connection is in one of these states: it waits for a line (input is read, and the first line
 * run in the same round); a command runs (its steps, and further lines, are posted work, one a
 * round, as long as the client takes the output); or it is closing: what waits is sent, nothing is
 * read. Work that was posted and comes when there is nothing to do does nothing, so the structures
 * stay when a connection ends and are used for the next.
 */
#ifdef HAVE_CONFIG_H
#	include "config.h"
#endif

#include "cli/connection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/closer.h"
#include "base/log.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "cli/server.h"
#include "cli/telnet.h"
#include "counters/counters.h"
#include "vlib/progress.h"

/* Above the queue's bound, for the line that ends an answer. */
#define ANSWER_BYTES (2 * PD_CLI_ERROR_BYTES)

_Static_assert(PD_CLI_LINE_BYTES == 4096 && PD_CLI_CONNECTIONS_MAX == 8, "as the two say");
#define LINE_TOO_LONG "a line has at most 4095 bytes"
#define TELNET_PATIENCE 30 /* times as long: somebody may be typing */
#define TOO_MANY "there are 8 connections already"

struct connection {
	struct pd_progress_fd entry; /* fd -1: free */
	struct pd_progress_work turn;
	struct pd_progress_timer timer;
	struct pd_cli cli;
	struct pd_cli_macros macros;
	struct pd_cli_queue out;
	struct pd_cli_sink *sink; /* out's, or that of telnet in front of it */
	struct pd_telnet_in telnet_in;
	struct pd_telnet_out telnet_out;
	char in[PD_CLI_LINE_BYTES];
	size_t in_n;
	bool telnet, eof, closing;
	bool heard; /* a line has come */
};

uint64_t pd_cli_patience_ns = 10 * PD_NS_PER_SEC;

/* Made when needed, and kept. Guarded by pd_control. */
static struct connection *connections[PD_CLI_CONNECTIONS_MAX];

/* Close a connection's socket; what is unread of TCP makes nobody wait. */
static void close_socket(int fd, bool telnet)
{
	if (telnet)
		pd_sys_close(fd);
	else
		pd_closer_hang_up(fd);
}

/* End a connection at once. */
static void connection_end(struct connection *c)
{
	if (c->entry.fd < 0)
		return;
	pd_progress_del(&c->entry);
	pd_progress_timer_cancel(&c->timer);
	close_socket(c->entry.fd, c->telnet);
	c->entry.fd = -1;
	pd_cli_abort(&c->cli);
	pd_cli_macros_free(&c->macros);
	pd_cli_memory_free(&c->out.memory);
}

/* The same for this process's own, whatever its client has sent. */
static void connection_close(struct connection *c)
{
	connection_end(c);
}

/* Whether a whole line waits to be run. */
static bool line_waits(const struct connection *c)
{
	return memchr(c->in, '\n', c->in_n) != NULL;
}

/* Whether the connection has something to do that needs nothing from its client. */
static bool is_runnable(const struct connection *c)
{
	return !c->closing && (c->cli.command || line_waits(c) || c->eof) &&
	       pd_cli_queue_length(&c->out) < PD_CLI_QUEUE_HIGH_BYTES;
}

/*
 * After anything has happened: poll for what is waited for, have the next turn come, and give the
 * client its time.
 */
static void connection_settle(struct connection *c, bool moved)
{
	size_t waits = pd_cli_queue_length(&c->out);
	uint32_t events = 0;

	if (c->closing && !waits) {
		connection_close(c);
		return;
	}
	if (!c->closing && !c->eof && c->in_n < sizeof(c->in))
		events |= EPOLLIN;
	if (waits)
		events |= EPOLLOUT;
	if (events != c->entry.events)
		pd_progress_mod(&c->entry, events);
	if (is_runnable(c))
		pd_progress_post(&c->turn);
	if (!waits && (!c->in_n || c->cli.command || line_waits(c)))
		pd_progress_timer_cancel(&c->timer);
	else if (moved || pd_list_empty(&c->timer.node))
		pd_progress_timer_set(&c->timer,
				      pd_cli_patience_ns *
					      (c->telnet && !waits ? TELNET_PATIENCE : 1));
}

/* Put `text` into the queue, above its bound. */
static void answer(struct connection *c, const char *text)
{
	c->out.memory.limit += ANSWER_BYTES;
	c->sink->take(c->sink, text, strlen(text));
	c->out.memory.limit -= ANSWER_BYTES;
}

/* End the answer to a line; `error` is NULL when it was done. */
static void answer_end(struct connection *c, const char *error)
{
	char line[PD_CLI_ERROR_BYTES + 128], prompt[72] = "";

	if (!c->closing)
		snprintf(prompt, sizeof(prompt), "%.63s> ", program_invocation_short_name);
	if (c->telnet)
		snprintf(line, sizeof(line), "%s%s%s%s", error ? "error: " : "", error ? error : "",
			 error ? "\n" : "", prompt);
	else
		snprintf(line, sizeof(line), "\036 %d%s%s\n", error != NULL, error ? " " : "",
			 error ? error : "");
	answer(c, line);
}

/* The client has broken a rule: tell it, and close when it has been told. */
static void connection_refuse(struct connection *c, const char *why)
{
	pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_CLI_REFUSED, 1);
	pd_log_ratelimited(PD_LOG_DEBUG, "cli", "a connection is closed: %s", why);
	pd_cli_abort(&c->cli);
	c->closing = true;
	answer_end(c, why);
}

/* A line, or a step of one, has been run with `ret`. */
static void line_ran(struct connection *c, int ret)
{
	if (ret == PD_CLI_MORE)
		return;
	c->closing |= c->cli.quit;
	answer_end(c, ret ? c->cli.error : NULL);
}

/*
 * Whether the first line is that of a browser, which anybody's page can have send what looks like
 * our commands behind it, as the user who looks at that page.
 */
static bool is_browser(const struct connection *c, const char *line)
{
	return c->telnet && !c->heard && strstr(line, " HTTP/");
}

/* Run the line at the head of the input, if there is a whole one. */
static void run_line(struct connection *c)
{
	char *end = memchr(c->in, '\n', c->in_n);
	char line[PD_CLI_LINE_BYTES];
	size_t n;

	if (!end) {
		if (c->in_n == sizeof(c->in))
			connection_refuse(c, LINE_TOO_LONG);
		else if (c->eof && c->in_n)
			connection_refuse(c, "the last line has no end");
		else if (c->eof)
			c->closing = true;
		return;
	}
	n = (size_t)(end - c->in);
	memcpy(line, c->in, n);
	line[n] = '\0';
	c->in_n -= n + 1;
	memmove(c->in, end + 1, c->in_n);
	if (is_browser(c, line)) {
		connection_refuse(c, "this is no web server");
		return;
	}
	c->heard = true;
	pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_CLI_COMMANDS, 1);
	line_ran(c, pd_cli_begin(&c->cli, line));
}

/* Send what can be sent. Returns whether something was; closes a broken connection. */
static bool connection_flush(struct connection *c)
{
	ssize_t ret = pd_cli_queue_flush(&c->out);

	if (ret < 0)
		connection_close(c);
	return ret > 0;
}

/* One line or one step, if there is something to do. */
static void connection_turn(struct connection *c)
{
	if (c->entry.fd < 0 || !is_runnable(c))
		return;
	if (c->cli.command)
		line_ran(c, pd_cli_continue(&c->cli));
	else
		run_line(c);
}

/* As posted work. */
static void on_turn(struct pd_progress_work *work)
{
	struct connection *c = pd_container_of(work, struct connection, turn);
	bool moved = false;

	connection_turn(c);
	if (c->entry.fd >= 0)
		moved = connection_flush(c);
	if (c->entry.fd >= 0)
		connection_settle(c, moved);
}

/* True when these bytes are text. */
static bool is_text(const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)bytes[i] < ' ' && !strchr("\t\r\n", bytes[i])) ||
		    bytes[i] == 0x7f || !bytes[i])
			return false;
	return true;
}

/* Read what has come. */
static void connection_read(struct connection *c)
{
	struct iovec iov = {c->in + c->in_n, sizeof(c->in) - c->in_n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n = pd_sys_recvmsg(c->entry.fd, &msg, MSG_DONTWAIT);

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n < 0) {
		connection_close(c);
		return;
	}
	if (n == 0)
		c->eof = true;
	if (c->telnet)
		n = (ssize_t)pd_telnet_filter(&c->telnet_in, c->in + c->in_n, (size_t)n,
					      &c->out.memory.sink);
	if (!is_text(c->in + c->in_n, (size_t)n)) {
		connection_refuse(c, "this is no text");
		return;
	}
	c->in_n += (size_t)n;
	if (c->in_n == sizeof(c->in) && !line_waits(c))
		connection_refuse(c, LINE_TOO_LONG);
}

/* Something happened on a connection. */
static void on_connection(struct pd_progress_fd *entry, uint32_t revents)
{
	struct connection *c = pd_container_of(entry, struct connection, entry);
	bool moved = false;

	/* Gone both ways: nobody reads an answer any more. */
	if (revents & (EPOLLHUP | EPOLLERR)) {
		connection_close(c);
		return;
	}
	if (revents & EPOLLIN && !c->closing && !c->eof && c->in_n < sizeof(c->in))
		connection_read(c);
	connection_turn(c);
	if (c->entry.fd >= 0)
		moved = connection_flush(c);
	if (c->entry.fd >= 0)
		connection_settle(c, moved);
}

/* The client has had its time. */
static void on_patience(struct pd_progress_timer *timer)
{
	struct connection *c = pd_container_of(timer, struct connection, timer);

	if (pd_cli_queue_length(&c->out)) {
		pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_CLI_REFUSED, 1);
		pd_log_ratelimited(PD_LOG_DEBUG, "cli",
				   "a connection is closed: its client does not read");
		connection_close(c);
		return;
	}
	connection_refuse(c, "the rest of the line did not come");
	connection_flush(c);
	if (c->entry.fd >= 0)
		connection_settle(c, true);
}

/* A free connection, or NULL: all are in use, or there is no memory. */
static struct connection *connection_find(void)
{
	for (unsigned i = 0; i < PD_CLI_CONNECTIONS_MAX; i++) {
		struct connection **c = &connections[i];

		if (*c && (*c)->entry.fd >= 0)
			continue;
		if (!*c) {
			*c = calloc(1, sizeof(**c));
			if (!*c)
				return NULL;
			(*c)->entry = (struct pd_progress_fd){.fd = -1, .fn = on_connection};
			(*c)->turn.fn = on_turn;
			pd_list_init(&(*c)->timer.node);
			(*c)->timer.fn = on_patience;
		}
		return *c;
	}
	return NULL;
}

void pd_cli_turn_away(int fd, bool telnet, const char *why)
{
	char line[160];
	struct iovec iov = {line, 0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	iov.iov_len = (size_t)snprintf(line, sizeof(line), telnet ? "%s\r\n" : "\036 1 %s\n", why);
	pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_CLI_REFUSED, 1);
	pd_sys_sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	close_socket(fd, telnet);
}

/* Say who this is. */
static void greet(struct connection *c)
{
	char hello[256];

	if (c->telnet)
		snprintf(
			hello, sizeof(hello),
			"libpalladium %s, process %d (%.63s); help lists the commands, quit ends\n",
			PACKAGE_VERSION, (int)pd_sys_getpid(), program_invocation_short_name);
	else
		snprintf(hello, sizeof(hello), "palladium-cli %d %d %s %.63s\n", PD_CLI_PROTOCOL,
			 (int)pd_sys_getpid(), PACKAGE_VERSION, program_invocation_short_name);
	answer(c, hello);
	if (c->telnet)
		answer_end(c, NULL);
}

void pd_cli_connection_begin(int fd, bool telnet)
{
	struct connection *c = connection_find();

	if (!c) {
		pd_cli_turn_away(fd, telnet, TOO_MANY);
		return;
	}
	pd_sys_urgent_inline(fd);
	c->entry.fd = fd;
	c->entry.events = EPOLLIN;
	c->in_n = 0;
	c->telnet = telnet;
	c->telnet_in = (struct pd_telnet_in){0};
	c->eof = c->closing = c->heard = false;
	pd_cli_queue_init(&c->out, fd, PD_CLI_QUEUE_MAX_BYTES);
	pd_telnet_out_init(&c->telnet_out, &c->out.memory.sink);
	c->sink = telnet ? &c->telnet_out.sink : &c->out.memory.sink;
	pd_cli_init(&c->cli, c->sink, &c->macros);
	if (pd_progress_add(&c->entry)) {
		c->entry.fd = -1;
		pd_cli_turn_away(fd, telnet, "there is no memory for the connection");
		return;
	}
	greet(c);
	connection_flush(c);
	if (c->entry.fd >= 0)
		connection_settle(c, true);
}

void pd_cli_connections_end(void)
{
	for (unsigned i = 0; i < PD_CLI_CONNECTIONS_MAX; i++)
		if (connections[i])
			connection_end(connections[i]);
}
