/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The configuration: ports and rules, from libpalladium.conf and PALLADIUM_PORTS.
 *
 * pd_config_load reads both once, on the control path. What it returns is never written again, so
 * any thread may read it without a lock until pd_config_free. A mistake never stops the reading: it
 * is handed to a callback as file:line:column with what was expected, and the default stands.
 *
 * The other names here (parse, read, finish) are the steps of pd_config_load, for tests and tools
 * that collect diagnostics instead of logging them.
 */
#ifndef PD_CONFIG_CONFIG_H
#define PD_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

#define PD_CONF_PORTS_MAX 64
#define PD_CONF_NAME_MAX 16 /* IFNAMSIZ: the terminating NUL included */
#define PD_CONF_TRANSPORT_MAX 16
#define PD_CONF_PATH_MAX 108 /* sizeof(sockaddr_un.sun_path) */
#define PD_CONF_PEER_MAX 64
#define PD_CONF_ADDRESSES_MAX 16
#define PD_CONF_OPTIONS_MAX 8
#define PD_CONF_OPTION_KEY_MAX 24
#define PD_CONF_OPTION_TEXT_MAX 104
#define PD_CONF_QUEUES_MAX 10
#define PD_CONF_RING_MIN 2
#define PD_CONF_RING_MAX 32768
#define PD_CONF_RING_DEFAULT 256
#define PD_CONF_MTU_MIN 68
#define PD_CONF_MTU_DEFAULT 1500
#define PD_CONF_MTU_MAX 12226 /* MTU + 14 octets of Ethernet header <= 12,240 */
#define PD_CONF_FILE_BYTES_MAX (1u << 20)
/* Where a user puts the file, wherever the library is installed. */
#define PD_CONF_ETC_FILE "/etc/libpalladium.conf"

enum pd_conf_mode {
	PD_CONF_MODE_CONNECT,
	PD_CONF_MODE_LISTEN,
};

enum pd_conf_side {
	PD_CONF_BACKEND,
	PD_CONF_FRONTEND,
};

/* Same values as metadata's enum pd_dialect; sock/ asserts it. */
enum pd_conf_dialect {
	PD_CONF_DIALECT_AVIP,
	PD_CONF_DIALECT_VIRTIO,
};

/* What decides the queue of a frame that is sent. */
enum pd_conf_steer {
	PD_CONF_STEER_AUTO, /* pfc where frames carry a sidecar, else flow */
	PD_CONF_STEER_PFC,
	PD_CONF_STEER_FLOW,
};

/* Which of the two ring formats of virtio a vhost-user port agrees to. */
enum pd_conf_format {
	PD_CONF_FORMAT_AUTO,
	PD_CONF_FORMAT_SPLIT,
	PD_CONF_FORMAT_PACKED,
	PD_CONF_FORMATS
};

/* What the peer of a port without sidecars may leave open, and it to the peer. */
enum pd_conf_offloads {
	PD_CONF_OFFLOADS_NONE,
	PD_CONF_OFFLOADS_CSUM, /* checksums */
	PD_CONF_OFFLOADS_ALL,  /* and large TCP segments */
	PD_CONF_OFFLOADS_WORDS
};

/* Where something stands: `file` lives as long as the configuration. */
struct pd_conf_place {
	const char *file; /* a path, or "PALLADIUM_PORTS" */
	uint32_t line;    /* from 1; 0: nowhere (a port made for its partner) */
	uint32_t column;  /* from 1, in bytes */
};

struct pd_conf_address {
	uint8_t family;     /* AF_INET or AF_INET6 */
	uint8_t prefix_len; /* 0..32 or 0..128 */
	uint8_t addr[16];   /* network order; IPv4 in the first four */
};

/* A key=value that belongs to one transport alone; that transport checks the value. */
struct pd_conf_option {
	char key[PD_CONF_OPTION_KEY_MAX];
	char text[PD_CONF_OPTION_TEXT_MAX];
	struct pd_conf_place place;
};

#define PD_CONF_PEERS_MAX 8
#define PD_CONF_SOCKET_MODE 0600 /* of a socket's file, unless something else is asked for */

/* Who may reach the socket of a vhost-user port. All zero is the default: the user alone. */
struct pd_conf_access {
	/* Of the file of a socket that we make; 0: PD_CONF_SOCKET_MODE. Read it by
	 * pd_conf_access_mode. */
	uint16_t mode;
	uint8_t given;             /* private to config/: which keys were read */
	bool narrowed;             /* private to config/: an owner or a group was not understood */
	bool has_owner, has_group; /* the file is given to these */
	bool peer_self;            /* the other end may run as the user that we run as, ... */
	uint32_t owner, group;
	uint32_t peer_count; /* ... or as one of these; none at all: whoever can reach the socket */
	uint32_t peers[PD_CONF_PEERS_MAX];
};

