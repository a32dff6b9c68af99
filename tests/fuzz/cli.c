/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What users and their clients type at the debug CLI: lines of commands with macros in them,
 * telnet's own bytes, questions about the rules; and the capture files that streams are made from.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/telnet.h"
#include "config/config.h"
#include "fuzz.h"
#include "vlib/generator.h"
#include "vlib/pcap.h"
#include "vlib/progress.h"

static const char *const kinds[] = {"lines", "telnet", "questions", "captures"};

/* The commands that a program has. */
static const char *const *const has[] = {
	(const char *const[]){&pd_cli_has_engines, &pd_cli_has_generator, &pd_cli_has_graph,
			      &pd_cli_has_plugins, &pd_cli_has_process, &pd_cli_has_trace}};

/* --- lines --------------------------------------------------------------------------------- */

static char capture_path[32];

/* A line, without a file to write to. */
static void any_line(char *line)
{
	static const char *words[] = {"show ",
				      "sh ",
				      "errors",
				      "runtime",
				      "nodes ",
				      "graph dot",
				      "buffers",
				      "plugins",
				      "config",
				      "trace ",
				      "add ",
				      "clear ",
				      "max 1",
				      "help ",
				      " json",
				      "echo ",
				      "define ",
				      "undefine ",
				      "macros",
				      "$",
				      "$(",
				      ")",
				      "\\$",
				      "a",
				      "b ",
				      "packet-generator ",
				      "new ",
				      "enable ",
				      "disable ",
				      "delete ",
				      "{ ",
				      " } ",
				      "name x ",
				      "node error-drop ",
				      "data { ",
				      "incrementing ",
				      "hex ",
				      "00ff ",
				      "pcap ",
				      capture_path,
				      "limit ",
				      "size ",
				      "64-128 ",
				      "rate ",
				      "worker ",
				      "interface local0 ",
				      "tx-interface ",
				      "sidecar { ",
				      "?",
				      "18446744073709551616"};

	if (one_in(3)) {
		snprintf(line, PD_CLI_LINE_BYTES,
			 "packet-generator new { name %c node error-drop data { pcap %s } limit %u "
			 "size %u-%u }",
			 'a' + (char)rnd(3), capture_path, rnd(100), rnd(200), rnd(13000));
		return;
	}
	any_text(line, 1 + rnd(one_in(16) ? PD_CLI_LINE_BYTES : 200), words, PD_ARRAY_SIZE(words));
	for (char *c = line; *c; c++)
		if (*c == '>' || *c == '\n')
			*c = ' ';
}

/* What is printed does nothing to a terminal, and ends no answer. */
static void is_printable(const char *text, size_t n, bool lines)
{
	for (size_t i = 0; i < n; i++)
		MUST((unsigned char)text[i] >= ' ' || (lines && strchr("\n\t", text[i])));
}

/* Returns whether some command was done. */
static bool lines(void)
{
	struct pd_cli_macros macros = {0};
	struct pd_cli_memory memory;
	bool good = false;
	struct pd_cli cli;

	pd_cli_memory_init(&memory, 1 << (10 + rnd(8)));
	pd_cli_init(&cli, &memory.sink, &macros);
	pd_lock(&pd_control);
	for (uint32_t n = 1 + rnd(8); n; n--) {
		char line[PD_CLI_LINE_BYTES];
		int ret;

		any_line(line);
		memory.n = 0;
		ret = pd_cli_run(&cli, line);
		MUST(ret == 0 || ret == -1);
		MUST((ret == -1) == (*cli.error != '\0'));
		MUST(!cli.command && memory.n <= memory.limit);
		is_printable(cli.error, strlen(cli.error), false);
		is_printable(memory.bytes, memory.n, true);
		good |= !ret;
	}
	pd_unlock(&pd_control);
	pd_generator_reset();
	pd_cli_macros_free(&macros);
	pd_cli_memory_free(&memory);
	return good;
}

/* --- telnet -------------------------------------------------------------------------------- */

/* One byte of a client's, which is telnet's own often. */
static uint8_t any_byte(void)
{
	static const uint8_t own[] = {255, 255, 251, 252, 253, 254, 250, 240, '\r', 0, '\n'};

	return one_in(2) ? own[rnd(sizeof(own))] : (uint8_t)rnd(256);
}

/* However what a client says is cut, it is the same. */
static bool telnet(void)
{
	struct pd_telnet_in whole = {0}, cut = {0};
	struct pd_cli_memory replies, others;
	uint8_t said[256];
	char one[256], two[256];
	size_t n = rnd(sizeof(said)), left, at = 0;

	for (size_t i = 0; i < n; i++)
		said[i] = any_byte();
	pd_cli_memory_init(&replies, 1 << 10);
	pd_cli_memory_init(&others, 1 << 10);
	memcpy(one, said, n);
	left = pd_telnet_filter(&whole, one, n, &replies.sink);
	MUST(left <= n && !(replies.n % 3) && replies.n <= n);
	for (size_t i = 0; i < n;) {
		size_t piece = 1 + rnd(8);

		piece = piece > n - i ? n - i : piece;
		memcpy(two + at, said + i, piece);
		at += pd_telnet_filter(&cut, two + at, piece, &others.sink);
		i += piece;
	}
	MUST(at == left && !memcmp(one, two, left));
	MUST(others.n == replies.n &&
	     (!others.n || !memcmp(others.bytes, replies.bytes, others.n)));
	pd_cli_memory_free(&replies);
	pd_cli_memory_free(&others);
	return left;
}

/* --- questions ----------------------------------------------------------------------------- */

