/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sidecar, and the headers that carry it over a ring.
 *
 * struct pd_sidecar is the library's one form of the 48 bytes: the layout of palladium_extra.h,
 * which is also the wire's in the avip dialect. A dialect is a way to lay the sidecar out in front
 * of a frame; the ring writes and reads it there (virtio/device.h). Its name and the features that
 * it forbids stand in the table of dialect.c.
 *
 * All 48 bytes are carried as they are. The one field that a ring owns is mrg_num_buffers: a device
 * writes the true count, a driver 0, and nothing else of the header is changed in either direction.
 * Some peers write their count at offset 10, as in a virtio header, over bits 56 to 63 of
 * metadata_type: no flag stands there, so nothing is decided by them.
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

/* --- control path: the table of dialects ---------------------------------------------------- */

struct pd_dialect_ops {
	const char *name;
	bool carries_sidecar;
	uint64_t features_refused; /* virtio feature bits that are not offered beside this header */
};

/* The row of a dialect; never NULL for a number below PD_DIALECT_COUNT. */
const struct pd_dialect_ops *pd_dialect_ops(enum pd_dialect dialect);

/* The dialect of a name, or -EINVAL. */
int pd_dialect_parse(const char *name);

/* The name of bit `bit` of metadata_type ("IFG"), or NULL. */
const char *pd_sidecar_flag_name(unsigned bit);

/* The flag of a name ("IFG"), or 0. */
uint64_t pd_sidecar_flag_parse(const char *name);

#endif /* PD_METADATA_SIDECAR_H */
