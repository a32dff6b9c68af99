/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sidecar, and the headers that carry it over a ring.
 *
 * struct pd_sidecar is the library's one form of the 48 bytes: the layout of palladium_extra.h,
 * which is also the wire's in the avip dialect. A dialect is a way to lay the sidecar out in front
 * of a frame. What a burst needs of it (encode, decode) are inline functions here: the dialect is
 * compared once, before the loop, or is a constant that the compiler folds away. What configuration
 * needs of it (name, header length, features that it forbids) stands in the table of dialect.c.
 *
 * All 48 bytes are carried as they are. The one field that a ring owns is mrg_num_buffers: encoding
 * writes the true count, and nothing else of the header is changed in either direction unless a
 * quirk asks.
 *
 * A new dialect is a number here, a row in dialect.c, and a branch in the two inline functions.
 */
#ifndef PD_METADATA_SIDECAR_H
#define PD_METADATA_SIDECAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/compiler.h"
#include "palladium_extra.h"

#define PD_SIDECAR_BYTES 48

/* Where a field of the avip layout stands: PD_SIDECAR_AT(pd.fcs). */
#define PD_SIDECAR_AT(member) offsetof(struct avip_mdata_t, member)

/* One sidecar, at any address; it may alias the byte array of a buffer's header. */
struct pd_sidecar {
	union {
		uint8_t bytes[PD_SIDECAR_BYTES];
		struct avip_mdata_t avip;
	};
} __attribute__((may_alias));
_Static_assert(sizeof(struct pd_sidecar) == PD_SIDECAR_BYTES, "48 bytes and no more");
_Static_assert(_Alignof(struct pd_sidecar) == 1, "any address will do");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "fields are read as they are on the wire");

enum pd_dialect { PD_DIALECT_AVIP, PD_DIALECT_VIRTIO, PD_DIALECT_COUNT };

/*
 * What a peer gets wrong, one bit each; a port's setting.
 *
 *   CLEAR_TOP_FLAGS    receive: the peer writes its buffer count at offset 10, over bits 56-63 of
 *                      metadata_type; clear them. Without the quirk they are delivered as they
 * came: no flag stands there, so nothing is decided by them. COUNT_AT_10        send: the peer
 * reads the buffer count at offset 10, as in a virtio header; write it there too. It destroys bits
 * 56-63 of metadata_type and the byte after them. PAD_CONTROL        send: the peer drops chains of
 * 48 bytes; give a control message one zero byte.
 */
enum pd_sidecar_quirk {
	PD_QUIRK_CLEAR_TOP_FLAGS = 1 << 0,
	PD_QUIRK_COUNT_AT_10 = 1 << 1,
	PD_QUIRK_PAD_CONTROL = 1 << 2,
};

/* The flags of metadata_type: X(name, bit). */
#define PD_SIDECAR_FLAGS(X)       \
	X(IFG, 0)                 \
	X(LATENCY, 1)             \
	X(ET, 2)                  \
	X(PORT_DISABLED, 3)       \
	X(ET_RESET, 4)            \
	X(PORT_PAUSED, 5)         \
	X(CLEARED_STATS, 6)       \
	X(TCP_OFFSET, 7)          \
	X(UDP_OFFSET, 8)          \
	X(PORT_ID, 9)             \
	X(CRC_ERROR, 10)          \
	X(CRC_OFF, 11)            \
	X(LINE_SPEED, 12)         \
	X(PORT_NAME, 13)          \
	X(PORT_REMOVED, 14)       \
	X(PREAMBLE, 15)           \
	X(FCS, 16)                \
	X(TX_DURATION, 17)        \
	X(PFC_STOPPED_QUEUES, 18) \
	X(PFC_CHANGE, 19)         \
	X(NEW_CONFIG, 20)         \
	X(FCS_MCRC, 21)           \
	X(TIMESTAMP_OFF, 22)