/* An end of a socket, to `to` of `room` bytes; returns its length. */
static size_t any_end(char *to, size_t room)
{
	static const char *const addresses[] = {"10.0.0.1", "[fd00::1]", "[::ffff:10.0.0.1]",
						"0.0.0.0"};

	return (size_t)snprintf(to, room, "%s:%u", addresses[rnd(4)], rnd(65536) + rnd(2));
}

/* A question in which all is right, but for one byte at times. */
static void any_question(char *to, size_t room)
{
	enum pd_conf_role role = (enum pd_conf_role)rnd(PD_ROLE_COUNT);
	size_t n = (size_t)snprintf(to, room, "%s ", pd_conf_role_name(role));

	if (role == PD_ROLE_PACKET)
		snprintf(to + n, room - n, "pd%u:%#x", rnd(3), 0x600 + rnd(100));
	else
		n += any_end(to + n, room - n);
	if ((role == PD_ROLE_TCP_CLIENT || role == PD_ROLE_UDP_CONNECT) && one_in(2)) {
		to[n++] = ':';
		any_end(to + n, room - n);
	}
	if (rarely(4))
		to[rnd((uint32_t)strlen(to))] = (char)(1 + rnd(255));
}

/* What is understood is answered, of what is not it is said why. */
static bool questions(void)
{
	static const char *const words[] = {
		"tcp_server ", "tcp_client ", "udp_sender ", "packet ", "pd0",
		":lldp",       "10.0.0.1",    "[fd00::1]",   ":",       "80",
		"*",           "/8",          "-90",         "#",       "\n"};
	struct pd_conf_decision decision;
	struct pd_conf_question q;
	struct pd_config *cfg;
	char text[600], error[128];
	int ret;

	if (one_in(2))
		any_question(text, sizeof(text));
	else
		any_text(text, sizeof(text), words, PD_ARRAY_SIZE(words));
	ret = pd_conf_question_read(text, &q, error, sizeof(error));
	MUST(ret == 0 || ret == -EINVAL);
	MUST((ret == 0) == (*error == '\0'));
	is_printable(error, strlen(error), false);
	if (ret)
		return false;
	MUST(memchr(q.port_name, 0, sizeof(q.port_name)));
	cfg = pd_config_new();
	if (cfg)
		pd_conf_decide(cfg, "fuzz", "", &q, &decision);
	MUST(!cfg || (decision.use == PD_USE_PALLADIUM && !decision.rule));
	pd_config_free(cfg);
	return true;
}

/* --- captures ------------------------------------------------------------------------------ */

/* A capture file of some frames, in either order of bytes. Returns its length. */
static size_t any_capture(uint8_t *to, size_t room)
{
	uint32_t head[6] = {one_in(2) ? 0xa1b2c3d4 : 0xa1b23c4d, 0x00040002, 0, 0, 65535, 1};
	bool swapped = one_in(2);
	size_t n = sizeof(head);

	if (rarely(8))
		head[rnd(6)] = rnd(UINT32_MAX);
	for (unsigned i = 0; swapped && i < 6; i++)
		head[i] = __builtin_bswap32(head[i]);
	memcpy(to, head, n);
	for (uint32_t frames = rnd(5); frames; frames--) {
		uint32_t bytes = rnd(one_in(8) ? 2000 : 100);
		uint32_t record[4] = {rnd(65536), rnd(1000000), bytes, bytes + rnd(2)};

		if (n + sizeof(record) + bytes > room)
			break;
		if (rarely(8))
			record[rnd(4)] = rnd(UINT32_MAX);
		for (unsigned i = 0; swapped && i < 4; i++)
			record[i] = __builtin_bswap32(record[i]);
		memcpy(to + n, record, sizeof(record));
		memset(to + n + sizeof(record), (int)rnd(256), bytes);
		n += sizeof(record) + bytes;
	}
	return rarely(4) ? rnd((uint32_t)n + 1) : n;
}

/* Returns whether it was read to its end. */
static bool captures(void)
{
	static uint8_t bytes[16384];
	size_t n = any_capture(bytes, sizeof(bytes)), frames = 0;
	uint8_t *copy = malloc(n + !n); /* that ends where its memory does */
	struct pd_pcap_frame frame;
	struct pd_pcap pcap;
	int ret;

	MUST(copy);
	memcpy(copy, bytes, n);
	ret = pd_pcap_open(&pcap, copy, n);
	MUST(ret == 0 || ret == -EINVAL || ret == -EOPNOTSUPP);
	while (!ret && (ret = pd_pcap_next(&pcap, &frame)) == 1) {
		MUST(frame.bytes >= copy && frame.captured <= copy + n - frame.bytes);
		fuzz_read(frame.bytes, frame.captured);
		MUST(++frames <= n / 16);
		ret = 0;
	}
	MUST(ret == 0 || ret == -EINVAL || ret == -EOPNOTSUPP);
	free(copy);
	return !ret;
}

static bool run(unsigned kind)
{
	static bool (*const runs[])(void) = {lines, telnet, questions, captures};

	return runs[kind]();
}

/* A capture that lines may name. */
static void prepare(void)
{
	static const uint32_t file[] = {0xa1b2c3d4, 0x00040002, 0,  0, 65535, 1, 0,
					0,          16,         16, 1, 2,     3, 4};
	int fd = memfd_create("capture", MFD_CLOEXEC);

	MUST(fd >= 0 && **has && write(fd, file, sizeof(file)) == sizeof(file));
	snprintf(capture_path, sizeof(capture_path), "/proc/self/fd/%d ", fd);
}

const struct fuzz_target fuzz_target = {
	.name = "cli",
	FUZZ_KINDS(kinds),
	.good = "understood",
	.seeds = 2000,
	.prepare = prepare,
	.run = run,
};
