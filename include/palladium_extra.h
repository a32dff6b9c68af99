/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a program may know of libpalladium: the 48-byte sidecar header and the socket calls that
 * carry it.
 *
 * No program needs this header to be offloaded: sockets behave as the kernel's do. It is for
 * programs that want to see or set what travels beside a frame: inter-frame gap, emulator time,
 * latency, preamble, FCS, PFC class, and the control messages of the port.
 *
 * The sidecar is little-endian, packed, and starts at any address. The structures below show it as
 * it is on the wire; a big-endian program swaps the fields itself. C11, C++17, C++20.
 *
 * Reading and setting it on a packet socket of a port:
 *
 *     int on = 1;
 *     setsockopt(fd, SOL_PALLADIUM, PALLADIUM_RECV_METADATA, &on, sizeof(on));
 *     ... recvmsg(fd, &msg, 0);
 *     const struct avip_mdata_t *md = palladium_cmsg_get(&msg);      (NULL: none came)
 *
 *     union palladium_cmsg_buffer control;
 *     palladium_cmsg_put(&msg, &control, &metadata);
 *     ... sendmsg(fd, &msg, 0);
 *
 * On a socket that is the kernel's, the options fail with ENOPROTOOPT and the ancillary data is
 * ignored.
 */
#ifndef PALLADIUM_EXTRA_H
#define PALLADIUM_EXTRA_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- the sidecar header ----------------------------------------------------------------------- */

/*
 * The part that every header has. `mrg_num_buffers` belongs to the ring, whatever a program put
 * there: a back-end writes the number of ring buffers that the frame takes, a front-end 0, as
 * virtio wants it of drivers. A received header has what the peer wrote.
 */
struct ixverify_metadata_hdr {
	uint16_t mrg_num_buffers;
	uint8_t generic_flags;
#define IXVERIFY_ONLY_CTRL_PKT 0x1 /* in generic_flags: a control message, no frame follows */
	char reserved[45];
};

/*
 * The bits of metadata_type: which fields hold a value, and events that need none. "Ixia" is the
 * traffic tester, "Palladium" the emulator (the side this library plays); unmarked bits are set by
 * either. Bits not named here are carried unchanged in both directions.
 */
/* clang-format off */
#define PALLADIUM_IFG                0x1ull /* ifg */
#define PALLADIUM_LATENCY            0x2ull /* latency */
#define PALLADIUM_ET                 0x4ull /* emulator_time */
#define PALLADIUM_PORT_DISABLED      0x8ull
#define PALLADIUM_ET_RESET           0x10ull
#define PALLADIUM_PORT_PAUSED        0x20ull     /* Ixia -> Palladium */
#define PALLADIUM_CLEARED_STATS      0x40ull     /* Ixia -> Palladium */
#define PALLADIUM_TCP_OFFSET         0x80ull     /* Ixia -> Palladium; tcp_udp_checksum_offset */
#define PALLADIUM_UDP_OFFSET         0x100ull    /* Ixia -> Palladium; tcp_udp_checksum_offset */
#define PALLADIUM_PORT_ID            0x200ull    /* Ixia -> Palladium; port_id */
#define PALLADIUM_CRC_ERROR          0x400ull    /* Ixia -> Palladium */
#define PALLADIUM_CRC_OFF            0x800ull    /* Ixia -> Palladium */
#define PALLADIUM_LINE_SPEED         0x1000ull   /* Palladium -> Ixia; line_speed */
#define PALLADIUM_PORT_NAME          0x2000ull   /* Palladium -> Ixia; port_name */
#define PALLADIUM_PORT_REMOVED       0x4000ull   /* Ixia -> Palladium */
#define PALLADIUM_PREAMBLE           0x8000ull   /* both; preamble, preamble_size */
#define PALLADIUM_FCS                0x10000ull  /* both; fcs */
#define PALLADIUM_TX_DURATION        0x20000ull  /* Palladium -> Ixia; tx_ts */
#define PALLADIUM_PFC_STOPPED_QUEUES 0x40000ull  /* Ixia -> Palladium */
#define PALLADIUM_PFC_CHANGE         0x80000ull  /* Palladium -> Ixia */
#define PALLADIUM_NEW_CONFIG         0x100000ull /* Ixia -> Palladium; pd_config */
#define PALLADIUM_FCS_MCRC           0x200000ull /* Ixia -> Palladium */
#define PALLADIUM_TIMESTAMP_OFF      0x400000ull /* Ixia -> Palladium */

