# SPDX-License-Identifier: BSD-2-Clause
bin_PROGRAMS += src/decode/palladium_decode
src_decode_palladium_decode_SOURCES = src/decode/palladium_decode.c
src_decode_palladium_decode_CFLAGS = $(AM_CFLAGS) $(PCAP_CFLAGS)
src_decode_palladium_decode_LDADD = libpd.la $(PCAP_LIBS)
