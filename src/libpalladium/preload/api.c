/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The functions of palladium_extra.h that are not part of libc's interface.
 */
#include <errno.h>
#include <string.h>

#include "base/compiler.h"
#include "metadata/render.h"
#include "palladium_extra.h"

/* See palladium_extra.h for the contract. */
PD_EXPORT int palladium_decode(const void *header, size_t len, char *out, size_t out_size,
			       int format)
{
	struct pd_sidecar s;
	int n = -EINVAL;

	if (len >= PD_SIDECAR_BYTES && (format == PALLADIUM_TEXT || format == PALLADIUM_JSON)) {
		memcpy(&s, header, sizeof(s));
		n = pd_sidecar_render(&s, (enum pd_render_format)format, NULL, out, out_size);
	}
	if (n < 0) {
		errno = -n;
		return -1;
	}
	return n;
}