#define MAX_PFC_QUEUES               8
#define PFC_ZERO_QUANTA              0
#define PFC_INTERMEDIARY_QUANTA      1
#define PFC_MAX_QUANTA               2
#define PAUSE_ZERO_QUANTA            0
#define PAUSE_INTERMEDIARY_QUANTA    1
#define PAUSE_MAX_QUANTA             2
/* clang-format on */

/* A control message: PORT_ID, LINE_SPEED, PORT_NAME or TX_DURATION; one, for they share bytes. */
struct palladium_ctrl_metadata {
	uint64_t metadata_type;

	__extension__ union {
		struct {
			uint32_t chassis_ip;
			uint16_t card_number;
			uint16_t port_number;
		} port_id; /* Ixia -> Palladium */

		uint32_t line_speed; /* Palladium -> Ixia */
		char port_name[16];  /* Palladium -> Ixia; may lack its NUL */

		struct {
			uint64_t tx_first_ts; /* Palladium -> Ixia */
			uint64_t tx_last_ts;  /* Palladium -> Ixia */
		} tx_ts;
	};

	__extension__ union {
		uint8_t xtor_queues; /* Palladium -> Ixia */
		uint8_t ixia_queues; /* Ixia -> Palladium */
	};

	char reserved[20];
} __attribute__((packed));

/* What travels beside a frame. */
struct palladium_packet_metadata {
	uint64_t metadata_type;

	__extension__ union {
		uint64_t ifg;           /* Ixia -> Palladium */
		uint64_t emulator_time; /* Palladium -> Ixia */
	};
	uint64_t latency;
	uint8_t pfc_priority; /* Ixia -> Palladium */
	uint8_t tcp_udp_checksum_offset;

	uint8_t preamble[8];
	uint8_t preamble_size;
	uint32_t fcs;

	char reserved[6];
} __attribute__((packed));

/* A control message with NEW_CONFIG: flow control. */
struct palladium_new_config_metadata {
	uint64_t metadata_type;
	uint8_t flow_control_mode;

	struct {
		uint8_t queues;              /* bit n: queue n is mapped */
		uint8_t map[MAX_PFC_QUEUES]; /* of each queue: a bit mask of Ixia queues */
	} pfc;

	char reserved[27];
} __attribute__((packed));

/* The whole header. */
struct avip_mdata_t {
	uint16_t mrg_num_buffers;
	uint8_t generic_flags;
	__extension__ union {
		struct palladium_packet_metadata pd;
		struct palladium_ctrl_metadata pd_control;
		struct palladium_new_config_metadata pd_config;
	};
} __attribute__((packed));

/* The layout, held at compile time. */
/* clang-format off */
#ifdef __cplusplus
#	define PALLADIUM_ASSERT_(cond) static_assert(cond, #cond)
#else
#	define PALLADIUM_ASSERT_(cond) _Static_assert(cond, #cond)
#endif
/* clang-format on */
#define PALLADIUM_AT_(member, offset) \
	PALLADIUM_ASSERT_(offsetof(struct avip_mdata_t, member) == (offset))