/* The mode of a socket's file. */
static inline unsigned pd_conf_access_mode(const struct pd_conf_access *access)
{
	return access->mode && !access->narrowed ? access->mode : PD_CONF_SOCKET_MODE;
}

struct pd_port_config {
	char name[PD_CONF_NAME_MAX];
	char transport[PD_CONF_TRANSPORT_MAX]; /* a name of defs/transports.def */
	char path[PD_CONF_PATH_MAX];           /* the socket of a vhost-user port, else "" */
	char peer[PD_CONF_PEER_MAX];           /* the other port of a loop pair, else "" */
	enum pd_conf_mode mode;
	enum pd_conf_side role;
	struct pd_conf_access access;
	enum pd_conf_dialect dialect;
	enum pd_conf_format format;
	bool mergeable; /* agree to frames in several receive buffers */
	bool in_order;  /* agree to VIRTIO_F_IN_ORDER */
	bool iommu;     /* agree to VIRTIO_F_ACCESS_PLATFORM */
	bool inband;    /* agree to notifications as messages */
	enum pd_conf_offloads offloads;
	uint8_t mac[6];
	bool mac_set; /* false: mac was derived from name and path, the same at every start */
	uint32_t mtu; /* octets of payload behind the 14 of the Ethernet header */
	uint32_t queues;
	enum pd_conf_steer steer;
	/* Descriptors of a ring that we make; those of a split one, or of a loop: a power of two */
	uint32_t ring;
	uint32_t address_count;
	struct pd_conf_address addresses[PD_CONF_ADDRESSES_MAX];
	struct pd_conf_address gateway4, gateway6; /* family 0: none */
	uint32_t option_count;
	struct pd_conf_option options[PD_CONF_OPTIONS_MAX];
	struct pd_conf_place place;
};

/* The order of the words is that of pd_conf_role_name. */
enum pd_conf_role {
	PD_ROLE_TCP_SERVER,   /* first: the local address it listens on */
	PD_ROLE_TCP_CLIENT,   /* first: remote, second: local */
	PD_ROLE_UDP_SENDER,   /* first: remote */
	PD_ROLE_UDP_RECEIVER, /* first: local (or the multicast group) */
	PD_ROLE_UDP_CONNECT,  /* first: remote, second: local */
	PD_ROLE_PACKET,       /* port name and ethertype */
	PD_ROLE_COUNT
};

enum pd_conf_use {
	PD_USE_OS,
	PD_USE_PALLADIUM,
};

/* One A:P of a rule. */
struct pd_conf_pattern {
	struct pd_conf_address net; /* family 0: `*`, any address of any family */
	uint16_t port_low, port_high;
};

struct pd_conf_rule {
	enum pd_conf_role role;
	enum pd_conf_use use;
	bool has_second;
	struct pd_conf_pattern first, second;
	char port_glob[PD_CONF_NAME_MAX]; /* role packet */
	uint32_t port_column;             /* role packet; where port_glob stands */
	int32_t ethertype;                /* role packet; host order, -1: any */
	struct pd_conf_place place;
};

struct pd_conf_group {
	char *program; /* glob on the program's short name */
	char *id;      /* glob on PALLADIUM_APPLICATION_ID */
	struct pd_conf_place place;
	uint32_t rule_count;
	struct pd_conf_rule *rules;
};

struct pd_config {
	uint32_t port_count;
	struct pd_port_config ports[PD_CONF_PORTS_MAX];
	uint32_t group_count;
	struct pd_conf_group *groups;
	int log_level;        /* enum pd_log_level of the file's `log` line, -1: none */
	char log_file[4096];  /* of the file's `log` line, "": standard error */
	bool log_syslog;      /* the same: the system's log */
	uint32_t error_count; /* mistakes found so far */
	uint32_t warning_count;
	uint32_t file_count; /* names that places refer to */
	char **files;
};

/* --- reading ------------------------------------------------------------------------------- */

/*
 * Read PALLADIUM_CONFIG_FILE (or the default file) and PALLADIUM_PORTS into a new configuration,
 * and log what is wrong with them. The variables must have been read (pd_vars_load). Control path.
 * The caller owns *out. Returns 0 (also when there were mistakes) or -ENOMEM; *out is written on
 * success only.
 */
int pd_config_load(struct pd_config **out);

/* Free a configuration and all that it points to; NULL is allowed. */
void pd_config_free(struct pd_config *cfg);

enum pd_conf_severity {
	PD_CONF_ERROR,   /* something was not understood; its default stands */
	PD_CONF_WARNING, /* understood, but it does less than it seems to */
	PD_CONF_DETAIL,  /* worth knowing when one looks */
};

