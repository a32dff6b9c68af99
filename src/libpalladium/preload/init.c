/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the library begins.
 */
#include "base/compiler.h"

const char *palladium_version(void);

/* The version of the library, for programs that ask with dlsym. */
PD_EXPORT const char *palladium_version(void)
{
	return "0.1.0";
}
