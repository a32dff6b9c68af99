/* SPDX-License-Identifier: BSD-2-Clause */
/* What is asked of palladium_eval. */
#ifndef EVAL_OPTIONS_H
#define EVAL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#include "base/compiler.h"

enum ev_exit {
	EV_EXIT_OK,
	EV_EXIT_FAILED, /* a check failed, a role crashed, or it was interrupted */
	EV_EXIT_USAGE
};

enum ev_mode { EV_MODE_SPLIT, EV_MODE_PACKED, EV_MODE_STRIPPED, EV_MODES };
enum ev_as { EV_AS_AUTO, EV_AS_PROCESSES, EV_AS_PAIR, EV_AS_THREADS, EV_AS_ONE };
enum ev_nf_id { EV_NF_FORWARD, EV_NF_COUNT, EV_NF_SWAP, EV_NF_PLUGIN, EV_NFS };
enum ev_nf_side { EV_NF_DRIVER, EV_NF_DEVICE };
enum ev_dialect { EV_DIALECT_VIRTIO, EV_DIALECT_AVIP };
enum ev_place {
	EV_PLACE_BUFFER,
	EV_PLACE_SEPARATE,
	EV_PLACE_REUSED,
	EV_PLACE_AGGREGATED,
	EV_PLACE_RING,
	EV_PLACE_SAME /* of rx: as nf's */
};
enum ev_with { EV_WITH_PERF, EV_WITH_CALLGRIND };

extern const char *const ev_mode_words[],
	*const ev_as_words[], *const ev_nf_side_words[],
				      *const ev_dialect_words[],
					      *const ev_switch_words[],
						      *const ev_place_words[],
							      *const ev_host_place_words[],
								      *const ev_counter_words[];
/* Grows by the nodes of plug-ins when they are loaded, from EV_NFS on: nf.h. */
extern const char *ev_nf_words[];

/* Modes that an option belongs to. */
#define EV_STRIPPED PD_BIT(EV_MODE_STRIPPED)
#define EV_VHOST (PD_BIT(EV_MODE_SPLIT) | PD_BIT(EV_MODE_PACKED))
#define EV_ALL (EV_STRIPPED | EV_VHOST)

/* The most packets one call of the library's lanes takes. */
#define EV_VHOST_BATCH_MAX 256
#define EV_BATCH_MAX 1024
#define EV_HEADER_BYTES 12
#define EV_CORES_MAX 64
#define EV_WHY_MAX 256

struct ev_options {
#define EV_NUM(field, ...) uint64_t field;
#define EV_WORD(field, ...) uint64_t field;
#define EV_FLAG(field, ...) uint64_t field;
#define EV_TEXT(field, ...) const char *field;
#include "options.def"
	uint64_t given; /* a bit for each row that was set */
	unsigned n_cores;
	int core[EV_CORES_MAX]; /* those of `cores`, or all that there are */
};

/* Put the reason why something is refused into `why` (EV_WHY_MAX). Returns -EINVAL. */
int PD_PRINTF(2, 3) ev_no(char *why, const char *fmt, ...);

/* The default of every option. */
void ev_options_default(struct ev_options *o);

/*
 * Set the option that is called `name` from `text`, as a table has it; "preset" is one too. Texts
 * are borrowed. Returns 0, or -EINVAL with the reason in `why` (EV_WHY_MAX).
 */
int ev_options_set(struct ev_options *o, const char *name, const char *text, char *why);

/*
 * What does not go together: returns 0, or -EINVAL with the reason in `why`. Fills in what follows
 * from the rest: area, buffers, metadata_entries, cores, as.
 */
int ev_options_settle(struct ev_options *o, char *why);

/*
 * Read the command line. The arguments that are no options, argv[0] first, are moved to the front
 * of argv; returns how many there are. Ends the program for --help, --version and wrong usage.
 */
int ev_options_read(struct ev_options *o, int argc, char **argv);

/* All that a run depends on, by name. */
json_t *ev_options_json(const struct ev_options *o);

/* The value of option `name` in words into `out`; false when there is no such option. */
bool ev_options_text(const struct ev_options *o, const char *name, char *out, size_t size);

/*
 * The arguments that give what was given of what a run depends on, but for packets and as: NAME and
 * VALUE in turns from `text` (room for `size` bytes), into `arguments`, at most `max`. Returns how
 * many there are.
 */
int ev_options_arguments(const struct ev_options *o, char *text, size_t size, char **arguments,
			 int max);

/* Say what is wrong with the command line and end. */
void ev_refuse(const char *fmt, ...) PD_PRINTF(1, 2) __attribute__((noreturn));

#endif /* EVAL_OPTIONS_H */
