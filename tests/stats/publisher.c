/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Publishes counters with known values and obeys one-word commands on standard input, so that the
 * tests of palladium_stats know what must be shown. Each command is answered by one line:
 *
 *   add      one more round of traffic on pd0/0 and fd 10     lane     give the lane pd0/0 back
 *   tear     stop in the middle of an update                  many     three more sockets (limit: argv[2])
 *   fork     fork; the child counts, opens its own file       exec     become `sleep`, without leaving
 *   crash    end without leaving                              exit     end in good order
 *   error    the port comes up, after an error
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "counters/counters.h"

static struct pd_ctr_block *port, *lane, *sock;

/* Say `what` and the file's path. */
static void answer(const char *what)
{
	printf("%s %s\n", what, pd_ctr_path() ? pd_ctr_path() : "-");
	fflush(stdout);
}

static void set_up(void)
{
	port = pd_ctr_alloc(PD_CTR_PORT, 0, PD_SHM_NONE, "pd0");
	pd_ctr_text(port, PD_CTR_TEXT_KIND, "vhost-user");
	pd_ctr_text(port, PD_CTR_TEXT_STATE, "down");
	pd_ctr_text(port, PD_CTR_TEXT_PATH, "/run/vlm0.sock");
	pd_ctr_text(port, PD_CTR_TEXT_REASON, "Connection\033[2Jrefused");
	pd_ctr_count(port, PD_CTR_PORT_RECONNECTS, 3);
	pd_ctr_count(port, PD_CTR_PORT_RX_FRAMES, 7);
	pd_ctr_gauge(port, PD_CTR_PORT_MTU, 1500);
	lane = pd_ctr_alloc(PD_CTR_LANE, 0, 0, "pd0/0");
	pd_ctr_begin(lane, PD_CTR_LANE_RX);
	pd_ctr_add(lane, PD_CTR_LANE_RX_FRAMES, 1000);
	pd_ctr_add(lane, PD_CTR_LANE_RX_BYTES, 64000);
	pd_ctr_add(lane, PD_CTR_LANE_RX_DROP_MALFORMED, 2);
	pd_ctr_add(lane, PD_CTR_LANE_RX_DROP_NO_SOCKET, 3);
	pd_ctr_add(lane, PD_CTR_LANE_RX_POLL_HIT, 3);
	pd_ctr_add(lane, PD_CTR_LANE_RX_POLL_MISS, 1);
	pd_ctr_end(lane, PD_CTR_LANE_RX);
	pd_ctr_begin(lane, PD_CTR_LANE_TX);
	pd_ctr_add(lane, PD_CTR_LANE_TX_BYTES, 0x123456789abull);
	pd_ctr_end(lane, PD_CTR_LANE_TX);
	sock = pd_ctr_alloc(PD_CTR_SOCKET, 10, 0, "packet");
	pd_ctr_text(sock, PD_CTR_TEXT_KIND, "packet");
	pd_ctr_begin(sock, PD_CTR_SOCKET_RX);
	pd_ctr_add(sock, PD_CTR_SOCKET_RX_PACKETS, 233020);
	pd_ctr_end(sock, PD_CTR_SOCKET_RX);
	pd_ctr_begin(sock, PD_CTR_SOCKET_QUEUE);
	pd_ctr_max(sock, PD_CTR_SOCKET_RX_QUEUED_BYTES_MAX, 200);
	pd_ctr_max(sock, PD_CTR_SOCKET_RX_QUEUED_BYTES_MAX, 100);
	pd_ctr_end(sock, PD_CTR_SOCKET_QUEUE);
	pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_SOCKETS_OFFLOADED, 1);
}

static void come_up(void)
{
	pd_ctr_text(port, PD_CTR_TEXT_STATE, "up");
	pd_ctr_text(port, PD_CTR_TEXT_REASON, "%s", "");
	pd_ctr_text(port, PD_CTR_TEXT_LAST_ERROR, "ring 0: \033broken");
	pd_ctr_gauge(port, PD_CTR_PORT_LAST_ERROR_NS, pd_clock_ns());
}

static void add_round(void)
{
	pd_ctr_begin(lane, PD_CTR_LANE_RX);
	pd_ctr_add(lane, PD_CTR_LANE_RX_FRAMES, 500);
	pd_ctr_end(lane, PD_CTR_LANE_RX);
	pd_ctr_begin(sock, PD_CTR_SOCKET_RX);
	pd_ctr_add(sock, PD_CTR_SOCKET_RX_PACKETS, 80);
	pd_ctr_end(sock, PD_CTR_SOCKET_RX);
}

static void many_sockets(void)
{
	for (int i = 0; i < 3; i++) {
		struct pd_ctr_block *b = pd_ctr_alloc(PD_CTR_SOCKET, 20 + i, 0, "more");

		pd_ctr_begin(b, PD_CTR_SOCKET_TX);
		pd_ctr_add(b, PD_CTR_SOCKET_TX_PACKETS, 10);
		pd_ctr_end(b, PD_CTR_SOCKET_TX);
	}
	pd_ctr_publish();
}

/* The child counts before and after it opens a file of its own, answers, and waits to be ended. */
static void fork_child(const char *dir)
{
	char c;

	pd_ctr_before_fork();
	if (fork()) {
		pd_ctr_after_fork_in_parent();
		wait(NULL);
		return;
	}
	pd_ctr_after_fork_in_child();
	add_round();
	pd_ctr_open(dir, 100);
	add_round();
	printf("child %d %s\n", (int)getpid(), pd_ctr_path() ? pd_ctr_path() : "-");
	fflush(stdout);
	_exit(read(0, &c, 1) < 0);
}

int main(int argc, char **argv)
{
	const char *dir = argc > 1 && strcmp(argv[1], "-") ? argv[1] : NULL;
	char line[64];
	int ret;

	ret = pd_ctr_open(dir, argc > 2 ? (unsigned)atoi(argv[2]) : 100);
	set_up();
	printf("open %d %s\n", ret, pd_ctr_path() ? pd_ctr_path() : "-");
	fflush(stdout);
	setvbuf(stdin, NULL, _IONBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strcmp(line, "add"))
			add_round();
		else if (!strcmp(line, "lane"))
			pd_ctr_free(lane);
		else if (!strcmp(line, "many"))
			many_sockets();
		else if (!strcmp(line, "error"))
			come_up();
		else if (!strcmp(line, "tear"))
			pd_ctr_begin(lane, PD_CTR_LANE_RX);
		else if (!strcmp(line, "fork"))
			fork_child(dir);
		else if (!strcmp(line, "exec"))
			execlp("sleep", "sleep", "60", (char *)NULL);
		else if (!strcmp(line, "crash"))
			kill(getpid(), SIGKILL);
		else if (!strcmp(line, "exit"))
			break;
		answer(line);
	}
	return 0;
}
