/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the output of a command goes: into memory, into the queue of a connection, into a file.
 *
 * A command prints with pd_cli_print (cli.h) and does not know which it is. A sink takes a piece
 * whole or not at all, never waits, and has a bound. A message that carries output is one more of
 * them.
 */
#ifndef PD_CLI_SINK_H
#define PD_CLI_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct pd_cli_sink {
	/* Take all of `n` bytes. Returns 0 or -errno: -ENOBUFS at the bound, -ENOMEM. */
	int (*take)(struct pd_cli_sink *sink, const char *bytes, size_t n);
};

/* Memory that grows up to `limit` bytes. */
struct pd_cli_memory {
	struct pd_cli_sink sink;
	char *bytes; /* not terminated */
	size_t n, size, limit;
};

/* Empty memory; to be given back by pd_cli_memory_free. */
void pd_cli_memory_init(struct pd_cli_memory *m, size_t limit);
/* Give the bytes back; it may be used again. */
void pd_cli_memory_free(struct pd_cli_memory *m);

/* What waits for a non-blocking socket to take it; memory.limit bounds what has not been sent. */
struct pd_cli_queue {
	struct pd_cli_memory memory; /* its sink is the queue's */
	size_t sent;                 /* of memory.bytes */
	int fd;                      /* borrowed; -1: nothing is sent */
};

/* An empty queue for the socket `fd`; its memory is the caller's to give back. */
void pd_cli_queue_init(struct pd_cli_queue *q, int fd, size_t limit);
/* How many bytes wait. */
size_t pd_cli_queue_length(const struct pd_cli_queue *q);
/* Send what the socket takes now. Returns how many bytes went, or -errno when it is broken. */
ssize_t pd_cli_queue_flush(struct pd_cli_queue *q);

/*
 * A file that a user of the CLI named. It is made anew, with mode 0600, as the program's user: a
 * name that is taken already, by whatever, is refused, so that neither a file of the program's nor
 * one behind a link that somebody left there is written to.
 */
struct pd_cli_file {
	struct pd_cli_sink sink;
	int fd;      /* -1: not open */
	size_t left; /* bytes that may still be written */
};

/* Open it; `path` is absolute. Returns 0 or -errno. */
int pd_cli_file_open(struct pd_cli_file *f, const char *path, size_t limit);
/* Close it; harmless when it is not open. */
void pd_cli_file_close(struct pd_cli_file *f);

#endif /* PD_CLI_SINK_H */
