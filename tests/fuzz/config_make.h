/* SPDX-License-Identifier: BSD-2-Clause */
/* Configurations for the fuzzer, made by the grammar (config_make.c). */
#ifndef PD_TESTS_FUZZ_CONFIG_MAKE_H
#define PD_TESTS_FUZZ_CONFIG_MAKE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * A file, or a list of ports as PALLADIUM_PORTS has it, to `to`, of less than `room` bytes, with a
 * NUL behind that is not counted. One in two has no mistake. Returns its length.
 */
size_t any_config(char *to, size_t room, bool file);

#endif /* PD_TESTS_FUZZ_CONFIG_MAKE_H */
