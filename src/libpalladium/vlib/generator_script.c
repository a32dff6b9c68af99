/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The text that streams are made from (the language in generator.h).
 *
 * Words are divided by blanks; a brace is a word wherever it stands. One function per word of a
 * stream reads what follows it. The first mistake is written down with the place where it stands,
 * and ends the reading.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/sys.h"
#include "vlib/generator.h"
#include "vlib/pcap.h"
#include "vlib/worker.h"

/* The longest word: a file's name, or octets without a blank. */
#define PD_SCRIPT_WORD_BYTES 4096

struct pd_script {
	const char *file, *at, *end;
	unsigned line, word_line; /* of what comes next; of the last word */
	const struct pd_stream_names *names;
	char *error;
	size_t error_size;
	char word[PD_SCRIPT_WORD_BYTES]; /* the last one read; empty at the end */
};

/* Write down why it fails, at the last word. Returns `err`. */
static PD_PRINTF(3, 4) int pd_script_fail(struct pd_script *p, int err, const char *fmt, ...)
{
	va_list args;
	int n = 0;

	if (p->file)
		n = snprintf(p->error, p->error_size, "%s:%u: ", p->file, p->word_line);
	va_start(args, fmt);
	if (n >= 0 && (size_t)n < p->error_size)
		vsnprintf(p->error + n, p->error_size - (size_t)n, fmt, args);
	va_end(args);
	return err;
}

/* Skip blanks and comments. */
static void pd_script_skip(struct pd_script *p)
{
	while (p->at < p->end) {
		if (*p->at == '#')
			while (p->at < p->end && *p->at != '\n')
				p->at++;
		else if (!isspace((unsigned char)*p->at))
			return;
		else if (*p->at++ == '\n')
			p->line++;
	}
}

/* Read the next word; at the end it is empty. Returns 0 or -EINVAL. */
static int pd_script_word(struct pd_script *p)
{
	size_t n = 0;

	pd_script_skip(p);
	p->word_line = p->line;
	while (p->at < p->end && !isspace((unsigned char)*p->at)) {
		bool brace = *p->at == '{' || *p->at == '}';

		if (brace && n)
			break;
		if (n + 1 == sizeof(p->word) || !*p->at) {
			p->word[0] = 0;
			return pd_script_fail(p, -EINVAL, "%s",
					      *p->at ? "a word is too long" : "a byte is zero");
		}
		p->word[n++] = *p->at++;
		if (brace)
			break;
	}
	p->word[n] = 0;
	return 0;
}

/* Whether the last word is `text`. */
static bool pd_script_is(const struct pd_script *p, const char *text)
{
	return !strcmp(p->word, text);
}

/* The last word, for a message. */
static const char *pd_script_found(const struct pd_script *p)
{
	return *p->word ? p->word : "the end";
}

/* Read the next word, which must be `text`. Returns 0 or -EINVAL. */
static int pd_script_expect(struct pd_script *p, const char *text)
{
	int ret = pd_script_word(p);

	if (ret || pd_script_is(p, text))
		return ret;
	return pd_script_fail(p, -EINVAL, "expected '%s', found %.64s", text, pd_script_found(p));
}

/* Read digits at `text` into *value; up to `max`. Returns what follows them, or NULL. */
static const char *pd_script_digits(const char *text, uint64_t max, uint64_t *value)
{
	const char *at = text;

	for (*value = 0; *at >= '0' && *at <= '9'; at++) {
		unsigned digit = (unsigned)(*at - '0');

		if (digit > max || *value > (max - digit) / 10)
			return NULL;
		*value = *value * 10 + digit;
	}
	return at == text ? NULL : at;
}

/* Read a number up to `max` for the word `what`. Returns 0 or -EINVAL. */
static int pd_script_number(struct pd_script *p, const char *what, uint64_t max, uint64_t *value)
{
	int ret = pd_script_word(p);
	const char *rest;

	if (ret)
		return ret;
	rest = pd_script_digits(p->word, max, value);
	if (rest && !*rest)
		return 0;
	return pd_script_fail(p, -EINVAL, "%s: expected a number up to %llu, found %.64s", what,
			      (unsigned long long)max, pd_script_found(p));
}