/* Told about each mistake in turn. `place` and `text` are the caller's: copy what is kept. */
typedef void (*pd_conf_message_fn)(void *ctx, enum pd_conf_severity severity,
				   const struct pd_conf_place *place, const char *text);

/* An empty configuration, or NULL when there is no memory. */
struct pd_config *pd_config_new(void);

/*
 * Add what `text` (`len` bytes, any bytes) says to `cfg`; `name` names it in messages and is
 * copied. Returns 0 or -ENOMEM: mistakes go to `message` and are counted in cfg->error_count.
 */
int pd_config_parse(struct pd_config *cfg, const char *name, const char *text, size_t len,
		    pd_conf_message_fn message, void *ctx);

/* The same for text in the form of PALLADIUM_PORTS:
 * `pd0=vhost-user:/run/s,mode=listen;pd1=loop:pd2`. */
int pd_config_parse_ports(struct pd_config *cfg, const char *name, const char *text, size_t len,
			  pd_conf_message_fn message, void *ctx);

/* The same for the file at `path`. Returns 0, -EFBIG above 1 MiB, or what opening or reading gave.
 */
int pd_config_read_file(struct pd_config *cfg, const char *path, pd_conf_message_fn message,
			void *ctx);

/*
 * The same for the file at *path or, where that does not exist, for `other` (or NULL), which *path
 * is then.
 */
int pd_config_read_either(struct pd_config *cfg, const char **path, const char *other,
			  pd_conf_message_fn message, void *ctx);

/*
 * What can be said only at the end: makes the partners of loop ports, gives MAC addresses to ports
 * without one, and warns about ports that lack something and about groups and rules that nothing
 * can reach.
 */
void pd_config_finish(struct pd_config *cfg, pd_conf_message_fn message, void *ctx);

/* --- asking -------------------------------------------------------------------------------- */

/* The port of that name, or NULL. */
const struct pd_port_config *pd_config_port(const struct pd_config *cfg, const char *name);

/* The text of a transport's own key, or NULL. */
const char *pd_port_config_option(const struct pd_port_config *port, const char *key);

/* One end of a socket as a rule sees it. */
struct pd_conf_endpoint {
	uint8_t family; /* AF_INET or AF_INET6 */
	uint8_t addr[16];
	uint16_t port; /* host order */
};

/* A socket that rules are asked about. */
struct pd_conf_question {
	enum pd_conf_role role;
	bool has_second;                       /* else that end is not known */
	struct pd_conf_endpoint first, second; /* as in a rule of that role */
	char port_name[PD_CONF_NAME_MAX];      /* role packet */
	uint16_t ethertype;                    /* role packet; host order, ETH_P_ALL (3): all */
};

struct pd_conf_decision {
	enum pd_conf_use use;
	const struct pd_conf_group *group; /* the group that applied, or NULL */
	const struct pd_conf_rule *rule;   /* the line that decided, or NULL: no line, so offload */
};

/*
 * Who serves a socket: the first group whose globs match `program` (short name) and `app_id`, in it
 * the first line of the role that matches. Where the second end is not known, only lines without a
 * second part, or with a `*:*` there, match; all ethertypes are matched by a `*` only. Any thread,
 * no lock, no allocation.
 */
void pd_conf_decide(const struct pd_config *cfg, const char *program, const char *app_id,
		    const struct pd_conf_question *q, struct pd_conf_decision *decision);

/* NULL when the group is for the program, or the rule for the socket; else why not, in few words. */
const char *pd_conf_group_misses(const struct pd_conf_group *group, const char *program,
				 const char *app_id);
const char *pd_conf_rule_misses(const struct pd_conf_rule *rule, const struct pd_conf_question *q);

/*
 * Read a question: a rule of the file from the role on, with one address and one port for each end,
 * or one port's name. Returns 0, -EINVAL, or -ENOMEM; with -EINVAL `error` (`bytes` of it) says
 * what is wrong. Control path.
 */
int pd_conf_question_read(const char *text, struct pd_conf_question *q, char *error, size_t bytes);

#define PD_CONF_PATTERN_BYTES 72 /* the longest A:P, with its NUL */
#define PD_CONF_RULE_BYTES (2 * PD_CONF_PATTERN_BYTES + 32)

/* Write a rule as the file would have it (PD_CONF_RULE_BYTES hold any). */
void pd_conf_rule_write(const struct pd_conf_rule *rule, char *out, size_t bytes);

/* "tcp_server" ... "packet". */
const char *pd_conf_role_name(enum pd_conf_role role);

#endif /* PD_CONFIG_CONFIG_H */