PALLADIUM_ASSERT_(sizeof(struct ixverify_metadata_hdr) == 48);
PALLADIUM_ASSERT_(sizeof(struct palladium_ctrl_metadata) == 45);
PALLADIUM_ASSERT_(sizeof(struct palladium_packet_metadata) == 45);
PALLADIUM_ASSERT_(sizeof(struct palladium_new_config_metadata) == 45);
PALLADIUM_ASSERT_(sizeof(struct avip_mdata_t) == 48);
PALLADIUM_ASSERT_(offsetof(struct ixverify_metadata_hdr, mrg_num_buffers) == 0);
PALLADIUM_ASSERT_(offsetof(struct ixverify_metadata_hdr, generic_flags) == 2);
PALLADIUM_ASSERT_(offsetof(struct ixverify_metadata_hdr, reserved) == 3);
PALLADIUM_AT_(mrg_num_buffers, 0);
PALLADIUM_AT_(generic_flags, 2);
PALLADIUM_AT_(pd.metadata_type, 3);
PALLADIUM_AT_(pd.ifg, 11);
PALLADIUM_AT_(pd.emulator_time, 11);
PALLADIUM_AT_(pd.latency, 19);
PALLADIUM_AT_(pd.pfc_priority, 27);
PALLADIUM_AT_(pd.tcp_udp_checksum_offset, 28);
PALLADIUM_AT_(pd.preamble, 29);
PALLADIUM_AT_(pd.preamble_size, 37);
PALLADIUM_AT_(pd.fcs, 38);
PALLADIUM_AT_(pd.reserved, 42);
PALLADIUM_AT_(pd_control.metadata_type, 3);
PALLADIUM_AT_(pd_control.port_id.chassis_ip, 11);
PALLADIUM_AT_(pd_control.port_id.card_number, 15);
PALLADIUM_AT_(pd_control.port_id.port_number, 17);
PALLADIUM_AT_(pd_control.line_speed, 11);
PALLADIUM_AT_(pd_control.port_name, 11);
PALLADIUM_AT_(pd_control.tx_ts.tx_first_ts, 11);
PALLADIUM_AT_(pd_control.tx_ts.tx_last_ts, 19);
PALLADIUM_AT_(pd_control.xtor_queues, 27);
PALLADIUM_AT_(pd_control.ixia_queues, 27);
PALLADIUM_AT_(pd_control.reserved, 28);
PALLADIUM_AT_(pd_config.metadata_type, 3);
PALLADIUM_AT_(pd_config.flow_control_mode, 11);
PALLADIUM_AT_(pd_config.pfc.queues, 12);
PALLADIUM_AT_(pd_config.pfc.map, 13);
PALLADIUM_AT_(pd_config.reserved, 21);

#undef PALLADIUM_AT_
#undef PALLADIUM_ASSERT_

/* --- sockets ---------------------------------------------------------------------------------- */

/* The level of the options and of the ancillary data; no level of the kernel has this number. */
#define SOL_PALLADIUM 0x5044

/* Type of the ancillary data, both directions. Its payload is one struct avip_mdata_t. */
#define PALLADIUM_METADATA 1

/*
 * Socket options.
 *
 *   PALLADIUM_RECV_METADATA
 *     int, 0 or 1; default 0. recvmsg and recvmmsg deliver the sidecar as ancillary data.
 *
 *   PALLADIUM_DEFAULT_METADATA
 *     struct avip_mdata_t; default all zeros. Goes with frames sent without a sidecar.
 *
 *   PALLADIUM_METADATA_MODE
 *     int, PALLADIUM_MODE_CMSG or PALLADIUM_MODE_INLINE; default CMSG, or INLINE with
 *     PALLADIUM_METADATA=inline in the environment. INLINE puts the 48 bytes in front of each frame
 *     in both directions, for every call including read and write; a message shorter than 48 bytes
 *     gives EINVAL.
 *
 *   PALLADIUM_RECV_CONTROL
 *     int, 0 or 1; default 0 in CMSG mode, 1 in INLINE mode. Control messages are delivered: in CMSG
 *     mode as frames of 0 bytes with their sidecar as ancillary data, in INLINE mode as messages of
 *     48 bytes. When off they are consumed and counted.
 *
 * A control message is sent as a frame of 0 bytes (INLINE: a message of 48 bytes) whose sidecar has
 * IXVERIFY_ONLY_CTRL_PKT.
 */