/* Read a name of less than `size` bytes for the word `what`. Returns 0 or -EINVAL. */
static int pd_script_name(struct pd_script *p, const char *what, char *out, size_t size)
{
	int ret = pd_script_word(p);

	if (ret)
		return ret;
	if (!*p->word || pd_script_is(p, "{") || pd_script_is(p, "}"))
		return pd_script_fail(p, -EINVAL, "%s: expected a name, found %.64s", what,
				      pd_script_found(p));
	if (strlen(p->word) >= size)
		return pd_script_fail(p, -EINVAL, "%s: a name has at most %zu characters", what,
				      size - 1);
	strcpy(out, p->word);
	return 0;
}

/* --- what the frames are --------------------------------------------------------------------- */

/* Add a frame of `n` octets to the data. Returns 0 or -ENOMEM. */
static int pd_stream_add_frame(struct pd_stream_config *c, const uint8_t *bytes, uint32_t n)
{
	uint32_t begin = c->frames ? c->end[c->frames - 1] : 0;
	uint8_t *data = realloc(c->data, (size_t)begin + n + 1);
	uint32_t *end;

	if (!data)
		return -ENOMEM;
	c->data = data;
	/* Grown by doubling: at powers of two there is no room left. */
	if (!(c->frames & (c->frames - 1))) {
		end = realloc(c->end, sizeof(*end) * (c->frames ? 2ul * c->frames : 1));
		if (!end)
			return -ENOMEM;
		c->end = end;
	}
	if (n)
		memcpy(data + begin, bytes, n);
	c->end[c->frames++] = begin + n;
	return 0;
}

/* data { incrementing N }: N octets that count. */
static int pd_script_incrementing(struct pd_script *p, struct pd_stream_config *c)
{
	uint8_t bytes[PD_FRAME_MAX_BYTES] = {0};
	uint64_t n;
	int ret = pd_script_number(p, "incrementing", sizeof(bytes), &n);

	for (uint64_t i = 0; i < n && !ret; i++)
		bytes[i] = (uint8_t)i;
	return ret ? ret : pd_stream_add_frame(c, bytes, (uint32_t)n);
}

/* The value of a hexadecimal digit, or -1. */
static int pd_script_nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* data { hex 00 1122 ... }: octets up to the brace, which stays unread. */
static int pd_script_hex(struct pd_script *p, struct pd_stream_config *c)
{
	uint8_t bytes[PD_FRAME_MAX_BYTES] = {0};
	uint32_t n = 0;

	for (;;) {
		const char *before = p->at;
		unsigned line = p->line;
		int ret = pd_script_word(p);

		if (ret)
			return ret;
		if (!*p->word || pd_script_is(p, "}")) {
			p->at = before;
			p->line = line;
			return pd_stream_add_frame(c, bytes, n);
		}
		for (const char *at = p->word; *at; at += 2) {
			int high = pd_script_nibble(at[0]), low = pd_script_nibble(at[1]);

			if (high < 0 || low < 0)
				return pd_script_fail(p, -EINVAL,
						      "hex: expected pairs of digits, found %.64s",
						      p->word);
			if (n == sizeof(bytes))
				return pd_script_fail(p, -EINVAL, "hex: more than %u octets",
						      PD_FRAME_MAX_BYTES);
			bytes[n++] = (uint8_t)(high << 4 | low);
		}
	}
}

/*
 * Read the file that the last word names into memory. Returns its size with *bytes set, or -errno;
 * both are the caller's to explain.
 */
static ssize_t pd_script_read_file(const char *path, uint8_t **bytes)
{
	int fd = pd_sys_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0);
	struct stat st;
	ssize_t ret, n = 0;

	if (fd < 0)
		return fd;
	ret = pd_sys_fstat(fd, &st);
	if (!ret && !S_ISREG(st.st_mode))
		ret = -EINVAL;
	if (!ret && st.st_size > PD_STREAM_FILE_BYTES)
		ret = -EFBIG;
	*bytes = ret ? NULL : malloc((size_t)st.st_size + 1);
	if (!ret && !*bytes)
		ret = -ENOMEM;
	while (!ret && n < st.st_size) {
		ssize_t got = pd_sys_read(fd, *bytes + n, (size_t)(st.st_size - n));

		if (got <= 0) {
			ret = got;
			break;
		}
		n += got;
	}
	pd_sys_close(fd);
	if (!ret)
		return n;
	free(*bytes);
	*bytes = NULL;
	return ret;
}

