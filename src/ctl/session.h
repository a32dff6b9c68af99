/* SPDX-License-Identifier: BSD-2-Clause */
/* Running lines: of a script, or of somebody who types. */
#ifndef PD_CTL_SESSION_H
#define PD_CTL_SESSION_H

#include <stdbool.h>

#include "client.h"

struct pd_ctl_session {
	struct pd_ctl *ctl;
	bool json;  /* ask for JSON */
	bool ended; /* quit, or the connection is gone */
};

/*
 * Run one line: the program's, or one of the client's own (exec FILE). Output goes to standard
 * output, an error to standard error, behind `where`. Returns 0, or 1 when it failed.
 */
int pd_ctl_line(struct pd_ctl_session *s, const char *line, const char *where);

/* Run the lines of the file at `path` ("-": standard input) up to the first error, which is named
 * FILE:LINE. Returns 0 or 1. */
int pd_ctl_script(struct pd_ctl_session *s, const char *path);

/* Read lines from the terminal and run them, to the end of the input. Returns 0 or 1. */
int pd_ctl_interactive(struct pd_ctl_session *s);

#endif /* PD_CTL_SESSION_H */
