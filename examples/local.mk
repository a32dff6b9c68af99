# SPDX-License-Identifier: BSD-2-Clause
# Small programs against libc and palladium_extra.h alone. Position-independent, so that the weak
# names of the library (sniffer.c) are looked up when the program starts.
noinst_PROGRAMS += examples/loopback examples/generator examples/sniffer
PD_EXAMPLE_CFLAGS = $(AM_CFLAGS) -fPIE
examples_loopback_SOURCES = examples/loopback.c examples/example.h
examples_loopback_CFLAGS = $(PD_EXAMPLE_CFLAGS)
examples_loopback_LDFLAGS = $(AM_LDFLAGS) -pie
examples_generator_SOURCES = examples/generator.c examples/example.h
examples_generator_CFLAGS = $(PD_EXAMPLE_CFLAGS)
examples_generator_LDFLAGS = $(AM_LDFLAGS) -pie
examples_sniffer_SOURCES = examples/sniffer.c examples/example.h
examples_sniffer_CFLAGS = $(PD_EXAMPLE_CFLAGS)
examples_sniffer_LDFLAGS = $(AM_LDFLAGS) -pie

noinst_PROGRAMS += examples/responder
examples_responder_SOURCES = examples/responder.c examples/example.h

# The sample plug-in is compiled by its test, outside of the tree, as a user does it.
EXTRA_DIST += examples/mac_swap.c examples/vlan_access.c