/* Take the frames out of a capture file in memory. Returns 0 or -errno. */
static int pd_script_pcap_frames(struct pd_script *p, struct pd_stream_config *c,
				 const uint8_t *bytes, size_t n)
{
	struct pd_pcap_frame frame;
	struct pd_pcap pcap;
	int ret = pd_pcap_open(&pcap, bytes, n), more;

	if (ret)
		return pd_script_fail(p, ret, "%.128s: %s", p->word,
				      ret == -EINVAL ? "no capture file of the classic pcap format"
						     : "no Ethernet frames in it");
	for (;;) {
		more = pd_pcap_next(&pcap, &frame);
		if (more <= 0)
			break;
		if (frame.captured < PD_FRAME_MIN_BYTES || frame.captured > PD_FRAME_MAX_BYTES)
			return pd_script_fail(p, -EINVAL, "%.128s: frame %u has %u octets", p->word,
					      c->frames + 1, frame.captured);
		ret = pd_stream_add_frame(c, frame.bytes, frame.captured);
		if (ret)
			return pd_script_fail(p, ret, "%s", pd_strerror(ret));
	}
	if (more < 0)
		return pd_script_fail(p, more, "%.128s: cut off behind frame %u", p->word,
				      c->frames);
	if (!c->frames)
		return pd_script_fail(p, -EINVAL, "%.128s: no frame in it", p->word);
	return 0;
}

/* data { pcap FILE } */
static int pd_script_pcap(struct pd_script *p, struct pd_stream_config *c)
{
	uint8_t *bytes = NULL;
	ssize_t n;
	int ret = pd_script_word(p);

	if (ret)
		return ret;
	n = pd_script_read_file(p->word, &bytes);
	if (n < 0)
		return pd_script_fail(p, (int)n, "%.128s: %s", p->word,
				      n == -EINVAL ? "no regular file" : pd_strerror((int)n));
	ret = pd_script_pcap_frames(p, c, bytes, (size_t)n);
	free(bytes);
	return ret;
}

/* --- the words of a stream ------------------------------------------------------------------- */

static int pd_script_stream_name(struct pd_script *p, struct pd_stream_config *c)
{
	return pd_script_name(p, "name", c->name, sizeof(c->name));
}

static int pd_script_limit(struct pd_script *p, struct pd_stream_config *c)
{
	return pd_script_number(p, "limit", UINT64_MAX, &c->limit);
}

static int pd_script_rate(struct pd_script *p, struct pd_stream_config *c)
{
	return pd_script_number(p, "rate", PD_STREAM_RATE_MAX, &c->rate);
}

/* size 64-1500, or size 64 */
static int pd_script_size(struct pd_script *p, struct pd_stream_config *c)
{
	int ret = pd_script_word(p);
	uint64_t from = 0, to = 0;
	const char *rest;

	if (ret)
		return ret;
	rest = pd_script_digits(p->word, PD_FRAME_MAX_BYTES, &from);
	to = from;
	if (rest && *rest == '-')
		rest = pd_script_digits(rest + 1, PD_FRAME_MAX_BYTES, &to);
	if (!rest || *rest || from < PD_FRAME_MIN_BYTES || to < from)
		return pd_script_fail(p, -EINVAL, "size: expected %u-%u, or less, found %.64s",
				      PD_FRAME_MIN_BYTES, PD_FRAME_MAX_BYTES, pd_script_found(p));
	c->size_min = (uint32_t)from;
	c->size_max = (uint32_t)to;
	return 0;
}

/* A port for the word `what`: its name, and its index. */
static int pd_script_port(struct pd_script *p, const char *what, char *name, size_t size,
			  uint16_t *index)
{
	int ret = pd_script_name(p, what, name, size), port;

	if (ret)
		return ret;
	*index = PD_BUFFER_NO_PORT;
	if (!strcmp(name, "local0"))
		return 0;
	port = p->names && p->names->port ? p->names->port(p->names->arg, name) : -ENOENT;
	if (port < 0)
		return pd_script_fail(p, port, "%s: there is no port %s", what, name);
	*index = (uint16_t)port;
	return 0;
}

