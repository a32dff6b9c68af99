# SPDX-License-Identifier: BSD-2-Clause
bin_PROGRAMS += palladium_decode
palladium_decode_SOURCES = src/decode/palladium_decode.c
palladium_decode_CFLAGS = $(AM_CFLAGS) $(PCAP_CFLAGS)
palladium_decode_LDADD = libpd.la $(PCAP_LIBS)
