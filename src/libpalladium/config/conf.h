/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Inside config/: one reading of one text, shared by the scanner, the parser and the builders.
 *
 *   conf_scanner.l   bytes -> words, with line and column; points into the text, copies nothing
 *   conf_parser.y    words -> statements; recovers at the next key, or at the end of the line
 *   conf_build.c     statements -> groups and rules; messages
 *   conf_port.c      the keys of a port
 *   conf_access.c    who may reach its socket
 *   conf_check.c     what can be said only at the end
 */
#ifndef PD_CONFIG_CONF_H
#define PD_CONFIG_CONF_H

#include <setjmp.h>
#include <sys/types.h>

#include "config/config.h"

#define PD_CONF_GROUPS_MAX 1024
#define PD_CONF_RULES_MAX 4096 /* of a group */

/* A piece of the text. */
struct pd_conf_text {
	const char *s;
	size_t len;
};

/* One reading. */
struct pd_conf_parse {
	struct pd_config *cfg;
	const char *file; /* owned by cfg */
	pd_conf_message_fn message;
	void *ctx;
	bool ports_form; /* PALLADIUM_PORTS, not a file */
	int error;       /* 0 or -ENOMEM */

	/* the scanner's */
	jmp_buf out_of_memory;
	uint32_t line, column;
	bool started, ended;
	bool open_quote;          /* the line or entry at hand has a quotation without its end */
	struct pd_conf_text last; /* the word read last */

	/* the builders' */
	struct pd_conf_place place;    /* where the statement begins */
	bool rule_bad;                 /* the line at hand had a mistake: it makes no rule */
	struct pd_port_config *port;   /* that keys apply to */
	struct pd_port_config scratch; /* for the keys of a port that is refused */
	uint32_t keys_seen;
};

/* The place of a location of the parser. */
#define pd_conf_at(p, loc)                                             \
	((struct pd_conf_place){(p)->file, (uint32_t)(loc).first_line, \
				(uint32_t)(loc).first_column})

/* Hand a message on, and count it. */
void pd_conf_say(struct pd_config *cfg, pd_conf_message_fn message, void *ctx,
		 enum pd_conf_severity severity, const struct pd_conf_place *place, const char *fmt,
		 ...) PD_PRINTF(6, 7);
#define pd_conf_error(p, place, ...) \
	pd_conf_say((p)->cfg, (p)->message, (p)->ctx, PD_CONF_ERROR, (place), __VA_ARGS__)
#define pd_conf_warn(p, place, ...) \
	pd_conf_say((p)->cfg, (p)->message, (p)->ctx, PD_CONF_WARNING, (place), __VA_ARGS__)
#define pd_conf_detail(p, place, ...) \
	pd_conf_say((p)->cfg, (p)->message, (p)->ctx, PD_CONF_DETAIL, (place), __VA_ARGS__)

/* A text as "%.*s" wants it, cut where a message would become unreadable. */
#define PD_CONF_SHOWN(t) (int)((t).len < 60 ? (t).len : 60), (t).s

/* Copy a text into an array of `size`; false when it does not fit (with its NUL) or holds a NUL. */
bool pd_conf_copy(char *out, size_t size, struct pd_conf_text text);

/* --- statements (conf_build.c) ------------------------------------------------------------- */

void pd_conf_add_group(struct pd_conf_parse *p, struct pd_conf_text program, struct pd_conf_text id,
		       struct pd_conf_place place);
void pd_conf_add_rule(struct pd_conf_parse *p, enum pd_conf_use use, enum pd_conf_role role,
		      struct pd_conf_pattern first, const struct pd_conf_pattern *second,
		      struct pd_conf_place place);
void pd_conf_add_packet_rule(struct pd_conf_parse *p, enum pd_conf_use use,
			     struct pd_conf_text what, struct pd_conf_place place,
			     struct pd_conf_place what_place);
struct pd_conf_address pd_conf_net(struct pd_conf_parse *p, struct pd_conf_text addr,
				   const struct pd_conf_text *len, struct pd_conf_place addr_place,
				   struct pd_conf_place len_place);
uint16_t pd_conf_port_number(struct pd_conf_parse *p, struct pd_conf_text text,
			     struct pd_conf_place place);
void pd_conf_port_range(struct pd_conf_parse *p, struct pd_conf_pattern *pattern, uint16_t low,
			uint16_t high, struct pd_conf_place place);
void pd_conf_log_level(struct pd_conf_parse *p, struct pd_conf_text text,
		       struct pd_conf_place place);
void pd_conf_log_file(struct pd_conf_parse *p, struct pd_conf_text text,
		      struct pd_conf_place place);

/* Read an address, with or without brackets. Returns false when it is none. */
bool pd_conf_parse_address(struct pd_conf_text text, struct pd_conf_address *out);

/* --- ports (conf_port.c) ------------------------------------------------------------------- */

/*
 * Begin a port; `transport` may be "loop:pd2". What cannot be made is said, and its keys go
 * nowhere.
 */
void pd_conf_begin_port(struct pd_conf_parse *p, struct pd_conf_text name,
			struct pd_conf_text transport, struct pd_conf_place name_place,
			struct pd_conf_place transport_place);

/* The word behind `transport:`: a path, a peer, a device. */
void pd_conf_port_argument(struct pd_conf_parse *p, struct pd_conf_text arg,
			   struct pd_conf_place place);
void pd_conf_port_key(struct pd_conf_parse *p, struct pd_conf_text key, struct pd_conf_text value,
		      struct pd_conf_place key_place, struct pd_conf_place value_place);

/*
 * The line or entry ends; the port that it made, if any, is left out when it could not be read as a
 * whole.
 */
void pd_conf_end_port(struct pd_conf_parse *p, bool whole);

/* True for what may name a port: letters, digits, '_', '-', '.', a letter first, at most 15. */
bool pd_conf_port_name_ok(struct pd_conf_text name);

/* --- who may reach a socket (conf_access.c) ------------------------------------------------ */

/* In the order of pd_conf_access_vars. */
enum pd_conf_access_key {
	PD_CONF_ACCESS_MODE,
	PD_CONF_ACCESS_OWNER,
	PD_CONF_ACCESS_GROUP,
	PD_CONF_ACCESS_PEERS,
	PD_CONF_ACCESS_KEYS
};

/* Read the value of a key. Returns NULL, or what was expected; then something narrower stands. */
const char *pd_conf_access_read(struct pd_conf_access *access, enum pd_conf_access_key key,
				struct pd_conf_text text);

/* Write what stands, as the file would have it. */
void pd_conf_access_show(const struct pd_conf_access *access, enum pd_conf_access_key key,
			 char *out, size_t size);

/* Give ports what the variables say, where they do not say it themselves. */
void pd_conf_access_finish(struct pd_config *cfg, pd_conf_message_fn message, void *ctx);

/*
 * Read a small file into new memory at *out, the caller's to free. Returns its length, or -errno;
 * -EFBIG above 1 MiB.
 */
ssize_t pd_conf_read_text(const char *path, char **out);

/* The MTU of a port that names none. */
uint32_t pd_conf_default_mtu(void);

/* The port at `name` that may be written, or NULL. */
struct pd_port_config *pd_conf_find_port(struct pd_config *cfg, struct pd_conf_text name);

/* Take `port` out of cfg->ports. */
void pd_conf_drop_port(struct pd_config *cfg, struct pd_port_config *port);

#endif /* PD_CONFIG_CONF_H */