static int pd_script_interface(struct pd_script *p, struct pd_stream_config *c)
{
	return pd_script_port(p, "interface", c->interface, sizeof(c->interface), &c->rx_port);
}

static int pd_script_tx_interface(struct pd_script *p, struct pd_stream_config *c)
{
	return pd_script_port(p, "tx-interface", c->tx_interface, sizeof(c->tx_interface),
			      &c->tx_port);
}

static int pd_script_node(struct pd_script *p, struct pd_stream_config *c)
{
	int ret = pd_script_name(p, "node", c->node, sizeof(c->node));

	if (ret)
		return ret;
	ret = pd_node_may_enter(c->node);
	if (ret == -ENOENT)
		return pd_script_fail(p, ret, "node: there is no node %s", c->node);
	if (ret)
		return pd_script_fail(p, ret, "node: %s takes frames from its neighbours alone",
				      c->node);
	return 0;
}

static int pd_script_worker(struct pd_script *p, struct pd_stream_config *c)
{
	uint64_t worker;
	int ret = pd_script_number(p, "worker", PD_WORKERS_MAX, &worker);

	if (ret)
		return ret;
	if (!worker)
		return pd_script_fail(p, -EINVAL, "worker: the first is 1");
	c->worker = (unsigned)worker;
	return 0;
}

/* data { ... } */
static int pd_script_data(struct pd_script *p, struct pd_stream_config *c)
{
	int ret = pd_script_expect(p, "{");

	if (ret)
		return ret;
	if (c->frames)
		return pd_script_fail(p, -EINVAL, "data: a second one");
	ret = pd_script_word(p);
	if (!ret && pd_script_is(p, "incrementing"))
		ret = pd_script_incrementing(p, c);
	else if (!ret && pd_script_is(p, "hex"))
		ret = pd_script_hex(p, c);
	else if (!ret && pd_script_is(p, "pcap"))
		ret = pd_script_pcap(p, c);
	else if (!ret)
		ret = pd_script_fail(p, -EINVAL,
				     "data: expected incrementing, hex or pcap, found %.64s",
				     pd_script_found(p));
	return ret ? ret : pd_script_expect(p, "}");
}

/* sidecar { FIELD VALUE ... } */
static int pd_script_sidecar(struct pd_script *p, struct pd_stream_config *c)
{
	int ret = pd_script_expect(p, "{");
	char field[64];

	c->has_sidecar = true;
	while (!ret) {
		ret = pd_script_word(p);
		if (ret || pd_script_is(p, "}"))
			break;
		if (!*p->word || strlen(p->word) >= sizeof(field))
			return pd_script_fail(p, -EINVAL,
					      "sidecar: expected a field or '}', found %.64s",
					      pd_script_found(p));
		strcpy(field, p->word);
		ret = pd_script_word(p);
		if (ret)
			break;
		if (!p->names || !p->names->sidecar)
			ret = -ENOENT;
		else
			ret = p->names->sidecar(p->names->arg, field, p->word, c->sidecar);
		if (ret)
			return pd_script_fail(p, ret, "sidecar: %s %.64s: %s", field,
					      pd_script_found(p),
					      ret == -ENOENT ? "there is no such field"
							     : "the field cannot have this value");
	}
	return ret;
}

static const struct {
	const char *word;
	int (*read)(struct pd_script *p, struct pd_stream_config *c);
} pd_stream_words[] = {
	{"name", pd_script_stream_name},    {"limit", pd_script_limit},
	{"size", pd_script_size},           {"rate", pd_script_rate},
	{"interface", pd_script_interface}, {"tx-interface", pd_script_tx_interface},
	{"node", pd_script_node},           {"worker", pd_script_worker},
	{"data", pd_script_data},           {"sidecar", pd_script_sidecar},
};

/* Read the words of a stream, up to the closing brace. Returns 0 or -errno. */
static int pd_script_stream(struct pd_script *p, struct pd_stream_config *c)
{
	int ret = pd_script_expect(p, "{");

	while (!ret) {
		size_t i = 0;

		ret = pd_script_word(p);
		if (ret || pd_script_is(p, "}"))
			return ret;
		while (i < PD_ARRAY_SIZE(pd_stream_words) &&
		       !pd_script_is(p, pd_stream_words[i].word))
			i++;
		if (i == PD_ARRAY_SIZE(pd_stream_words))
			return pd_script_fail(p, -EINVAL,
					      "expected a word of a stream, found %.64s",
					      pd_script_found(p));
		ret = pd_stream_words[i].read(p, c);
	}
	return ret;
}

