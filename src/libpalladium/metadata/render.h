/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A sidecar in words: text for people, JSON for programs.
 *
 * Text has the labels and the order of the decoder that came with the header, one line per field
 * whose flag is set. JSON is one object. Both end with the bytes that are not zero and that no
 * flag, and no field that is always there, accounts for; so nothing in the 48 bytes stays hidden.
 *
 * The header does not say in which unit a value is. struct pd_units does, and only names it: no
 * value is converted, but for the byte order of the FCS.
 */
#ifndef PD_METADATA_RENDER_H
#define PD_METADATA_RENDER_H

#include <stddef.h>
#include "metadata/sidecar.h"

/* Formats of pd_sidecar_render, the numbers of PALLADIUM_TEXT and PALLADIUM_JSON. */
enum pd_render_format { PD_RENDER_TEXT = PALLADIUM_TEXT, PD_RENDER_JSON = PALLADIUM_JSON };

/* Room for any description. */
#define PD_RENDER_BYTES 4096

/* One setting per quantity, in the order of struct pd_units. */
enum pd_unit_of {
	PD_UNIT_TIME,
	PD_UNIT_IFG,
	PD_UNIT_LINE_SPEED,
	PD_UNIT_FCS,
	PD_UNIT_CHECKSUM,
	PD_UNIT_COUNT
};

/* Index of the chosen word of each setting; all zeroes are the defaults. */
struct pd_units {
	uint8_t choice[PD_UNIT_COUNT];
};

/* The name of a setting ("time"), and its words, the default first, NULL behind the last. */
const char *pd_unit_name(enum pd_unit_of of);
const char *const *pd_unit_words(enum pd_unit_of of);

/*
 * Apply settings written as "time=ns,ifg=bits". Returns 0, or -EINVAL with a sentence in `why`
 * (NULL, or `why_size` bytes) that says what was expected; `units` then keeps what came before the
 * mistake.
 */
int pd_units_parse(struct pd_units *units, const char *settings, char *why, size_t why_size);

/*
 * Describe a sidecar in at most `size` bytes at `out`, NUL included. `units` may be NULL for the
 * defaults. Returns the length of the whole description, as snprintf does, or -EINVAL for an
 * unknown format. No allocation; control path.
 */
int pd_sidecar_render(const struct pd_sidecar *s, enum pd_render_format format,
		      const struct pd_units *units, char *out, size_t size);

#endif /* PD_METADATA_RENDER_H */