#define PALLADIUM_RECV_METADATA 1
#define PALLADIUM_DEFAULT_METADATA 2
#define PALLADIUM_METADATA_MODE 3
#define PALLADIUM_RECV_CONTROL 4

#define PALLADIUM_MODE_CMSG 0
#define PALLADIUM_MODE_INLINE 1

/* Room for the ancillary data of one frame, aligned as the C library asks. */
union palladium_cmsg_buffer {
	char bytes[CMSG_SPACE(sizeof(struct avip_mdata_t))];
	struct cmsghdr align;
};

/*
 * The sidecar of a message that recvmsg filled in, or NULL when it has none. It points into the
 * message's control buffer; any address will do, for the structure is packed.
 */
static inline const struct avip_mdata_t *palladium_cmsg_get(const struct msghdr *msg)
{
	struct msghdr *m = (struct msghdr *)(uintptr_t)msg; /* CMSG_NXTHDR takes no const */
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == SOL_PALLADIUM && c->cmsg_type == PALLADIUM_METADATA &&
		    c->cmsg_len >= CMSG_LEN(sizeof(struct avip_mdata_t)))
			return (const struct avip_mdata_t *)(const void *)CMSG_DATA(c);
	}
	return NULL;
}

/*
 * Make `metadata` the one ancillary datum of `msg`, which is about to be sent. The message refers
 * to `control` until sendmsg has returned.
 */
static inline void palladium_cmsg_put(struct msghdr *msg, union palladium_cmsg_buffer *control,
				      const struct avip_mdata_t *metadata)
{
	struct cmsghdr *c = &control->align;

	memset(control, 0, sizeof(*control));
	c->cmsg_level = SOL_PALLADIUM;
	c->cmsg_type = PALLADIUM_METADATA;
	c->cmsg_len = CMSG_LEN(sizeof(*metadata));
	memcpy(CMSG_DATA(c), metadata, sizeof(*metadata));
	msg->msg_control = control;
	msg->msg_controllen = sizeof(control->bytes);
}

/* --- functions of the library ----------------------------------------------------------------- */

/*
 * A program that is preloaded need not be linked with the library. It can find these functions with
 * dlsym(RTLD_DEFAULT, "palladium_decode"), or define PALLADIUM_WEAK before it includes this header
 * (and compile with -fPIE or -fPIC, as most distributions do): without the library the names are
 * then NULL.
 *
 *     #define PALLADIUM_WEAK
 *     #include <palladium_extra.h>
 *     if (palladium_version)
 *             puts(palladium_version());
 */
#ifdef PALLADIUM_WEAK
#	define PALLADIUM_API_ __attribute__((weak))
#else
#	define PALLADIUM_API_
#endif

/* The library's version, "major.minor.patch". */
PALLADIUM_API_ const char *palladium_version(void);

/* Formats of palladium_decode: several lines and an empty one, as the program of that name prints;
 * one JSON object on one line, without a line feed. */
#define PALLADIUM_TEXT 0
#define PALLADIUM_JSON 1

/*
 * Describe the first 48 of the `len` bytes at `header` in at most `out_size` bytes at `out`, NUL
 * included. Every field whose flag is set, every flag, and every other byte that is not zero is
 * told. Returns the length of the whole description as snprintf does, so a result of `out_size` or
 * more means that it was cut; `out` may be NULL when `out_size` is 0. Returns -1 and sets errno to
 * EINVAL when `len` is below 48 or `format` is unknown. Thread-safe; allocates nothing. 4096 bytes
 * hold any description.
 */
PALLADIUM_API_ int palladium_decode(const void *header, size_t len, char *out, size_t out_size,
				    int format);

#undef PALLADIUM_API_

#ifdef __cplusplus
}
#endif

#endif /* PALLADIUM_EXTRA_H */
