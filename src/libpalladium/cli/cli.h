/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The debug CLI: commands, and running a line.
 *
 *   static int show_things(struct pd_cli *cli)
 *   {
 *           pd_cli_print(cli, "%u things\n", things);
 *           return 0;
 *   }
 *   PD_CLI_COMMAND(show_things) = {
 *           .path = "show things",
 *           .help = "How many things there are.",
 *           .fn = show_things,
 *   };
 *
 * A constructor enters each into a list. Who uses the CLI types any unique beginning of each word.
 * Commands of a folder stand in that folder, as far as it may include this one.
 *
 * Commands run on the progress thread with pd_control held (vlib/progress.h), so they must not wait
 * and must return soon. A command that has much to do does a part of it in `fn`, returns
 * PD_CLI_MORE, and goes on in `step`, which is called from rounds of the progress thread of its
 * own, behind what else is to do there. Nothing may be taken to be as it was before from one step
 * to the next.
 *
 * Output goes into a sink (sink.h). What does not fit any more is lost, the command is told, and
 * its answer is an error. Control characters are replaced, so that no name from a peer's hands or
 * a file's does anything to a terminal.
 */
#ifndef PD_CLI_CLI_H
#define PD_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "cli/macro.h"
#include "cli/sink.h"

#define PD_CLI_PATH_BYTES 128
#define PD_CLI_ERROR_BYTES 1024
/* What a command may write to a file. */
#define PD_CLI_FILE_BYTES (64u << 20)

/* What fn and step return besides 0 (done) and what pd_cli_fail returns. */
#define PD_CLI_MORE 1

struct pd_cli;

struct pd_cli_command {
	const char *path; /* words with one blank in between */
	const char *args; /* what follows it, for help; NULL: nothing may */
	const char *help; /* one line */
	bool json;        /* a last argument "json" is taken off, and cli->json is set */
	int (*fn)(struct pd_cli *cli);
	int (*step)(struct pd_cli *cli); /* with PD_CLI_MORE */
	/* After the last call of fn or step, also when nobody waits for the rest; or NULL. */
	void (*end)(struct pd_cli *cli);
	struct pd_cli_command *next; /* private */
};

/* Register a command when its object is loaded; an initialiser follows. */
#define PD_CLI_COMMAND(id)                                          \
	static struct pd_cli_command pd_cli_command_##id;           \
	static PD_CONSTRUCTOR_EARLY void pd_cli_register_##id(void) \
	{                                                           \
		pd_cli_register(&pd_cli_command_##id);              \
	}                                                           \
	static struct pd_cli_command pd_cli_command_##id

/* Enter `command`; borrowed for good. */
void pd_cli_register(struct pd_cli_command *command);

/* One who types: a connection, or a message that carries lines. */
struct pd_cli {
	struct pd_cli_sink *out; /* its own */
	struct pd_cli_macros *macros;
	/* The line that runs: */
	const struct pd_cli_command *command; /* NULL: none */
	char *args;                           /* the rest of the line, without blanks around it */
	bool json;
	void *state;              /* the command's; its `end` frees it */
	bool quit;                /* the command ends the connection */
	struct pd_cli_sink *sink; /* where output goes: `out`, or the file */
	struct pd_cli_file file;
	int lost; /* the first error of the sink: output is missing */
	char error[PD_CLI_ERROR_BYTES];
	char line[PD_CLI_LINE_BYTES]; /* private: expanded */
	char path[PD_CLI_PATH_BYTES]; /* private: the command's words, written out */
};

/* The macros of all lines that come in messages. */
extern struct pd_cli_macros pd_cli_inband_macros;

/* `out` and `macros` are borrowed. */
void pd_cli_init(struct pd_cli *cli, struct pd_cli_sink *out, struct pd_cli_macros *macros);

/*
 * Run `line` (no newline in it), or the first part of it. Returns 0 when it is done, PD_CLI_MORE
 * when pd_cli_continue is to follow, or -1 when it failed: cli->error says why, in one line.
 * pd_control held.
 */
int pd_cli_begin(struct pd_cli *cli, const char *line);
/* The next part; returns as pd_cli_begin. */
int pd_cli_continue(struct pd_cli *cli);
/* Nobody waits for the rest. */
void pd_cli_abort(struct pd_cli *cli);
/* All of it, for who can wait. Returns 0 or -1. */
int pd_cli_run(struct pd_cli *cli, const char *line);

/* --- for commands -------------------------------------------------------------------------- */

/* Print, as printf. */
void pd_cli_print(struct pd_cli *cli, const char *fmt, ...) PD_PRINTF(2, 3);

/* Say why the command fails, in one line without an end; for `return pd_cli_fail(...)`. */
int pd_cli_fail(struct pd_cli *cli, const char *fmt, ...) PD_PRINTF(2, 3);

/* Take the next word off the arguments; NULL when there is none. */
char *pd_cli_word(struct pd_cli *cli);

/* Print `text` as a string of JSON, quotes included; bytes beyond ASCII become '?'. */
void pd_cli_json_string(struct pd_cli *cli, const char *text);

/*
 * A program that links the archive gets no object that nothing refers to: who refers to these gets
 * the commands of this folder.
 */
extern const char pd_cli_has_engines, pd_cli_has_generator, pd_cli_has_graph, pd_cli_has_plugins,
	pd_cli_has_process, pd_cli_has_trace;

#endif /* PD_CLI_CLI_H */