#define PD_SIDECAR_FLAG_CHECK(name, bit) \
	_Static_assert(PALLADIUM_##name == 1ull << (bit), "as palladium_extra.h has it");
PD_SIDECAR_FLAGS(PD_SIDECAR_FLAG_CHECK)
#undef PD_SIDECAR_FLAG_CHECK

#define PD_SIDECAR_FLAG_OR(name, bit) | 1ull << (bit)
/* Every flag that has a name. */
#define PD_SIDECAR_KNOWN_FLAGS ((uint64_t)(0 PD_SIDECAR_FLAGS(PD_SIDECAR_FLAG_OR)))

/* True when the sidecar is a control message: no frame belongs to it. */
static inline bool pd_sidecar_is_control(const struct pd_sidecar *s)
{
	return s->avip.generic_flags & IXVERIFY_ONLY_CTRL_PKT;
}

/*
 * Bytes of zeroes to put behind the header of a frame of `frame_bytes`: 1 for a control message
 * under PD_QUIRK_PAD_CONTROL, else 0.
 */
static inline uint32_t pd_sidecar_pad_bytes(uint32_t frame_bytes, unsigned quirks)
{
	return pd_unlikely(quirks & PD_QUIRK_PAD_CONTROL) && frame_bytes == 0;
}

/* The lengths of a virtio-net header: with num_buffers and without. */
#define PD_VIRTIO_HEADER_BYTES 12
#define PD_VIRTIO_HEADER_BYTES_OLD 10

/*
 * Write the header that goes in front of a frame, `header_bytes` long (what pd_dialect_header_bytes
 * gave), at `header`. `s` may be NULL for a sidecar of zeroes. `num_buffers` is the number of
 * descriptor chains that the frame takes (virtio 1.2 section 5.1.6.4). Data path.
 */
static PD_ALWAYS_INLINE void pd_sidecar_encode(enum pd_dialect dialect, void *header,
					       uint32_t header_bytes, const struct pd_sidecar *s,
					       uint16_t num_buffers, unsigned quirks)
{
	uint8_t *h = header;

	if (dialect == PD_DIALECT_AVIP) {
		if (s)
			memcpy(h, s->bytes, PD_SIDECAR_BYTES);
		else
			memset(h, 0, PD_SIDECAR_BYTES);
		memcpy(h + PD_SIDECAR_AT(mrg_num_buffers), &num_buffers, 2);
		if (pd_unlikely(quirks & PD_QUIRK_COUNT_AT_10))
			memcpy(h + 10, &num_buffers, 2);
	} else {
		memset(h, 0, header_bytes);
		if (header_bytes >= PD_VIRTIO_HEADER_BYTES)
			memcpy(h + 10, &num_buffers, 2);
	}
}

/*
 * Change the count of a header that is already encoded: for a frame whose number of chains is known
 * only when it is written. Data path.
 */
static PD_ALWAYS_INLINE void pd_sidecar_set_num_buffers(enum pd_dialect dialect, void *header,
							uint32_t header_bytes, uint16_t num_buffers,
							unsigned quirks)
{
	uint8_t *h = header;

	if (dialect == PD_DIALECT_AVIP) {
		memcpy(h + PD_SIDECAR_AT(mrg_num_buffers), &num_buffers, 2);
		if (pd_unlikely(quirks & PD_QUIRK_COUNT_AT_10))
			memcpy(h + 10, &num_buffers, 2);
	} else if (header_bytes >= PD_VIRTIO_HEADER_BYTES) {
		memcpy(h + 10, &num_buffers, 2);
	}
}

/*
 * Read the sidecar from the header of a frame; `header` is the library's own copy, `header_bytes`
 * long. A virtio header has none: the sidecar is zero but for mrg_num_buffers. Data path.
 */
static PD_ALWAYS_INLINE void pd_sidecar_decode(enum pd_dialect dialect, struct pd_sidecar *s,
					       const void *header, uint32_t header_bytes,
					       unsigned quirks)
{
	const uint8_t *h = header;

	if (dialect == PD_DIALECT_AVIP) {
		memcpy(s->bytes, h, PD_SIDECAR_BYTES);
		if (pd_unlikely(quirks & PD_QUIRK_CLEAR_TOP_FLAGS))
			s->bytes[10] = 0;
	} else {
		memset(s->bytes, 0, PD_SIDECAR_BYTES);
		if (header_bytes >= PD_VIRTIO_HEADER_BYTES)
			memcpy(s->bytes + PD_SIDECAR_AT(mrg_num_buffers), h + 10, 2);
	}
}

/* --- control path: the table of dialects -------------------------------------------------------
 */

struct pd_dialect_ops {
	const char *name;
	bool carries_sidecar;
	uint64_t features_refused; /* virtio feature bits that are not offered beside this header */
	/* Bytes of the header in front of each frame under these negotiated virtio features. */
	uint32_t (*header_bytes)(uint64_t features);
	/* The inline functions above, for callers that have one frame and time for a call. */
	void (*encode)(void *header, uint32_t header_bytes, const struct pd_sidecar *s,
		       uint16_t num_buffers, unsigned quirks);
	void (*decode)(struct pd_sidecar *s, const void *header, uint32_t header_bytes,
		       unsigned quirks);
};

/* The row of a dialect; never NULL for a number below PD_DIALECT_COUNT. */
const struct pd_dialect_ops *pd_dialect_ops(enum pd_dialect dialect);

/* The dialect of a name, or -EINVAL. */
int pd_dialect_parse(const char *name);

/* Bytes of the header of `dialect` in front of each frame under `features`. */
uint32_t pd_dialect_header_bytes(enum pd_dialect dialect, uint64_t features);

/* The name of bit `bit` of metadata_type ("IFG"), or NULL. */
const char *pd_sidecar_flag_name(unsigned bit);

/* The flag of a name ("IFG"), or 0. */
uint64_t pd_sidecar_flag_parse(const char *name);

#endif /* PD_METADATA_SIDECAR_H */
