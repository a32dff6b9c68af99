/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a program may know of libpalladium.
 */
#ifndef PALLADIUM_EXTRA_H
#define PALLADIUM_EXTRA_H

#endif /* PALLADIUM_EXTRA_H */
