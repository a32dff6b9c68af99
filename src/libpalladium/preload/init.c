/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the library begins: find libc's functions, read the configuration when there is any, and leave a
 * program without ports alone.
 */
#include "preload/real.h"

const char *palladium_version(void);

/* The version of the library, for programs that ask with dlsym. */
PD_EXPORT const char *palladium_version(void)
{
	return "0.1.0";
}

/* The loader calls this before main, after the constructors of the libraries that the program links. */
static PD_CONSTRUCTOR void pd_init(void)
{
	pd_real_resolve();
}
