/* SPDX-License-Identifier: BSD-2-Clause */
/* Talking to the debug CLI of a program: cli/server.h of the library has the protocol. */
#ifndef PD_CTL_CLIENT_H
#define PD_CTL_CLIENT_H

#include <stddef.h>
#include <stdio.h>

#define PD_CTL_PROTOCOL 1
#define PD_CTL_ERROR_BYTES 1200

struct pd_ctl {
	int fd;
	int timeout_ms; /* without a byte of an answer */
	int pid;        /* as the program knows itself */
	char program[64], version[32];
	char in[65536];
	size_t n, at; /* of `in`: what came, what has been used */
};

/*
 * Connect to the socket at `path` and read who it is. Returns 0, or -1 with what is wrong in
 * `error` (PD_CTL_ERROR_BYTES), a sentence's end; errno is ECONNREFUSED or ENOENT when nobody
 * listens there.
 */
int pd_ctl_connect(struct pd_ctl *c, const char *path, int timeout_ms, char *error);
void pd_ctl_close(struct pd_ctl *c);

/*
 * Have the program run one line; its output goes to `out`. Returns 0; 1 when the program says that
 * it failed, with why in `error`; -1 when there is no answer.
 */
int pd_ctl_run(struct pd_ctl *c, const char *line, FILE *out, char *error);

#endif /* PD_CTL_CLIENT_H */
