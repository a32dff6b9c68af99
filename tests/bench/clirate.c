/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Gives a program's debug CLI a command in every so many microseconds, until killed: a small
 * client, so that what it takes of a core itself is little (tests/bench/cli.py).
 *
 *   clirate PATH MICROSECONDS COMMAND...
 *
 * Every second: how many commands there were, and how many microseconds the slowest took.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define END '\036' /* the last line of an answer begins with it */

/* Microseconds since some time in the past. */
static unsigned long now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (unsigned long)ts.tv_sec * 1000000 + (unsigned long)ts.tv_nsec / 1000;
}

/* Read up to the end of an answer (`last` END), or of the greeting ('\n'). */
static void hear(int fd, char last)
{
	static char text[65536];
	int seen = 0;
	ssize_t n;

	do {
		n = read(fd, text, sizeof(text));
		if (n <= 0)
			exit(1);
		seen |= memchr(text, last, (size_t)n) != NULL;
	} while (!seen || text[n - 1] != '\n');
}

int main(int argc, char **argv)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	unsigned long every, next, begun, took, slowest = 0, told, count = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char line[256] = "";

	if (argc < 4)
		return 2;
	for (int i = 3; i < argc; i++) {
		strncat(line, argv[i], sizeof(line) - strlen(line) - 2);
		strcat(line, i + 1 < argc ? " " : "\n");
	}
	every = strtoul(argv[2], NULL, 10);
	strncpy(at.sun_path, argv[1], sizeof(at.sun_path) - 1);
	if (connect(fd, (struct sockaddr *)&at, sizeof(at))) {
		perror(argv[1]);
		return 1;
	}
	hear(fd, '\n');
	next = told = now_us();
	for (;;) {
		struct timespec ts;

		next += every;
		ts.tv_sec = (time_t)(next / 1000000);
		ts.tv_nsec = (long)(next % 1000000) * 1000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
		begun = now_us();
		if (write(fd, line, strlen(line)) < 0)
			return 1;
		hear(fd, END);
		took = now_us() - begun;
		slowest = took > slowest ? took : slowest;
		count++;
		if (begun - told > 1000000) {
			told = begun;
			printf("%lu commands, the slowest %lu us\n", count, slowest);
			fflush(stdout);
		}
	}
}
