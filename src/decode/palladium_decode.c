/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * palladium_decode: sidecar headers in words.
 *
 * Headers come as hex (arguments or standard input), as raw bytes, or from a capture file. Each is
 * printed as text, or as one JSON object on a line. What each source holds is one function that
 * feeds dec_emit(); the words themselves are the library's (metadata/render.h).
 *
 * Exit status: 0 all was printed, 1 something in the input was not as expected, 2 wrong usage.
 */
#include <errno.h>
#include <getopt.h>
#include <pcap/pcap.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#ifdef HAVE_CONFIG_H
#	include "config.h"
#endif
#include "metadata/render.h"

#define DEC_EXIT_INPUT 1
#define DEC_EXIT_USAGE 2

/* What the command line asks for. */
struct dec_options {
	enum pd_render_format format;
	struct pd_units units;
	const char *raw, *pcap; /* file names, "-" for standard input; at most one is set */
	bool first;             /* one header, then bytes to ignore */
	bool inline_header; /* the capture's packets start with a header whatever the link type */
};

/* Bytes that grow. */
struct dec_bytes {
	uint8_t *data;
	size_t len, room;
};

/* Say what is wrong on standard error. Returns DEC_EXIT_INPUT. */
static int PD_PRINTF(1, 2) dec_complain(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("palladium_decode: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return DEC_EXIT_INPUT;
}

/* Append a byte. Ends the program when memory does. */
static void dec_push(struct dec_bytes *b, uint8_t byte)
{
	if (b->len == b->room) {
		b->room = b->room ? b->room * 2 : 4096;
		b->data = realloc(b->data, b->room);
		if (!b->data)
			exit(dec_complain("out of memory"));
	}
	b->data[b->len++] = byte;
}

/*
 * Print the header at `bytes` (48 of them). In JSON, `members` (may be empty; else it ends with a
 * comma) goes in front of the object's members; in text, `title` is a line above.
 */
static void dec_emit(const struct dec_options *o, const uint8_t *bytes, const char *title,
		     const char *members)
{
	char words[PD_RENDER_BYTES];
	struct pd_sidecar s;

	memcpy(&s, bytes, sizeof(s));
	pd_sidecar_render(&s, o->format, &o->units, words, sizeof(words));
	if (o->format == PD_RENDER_JSON)
		printf("{%s%s\n", members, words + 1);
	else
		printf("%s%s", title, words);
}

/* Print the headers that stand back to back in `b`; `source` names it in messages. Returns the exit
 * status. */
static int dec_emit_all(const struct dec_options *o, const struct dec_bytes *b, const char *source)
{
	size_t rest = b->len % PD_SIDECAR_BYTES;

	if (b->len < PD_SIDECAR_BYTES)
		return dec_complain("%s: %zu bytes, expected the %d of a header", source, b->len,
				    PD_SIDECAR_BYTES);
	if (o->first) {
		dec_emit(o, b->data, "", "");
		return 0;
	}
	if (rest)
		return dec_complain("%s: %zu bytes, expected a multiple of %d (--first takes one "
				    "header and ignores what follows)",
				    source, b->len, PD_SIDECAR_BYTES);
	for (size_t i = 0; i < b->len; i += PD_SIDECAR_BYTES)
		dec_emit(o, b->data + i, "", "");
	return 0;
}

/* --- hex ------------------------------------------------------------------------------------- */

/* State of reading hex: separators and 0x may stand between bytes, never within one. */
struct dec_hex {
	struct dec_bytes bytes;
	const char *source; /* for messages */
	size_t line, column;
	int high;     /* the first digit of a byte, or -1 */
	int previous; /* the character before, or 0 */
};

static int dec_digit(int c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Complain about the place where `h` stands. */
static int dec_hex_complain(const struct dec_hex *h, const char *what)
{
	return dec_complain("%s, line %zu, column %zu: %s; expected bytes of two hexadecimal "
			    "digits, with spaces, ':', ',', '-' or 0x between them",
			    h->source, h->line, h->column, what);
}

/* Take one character. Returns 0 or the exit status, having complained. */
static int dec_hex_take(struct dec_hex *h, int c)
{
	int digit = dec_digit(c), previous = h->previous;
	char what[32];

	h->previous = c;
	h->column++;
	if (digit >= 0 && h->high >= 0) {
		dec_push(&h->bytes, (uint8_t)(h->high << 4 | digit));
		h->high = -1;
	} else if (digit >= 0) {
		h->high = digit;
	} else if ((c == 'x' || c == 'X') && previous == '0' && h->high == 0) {
		h->high = -1; /* that 0 began a prefix */
	} else if (c && strchr(" \t\r\n:,-", c)) {
		if (h->high >= 0)
			return dec_hex_complain(h, "a byte of one digit");
		if (c == '\n') {
			h->line++;
			h->column = 0;
		}
	} else {
		snprintf(what, sizeof(what), c >= 0x20 && c < 0x7f ? "'%c'" : "byte 0x%02x", c);
		return dec_hex_complain(h, what);
	}
	return 0;
}

/* Read all arguments, or standard input when there are none or "-". Returns the exit status. */
static int dec_from_hex(const struct dec_options *o, char **args)
{
	struct dec_hex h = {.high = -1, .line = 1};
	bool from_stdin = !args[0] || (strcmp(args[0], "-") == 0 && !args[1]);
	int err = 0, c;

	h.source = from_stdin ? "standard input" : "argument 1";
	if (from_stdin) {
		while (!err && (c = getchar()) != EOF)
			err = dec_hex_take(&h, c);
		if (!err && ferror(stdin))
			err = dec_complain("standard input: %s", strerror(errno));
	}
	for (int i = 0; !from_stdin && !err && args[i]; i++) {
		char source[32];

		snprintf(source, sizeof(source), "argument %d", i + 1);
		h.source = source;
		h.line = 1;
		h.column = 0;
		for (const char *p = args[i]; !err && *p; p++)
			err = dec_hex_take(&h, (unsigned char)*p);
		if (!err && h.high >= 0)
			err = dec_hex_complain(&h, "a byte of one digit");
		h.previous = 0;
	}
	h.source = from_stdin ? "standard input" : "the arguments";
	if (!err && h.high >= 0)
		err = dec_hex_complain(&h, "a byte of one digit");
	if (!err)
		err = dec_emit_all(o, &h.bytes, h.source);
	free(h.bytes.data);
	return err;
}

/* --- raw bytes ------------------------------------------------------------------------------- */

/* Read a file of headers. Returns the exit status. */
static int dec_from_raw(const struct dec_options *o)
{
	bool from_stdin = strcmp(o->raw, "-") == 0;
	FILE *f = from_stdin ? stdin : fopen(o->raw, "rb");
	struct dec_bytes b = {0};
	int err = 0, c;

	if (!f)
		return dec_complain("%s: %s", o->raw, strerror(errno));
	while ((c = getc(f)) != EOF)
		dec_push(&b, (uint8_t)c);
	if (ferror(f))
		err = dec_complain("%s: %s", o->raw, strerror(errno));
	if (!err)
		err = dec_emit_all(o, &b, from_stdin ? "standard input" : o->raw);
	if (!from_stdin)
		fclose(f);
	free(b.data);
	return err;
}

/* --- capture files --------------------------------------------------------------------------- */

/* Print packet number `number`. Returns the exit status. */
static int dec_packet(const struct dec_options *o, uint64_t number, const struct pcap_pkthdr *ph,
		      const uint8_t *data)
{
	char title[128], members[128], when[32];
	uint32_t frame;

	if (ph->caplen < PD_SIDECAR_BYTES || ph->len < PD_SIDECAR_BYTES)
		return dec_complain("%s: packet %llu: %u bytes captured, expected at least the %d "
				    "of a header",
				    o->pcap, (unsigned long long)number, ph->caplen,
				    PD_SIDECAR_BYTES);
	frame = ph->len - PD_SIDECAR_BYTES;
	snprintf(when, sizeof(when), "%lld.%09ld", (long long)ph->ts.tv_sec, (long)ph->ts.tv_usec);
	snprintf(title, sizeof(title), "packet %llu, captured at %s, frame of %u bytes\n",
		 (unsigned long long)number, when, frame);
	snprintf(members, sizeof(members),
		 "\"packet\":%llu,\"captured\":\"%s\",\"frame_bytes\":%u,",
		 (unsigned long long)number, when, frame);
	dec_emit(o, data, title, members);
	return 0;
}

/* Read a pcap or pcapng file. Short packets are complained about and passed over. Returns the exit
 * status. */
static int dec_from_pcap(const struct dec_options *o)
{
	char err_text[PCAP_ERRBUF_SIZE] = "";
	pcap_t *p = pcap_open_offline_with_tstamp_precision(o->pcap, PCAP_TSTAMP_PRECISION_NANO,
							    err_text);
	struct pcap_pkthdr *ph;
	const uint8_t *data;
	uint64_t number = 0;
	int err = 0, got, link;

	if (!p)
		return dec_complain("%s", err_text);
	link = pcap_datalink(p);
	if (link != DLT_USER0 && !o->inline_header) {
		const char *name = pcap_datalink_val_to_name(link);

		err = dec_complain(
			"%s: link type %s (%d), expected USER0 (147); --inline says that "
			"each packet starts with a header",
			o->pcap, name ? name : "unknown", link);
		pcap_close(p);
		return err;
	}
	while ((got = pcap_next_ex(p, &ph, &data)) == 1) {
		int packet_err = dec_packet(o, ++number, ph, data);

		if (packet_err)
			err = packet_err;
		if (o->first)
			break;
	}
	if (got == PCAP_ERROR)
		err = dec_complain("%s: after packet %llu: %s", o->pcap, (unsigned long long)number,
				   pcap_geterr(p));
	pcap_close(p);
	return err;
}

/* --- command line ---------------------------------------------------------------------------- */

static void dec_help(void)
{
	puts("Usage: palladium_decode [OPTION]... [HEX]...\n"
	     "Print 48-byte sidecar headers in words. HEX is taken from standard input when "
	     "absent\n"
	     "or -, may hold several headers, and may have spaces, ':', ',', '-' and 0x between "
	     "bytes.\n"
	     "\n"
	     "  -r, --raw FILE         read headers as bytes, back to back\n"
	     "  -p, --pcap FILE        read a pcap or pcapng file, link type USER0 (147)\n"
	     "  -i, --inline           packets start with a header whatever the link type\n"
	     "  -1, --first            one header only; ignore what follows it\n"
	     "  -t, --text             text (default)\n"
	     "  -j, --json             one JSON object per header, one per line\n"
	     "  -u, --unit NAME=WORD   what the header's values are in, separated by commas:");
	for (int of = 0; of < PD_UNIT_COUNT; of++) {
		const char *const *words = pd_unit_words((enum pd_unit_of)of);

		printf("                           %s=", pd_unit_name((enum pd_unit_of)of));
		for (int i = 0; words[i]; i++)
			printf("%s%s", i ? "|" : "", words[i]);
		puts("");
	}
	puts("  -h, --help             this text\n"
	     "  -V, --version          the version\n"
	     "\n"
	     "FILE may be - for standard input. Exit status: 0 all printed, 1 bad input, 2 wrong "
	     "usage.");
}

/* Say what is wrong with the command line. Returns DEC_EXIT_USAGE. */
static int dec_usage(const char *what)
{
	fprintf(stderr, "palladium_decode: %s\nTry 'palladium_decode --help'.\n", what);
	return DEC_EXIT_USAGE;
}

/* Read the options. Returns -1 to go on, or the exit status. */
static int dec_options_parse(struct dec_options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{"raw", required_argument, NULL, 'r'},
		{"pcap", required_argument, NULL, 'p'},
		{"inline", no_argument, NULL, 'i'},
		{"first", no_argument, NULL, '1'},
		{"text", no_argument, NULL, 't'},
		{"json", no_argument, NULL, 'j'},
		{"unit", required_argument, NULL, 'u'},
		{"units", required_argument, NULL, 'u'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	char why[512];
	int c;

	while ((c = getopt_long(argc, argv, "r:p:i1tju:hV", options, NULL)) != -1) {
		switch (c) {
		case 'r':
			o->raw = optarg;
			break;
		case 'p':
			o->pcap = optarg;
			break;
		case 'i':
			o->inline_header = true;
			break;
		case '1':
			o->first = true;
			break;
		case 't':
			o->format = PD_RENDER_TEXT;
			break;
		case 'j':
			o->format = PD_RENDER_JSON;
			break;
		case 'u':
			if (pd_units_parse(&o->units, optarg, why, sizeof(why)) < 0)
				return dec_usage(why);
			break;
		case 'h':
			dec_help();
			return 0;
		case 'V':
			puts("palladium_decode " PACKAGE_VERSION);
			return 0;
		default:
			fputs("Try 'palladium_decode --help'.\n", stderr);
			return DEC_EXIT_USAGE;
		}
	}
	if (!!o->raw + !!o->pcap + (optind < argc) > 1)
		return dec_usage("one source at a time: HEX, --raw or --pcap");
	if (o->inline_header && !o->pcap)
		return dec_usage("--inline goes with --pcap");
	return -1;
}

int main(int argc, char **argv)
{
	struct dec_options o = {.format = PD_RENDER_TEXT};
	int status = dec_options_parse(&o, argc, argv);

	if (status < 0) {
		if (o.raw)
			status = dec_from_raw(&o);
		else if (o.pcap)
			status = dec_from_pcap(&o);
		else
			status = dec_from_hex(&o, argv + optind);
	}
	if (fflush(stdout) != 0 || ferror(stdout))
		status = dec_complain("standard output: %s", strerror(errno));
	return status;
}