/* packet-generator new { ... } */
static int pd_script_new(struct pd_script *p)
{
	struct pd_stream_config c = {
		.rx_port = PD_BUFFER_NO_PORT, .tx_port = PD_BUFFER_NO_PORT, .worker = 1};
	int ret = pd_script_stream(p, &c);

	if (!ret && (!*c.name || !*c.node || !c.frames))
		ret = pd_script_fail(p, -EINVAL, "the stream has no %s",
				     !*c.name   ? "name"
				     : !*c.node ? "node"
						: "data");
	if (!ret) {
		ret = pd_stream_new(&c);
		if (ret == -EEXIST)
			pd_script_fail(p, ret, "there is a stream %s already", c.name);
		else if (ret == -EINVAL)
			pd_script_fail(p, ret, "its frames are not of %u to %u octets; say size",
				       PD_FRAME_MIN_BYTES, PD_FRAME_MAX_BYTES);
		else if (ret)
			pd_script_fail(p, ret, "%s", pd_strerror(ret));
	}
	pd_stream_config_free(&c);
	return ret;
}

/* --- commands -------------------------------------------------------------------------------- */

/* The name behind a command, if it stands in the same line; else NULL. Returns 0 or -EINVAL. */
static int pd_script_optional_name(struct pd_script *p, const char **name)
{
	const char *before = p->at;
	unsigned line = p->line;
	int ret;

	*name = NULL;
	ret = pd_script_word(p);
	if (!ret && *p->word && p->word_line == line) {
		*name = p->word;
		return 0;
	}
	p->at = before;
	p->line = p->word_line = line;
	return ret;
}

/* enable, disable or delete. */
static int pd_script_switch(struct pd_script *p, int (*fn)(const char *name), bool needs_name)
{
	const char *name;
	int ret = pd_script_optional_name(p, &name);

	if (ret)
		return ret;
	if (!name && needs_name)
		return pd_script_fail(p, -EINVAL, "which stream?");
	ret = fn(name);
	if (ret == -ENOENT && name)
		return pd_script_fail(p, ret, "there is no stream %.64s", name);
	if (ret == -ENOENT)
		return pd_script_fail(p, ret, "there is no stream");
	if (ret == -ESRCH)
		return pd_script_fail(p, ret, "the worker that is to run it is not there");
	return ret ? pd_script_fail(p, ret, "%s", pd_strerror(ret)) : 0;
}

/* One command; the first word is read. Returns 0 or -errno. */
static int pd_script_command(struct pd_script *p)
{
	int ret;

	if (!pd_script_is(p, "packet-generator"))
		return pd_script_fail(p, -EINVAL, "expected packet-generator, found %.64s",
				      p->word);
	ret = pd_script_word(p);
	if (ret)
		return ret;
	if (pd_script_is(p, "new"))
		return pd_script_new(p);
	if (pd_script_is(p, "enable"))
		return pd_script_switch(p, pd_generator_enable, false);
	if (pd_script_is(p, "disable"))
		return pd_script_switch(p, pd_generator_disable, false);
	if (pd_script_is(p, "delete"))
		return pd_script_switch(p, pd_generator_delete, true);
	return pd_script_fail(p, -EINVAL,
			      "packet-generator: expected new, enable, disable or delete, "
			      "found %.64s",
			      pd_script_found(p));
}

int pd_generator_script(const char *file, const char *text, size_t n,
			const struct pd_stream_names *names, char *error, size_t size)
{
	struct pd_script p = {.file = file,
			      .at = text,
			      .end = text + n,
			      .line = 1,
			      .word_line = 1,
			      .names = names,
			      .error = error,
			      .error_size = size};
	int ret;

	for (;;) {
		ret = pd_script_word(&p);
		if (ret || !*p.word)
			return ret;
		ret = pd_script_command(&p);
		if (ret)
			return ret;
	}
}
