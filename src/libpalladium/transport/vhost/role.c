/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What both roles do: say what is wrong in words, find a ring that is, and tell what one is like.
 */
#include "transport/vhost/role.h"

#include <stdarg.h>
#include <stdio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include "base/log.h"

const char *pd_vhost_reason(struct pd_vhost_role_base *role, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(role->reason, sizeof(role->reason), fmt, ap);
	va_end(ap);
	return role->reason;
}

const char *pd_vhost_broken_ring(struct pd_vhost_role_base *role, unsigned *ring)
{
	for (unsigned i = 0; i < pd_vhost_n_rings(role); i++) {
		struct pd_vhost_lane *lane = pd_vhost_ring_lane(role, i);
		enum pd_dir dir = pd_vhost_ring_dir(role, i);
		const char *why;

		pd_vhost_lane_lock(lane, dir);
		why = pd_vhost_lane_judge(lane, dir);
		pd_vhost_lane_unlock(lane, dir);
		if (!why)
			continue;
		*ring = i;
		return pd_vhost_reason(role, "ring %u: %s", i, why);
	}
	return NULL;
}

void pd_vhost_ring_runs(const struct pd_vhost_role_base *role, unsigned i, uint32_t size,
			uint64_t features)
{
	pd_debug("vhost", "%s: ring %u runs, %u descriptors, %s%s%s", role->name, i, size,
		 pd_vq_is_packed(features) ? "packed" : "split",
		 features & PD_BIT(VIRTIO_F_IN_ORDER) ? ", in order" : "",
		 features & PD_BIT(VIRTIO_NET_F_MRG_RXBUF) ? ", mergeable" : "");
}

uint32_t pd_vhost_hdr_bytes(const struct pd_port_config *config, uint64_t features)
{
	if (config->dialect == PD_CONF_DIALECT_AVIP)
		return PD_VQ_HDR_SIDECAR;
	if (features & (PD_BIT(VIRTIO_NET_F_MRG_RXBUF) | PD_BIT(VIRTIO_F_VERSION_1)))
		return PD_VQ_HDR_NET;
	return PD_VQ_HDR_LEGACY;
}

/* Packed rings came with version 1 of virtio: there are none without it (virtio 1.2, 6 and 7.4). */
static bool is_packed_legacy(uint64_t features)
{
	return (features & PD_BIT(VIRTIO_F_RING_PACKED)) &&
	       !(features & PD_BIT(VIRTIO_F_VERSION_1));
}

/*
 * A back-end leaves the choice to the other end. A front-end takes packed rings where it can get
 * them, but not with a sidecar unless it was told to: the DPDK that was patched for sidecars offers
 * packed rings as a back-end, and loses the sidecars on them.
 */
uint64_t pd_vhost_format_features(const struct pd_port_config *config)
{
	uint64_t features = PD_BIT(VIRTIO_F_RING_PACKED);
	bool wary = config->role == PD_CONF_FRONTEND && config->dialect == PD_CONF_DIALECT_AVIP;

	if (config->format == PD_CONF_FORMAT_SPLIT ||
	    (config->format == PD_CONF_FORMAT_AUTO && wary))
		features &= ~PD_BIT(VIRTIO_F_RING_PACKED);
	if (config->mergeable)
		features |= PD_BIT(VIRTIO_NET_F_MRG_RXBUF);
	if (config->in_order)
		features |= PD_BIT(VIRTIO_F_IN_ORDER);
	if (config->iommu)
		features |= PD_BIT(VIRTIO_F_ACCESS_PLATFORM);
	return features;
}

uint64_t pd_vhost_format_choose(const struct pd_port_config *config, uint64_t features)
{
	if (config->format != PD_CONF_FORMAT_PACKED && is_packed_legacy(features))
		features &= ~PD_BIT(VIRTIO_F_RING_PACKED);
	return features;
}

uint64_t pd_vhost_offload_features(const struct pd_port_config *config)
{
	const uint64_t csum = PD_BIT(VIRTIO_NET_F_CSUM) | PD_BIT(VIRTIO_NET_F_GUEST_CSUM);
	uint64_t features = 0;

	if (config->dialect != PD_CONF_DIALECT_VIRTIO || config->offloads == PD_CONF_OFFLOADS_NONE)
		return 0;
	features = csum;
	if (config->offloads == PD_CONF_OFFLOADS_ALL)
		features |= PD_BIT(VIRTIO_NET_F_HOST_TSO4) | PD_BIT(VIRTIO_NET_F_HOST_TSO6) |
			    PD_BIT(VIRTIO_NET_F_HOST_ECN) | PD_BIT(VIRTIO_NET_F_GUEST_TSO4) |
			    PD_BIT(VIRTIO_NET_F_GUEST_TSO6) | PD_BIT(VIRTIO_NET_F_GUEST_ECN);
	return features;
}

uint8_t pd_vhost_offloads(enum pd_vhost_role role, enum pd_dir dir, uint64_t features)
{
	/* By whether the device finishes what the driver sends, or the other way round. */
	static const uint8_t bits[2][4] = {
		{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
		 VIRTIO_NET_F_GUEST_ECN},
		{VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
		 VIRTIO_NET_F_HOST_ECN},
	};
	const uint8_t *bit = bits[(role == PD_VHOST_DEVICE) == (dir == PD_RX)];
	uint8_t offloads = 0;

	if (!(features >> bit[0] & 1))
		return 0;
	for (unsigned i = 0; i < 4; i++)
		offloads |= (uint8_t)((features >> bit[i] & 1) << i);
	return offloads & PD_OFFLOAD_TSO ? offloads : PD_OFFLOAD_CSUM;
}

const char *pd_vhost_format_check(const struct pd_port_config *config, uint64_t features)
{
	if (config->format == PD_CONF_FORMAT_PACKED && !(features & PD_BIT(VIRTIO_F_RING_PACKED)))
		return "the peer's rings are split, and this port's are to be packed";
	if (is_packed_legacy(features))
		return "packed rings without VIRTIO_F_VERSION_1";
	return NULL;
}
