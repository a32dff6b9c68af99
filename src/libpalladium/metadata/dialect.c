/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of dialects, and the names of the flags.
 *
 * Beside a 48-byte header the checksum and segmentation features cannot work: a back-end would read
 * their fields from bytes that mean something else. Hash reports are refused with them, as the
 * peers that speak avip do not know them.
 */
#include <errno.h>
#include <string.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include "metadata/sidecar.h"

#define PD_FEATURES_OFFLOAD                                                                       \
	(PD_BIT(VIRTIO_NET_F_CSUM) | PD_BIT(VIRTIO_NET_F_GUEST_CSUM) | PD_BIT(VIRTIO_NET_F_GSO) | \
	 PD_BIT(VIRTIO_NET_F_GUEST_TSO4) | PD_BIT(VIRTIO_NET_F_GUEST_TSO6) |                      \
	 PD_BIT(VIRTIO_NET_F_GUEST_ECN) | PD_BIT(VIRTIO_NET_F_GUEST_UFO) |                        \
	 PD_BIT(VIRTIO_NET_F_HOST_TSO4) | PD_BIT(VIRTIO_NET_F_HOST_TSO6) |                        \
	 PD_BIT(VIRTIO_NET_F_HOST_ECN) | PD_BIT(VIRTIO_NET_F_HOST_UFO))
/* Bits that older uapi headers do not name (virtio 1.2 section 5.1.3; USO and guest headers
 * of 1.3). */
#define PD_FEATURES_OFFLOAD_NEW (PD_BIT(54) | PD_BIT(55) | PD_BIT(56) | PD_BIT(59))
#define PD_F_HASH_REPORT 57

static const struct pd_dialect_ops pd_dialects[] = {
	[PD_DIALECT_AVIP] =
		{
			.name = "avip",
			.carries_sidecar = true,
			.features_refused = PD_FEATURES_OFFLOAD | PD_FEATURES_OFFLOAD_NEW |
					    PD_BIT(PD_F_HASH_REPORT),
		},
	[PD_DIALECT_VIRTIO] =
		{
			.name = "virtio",
			.features_refused = PD_BIT(PD_F_HASH_REPORT),
		},
};
_Static_assert(PD_ARRAY_SIZE(pd_dialects) == PD_DIALECT_COUNT, "one row per dialect");

const struct pd_dialect_ops *pd_dialect_ops(enum pd_dialect dialect)
{
	return &pd_dialects[dialect];
}

int pd_dialect_parse(const char *name)
{
	for (int i = 0; i < PD_DIALECT_COUNT; i++) {
		if (strcmp(pd_dialects[i].name, name) == 0)
			return i;
	}
	return -EINVAL;
}

#define PD_FLAG_NAME(name, bit) [bit] = #name,
static const char *const pd_flag_names[] = {PD_SIDECAR_FLAGS(PD_FLAG_NAME)};

const char *pd_sidecar_flag_name(unsigned bit)
{
	return bit < PD_ARRAY_SIZE(pd_flag_names) ? pd_flag_names[bit] : NULL;
}

uint64_t pd_sidecar_flag_parse(const char *name)
{
	for (unsigned i = 0; i < PD_ARRAY_SIZE(pd_flag_names); i++) {
		if (pd_flag_names[i] && strcmp(pd_flag_names[i], name) == 0)
			return 1ull << i;
	}
	return 0;
}
