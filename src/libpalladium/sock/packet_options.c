/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Options of packet sockets: SOL_SOCKET, SOL_PACKET and SOL_PALLADIUM.
 *
 * What the kernel's packet sockets accept is accepted, and read back as it was set. What cannot be
 * done on a port answers as a kernel without the feature does, so that programs fall back: classic
 * BPF filters give ENOPROTOOPT, and libpcap then filters by itself.
 */
#include <errno.h>
#include <linux/filter.h>
#include <net/if.h>
#include <string.h>
#include <sys/time.h>

#include "base/sys.h"
#include "config/vars.h"
#include "counters/counters.h"
#include "palladium_extra.h"
#include "sock/packet.h"

/* The smallest buffers the kernel lets a program ask for, already doubled. */
#define PD_RCVBUF_MIN 2304
#define PD_SNDBUF_MIN 4608

/*
 * Options that change nothing on a port, but read back as a program set them. `first` is what they
 * are before; `flag`: any value but 0 becomes 1.
 */
static const struct {
	uint16_t level, name;
	bool flag;
	int first;
} pd_plain_options[] = {
	{SOL_SOCKET, SO_BROADCAST, true, 0},
	{SOL_SOCKET, SO_KEEPALIVE, true, 0},
	{SOL_SOCKET, SO_REUSEADDR, true, 0},
	{SOL_SOCKET, SO_DONTROUTE, true, 0},
	{SOL_SOCKET, SO_OOBINLINE, true, 0},
	{SOL_SOCKET, SO_PRIORITY, false, 0},
	{SOL_SOCKET, SO_MARK, false, 0},
	{SOL_SOCKET, SO_RCVLOWAT, false, 1},
	{SOL_SOCKET, SO_BUSY_POLL, false, 0},
	{SOL_PACKET, PACKET_ORIGDEV, true, 0},
	{SOL_PACKET, PACKET_LOSS, true, 0},
	{SOL_PACKET, PACKET_QDISC_BYPASS, true, 0},
	{SOL_PACKET, PACKET_COPY_THRESH, false, 0},
	{SOL_PACKET, PACKET_RESERVE, false, 0},
};
_Static_assert(PD_ARRAY_SIZE(pd_plain_options) == PD_PACKET_PLAIN_MAX, "one value per option");

/* Where the value of a plain option stands, with *which set to its row; NULL when it is none. */
static int *pd_option_plain(struct pd_packet *s, int level, int name, unsigned *which)
{
	for (unsigned i = 0; i < PD_ARRAY_SIZE(pd_plain_options); i++) {
		if (pd_plain_options[i].level != level || pd_plain_options[i].name != name)
			continue;
		*which = i;
		return &s->plain[i];
	}
	return NULL;
}

/* Read an int option value. */
static int pd_option_int(const void *val, socklen_t len, int *out)
{
	if (len < sizeof(*out))
		return -EINVAL;
	memcpy(out, val, sizeof(*out));
	return 0;
}

/* Give `size` bytes at `src` as an option's value: as much as fits. */
static int pd_option_put(void *val, socklen_t *len, const void *src, size_t size)
{
	socklen_t n;

	if (!val || !len)
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	n = pd_min(*len, (socklen_t)size);
	memcpy(val, src, n);
	*len = n;
	return 0;
}

static int pd_option_put_int(void *val, socklen_t *len, int v)
{
	return pd_option_put(val, len, &v, sizeof(v));
}

/* SO_RCVTIMEO, SO_SNDTIMEO: a timeval, zero for none. */
static int pd_option_timeout(const void *val, socklen_t len, uint64_t *ns)
{
	struct timeval tv;

	if (len < sizeof(tv))
		return -EINVAL;
	memcpy(&tv, val, sizeof(tv));
	if (tv.tv_usec < 0 || tv.tv_usec >= 1000000)
		return -EDOM;
	if (tv.tv_sec < 0)
		*ns = 1; /* as the kernel: over at once, and read back as zero */
	else
		*ns = (uint64_t)pd_min(tv.tv_sec, (time_t)1 << 32) * PD_NS_PER_SEC +
		      (uint64_t)tv.tv_usec * PD_NS_PER_US;
	return 0;
}

static int pd_option_put_timeout(void *val, socklen_t *len, uint64_t ns)
{
	struct timeval tv = {.tv_sec = (time_t)(ns / PD_NS_PER_SEC),
			     .tv_usec = (suseconds_t)(ns % PD_NS_PER_SEC / PD_NS_PER_US)};

	return pd_option_put(val, len, &tv, sizeof(tv));
}

/* SO_BINDTODEVICE: bind by name, protocol unchanged; an empty name unbinds. */
static int pd_option_bind_device(struct pd_packet *s, const void *val, socklen_t len)
{
	struct sockaddr_ll ll = {.sll_family = AF_PACKET};
	char name[IFNAMSIZ] = "";
	struct pd_port *port;

	memcpy(name, val, pd_min((size_t)len, sizeof(name) - 1));
	if (*name) {
		port = pd_port_by_name(name);
		ll.sll_ifindex = port ? (int)port->ifindex : pd_ifquery_kernel_index(name);
		if (!ll.sll_ifindex)
			return -ENODEV;
	}
	return s->sock.ops->bind(&s->sock, (const struct sockaddr *)&ll, sizeof(ll));
}

/* Set the receive buffer: it bounds the queue. */
static void pd_option_rcvbuf(struct pd_packet *s, int bytes)
{
	s->rcvbuf = (uint32_t)pd_max(pd_min((int64_t)bytes, (int64_t)INT32_MAX / 2) * 2,
				     (int64_t)PD_RCVBUF_MIN);
	s->receive_limit_bytes = pd_max((uint64_t)s->rcvbuf, pd_vars.rx_bytes_min);
	pd_ctr_gauge(s->ctr, PD_CTR_SOCKET_RX_LIMIT_BYTES, s->receive_limit_bytes);
}

/*
 * SO_TIMESTAMPING: frames are stamped when they come in, by software. What a kernel interface
 * without a clock leaves empty stays empty here (hardware stamps). A stamp of the way out would be
 * waited for on the error queue, where none comes: unknown flags to us, and answered like those.
 */
static int pd_option_timestamping(struct pd_packet *s, const void *val, socklen_t len)
{
	const uint32_t known = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE |
			       SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE |
			       SOF_TIMESTAMPING_SYS_HARDWARE | SOF_TIMESTAMPING_OPT_CMSG;
	uint32_t flags;

	memcpy(&flags, val, sizeof(flags)); /* the caller knows that there are four bytes */
	if (flags & ~known)
		return -EINVAL;
	s->timestamping = flags;
	return 0;
}

static int pd_packet_set_socket(struct pd_packet *s, int name, const void *val, socklen_t len)
{
	int v = 0, ret;

	switch (name) {
	case SO_BINDTODEVICE:
		return pd_option_bind_device(s, val, len);
	case SO_RCVTIMEO:
		return pd_option_timeout(val, len, &s->receive_timeout_ns);
	case SO_SNDTIMEO:
		return pd_option_timeout(val, len, &s->send_timeout_ns);
	case SO_ATTACH_FILTER:
	case SO_ATTACH_BPF:
	case SO_LOCK_FILTER:
		return -ENOPROTOOPT;
	case SO_DETACH_FILTER:
		return -ENOENT;
	}
	ret = pd_option_int(val, len, &v);
	if (ret)
		return ret;
	switch (name) {
	case SO_RCVBUF:
	case SO_RCVBUFFORCE:
		pd_option_rcvbuf(s, v);
		return 0;
	case SO_SNDBUF:
	case SO_SNDBUFFORCE:
		s->sndbuf = (uint32_t)pd_max(pd_min((int64_t)v, (int64_t)INT32_MAX / 2) * 2,
					     (int64_t)PD_SNDBUF_MIN);
		return 0;
	case SO_TIMESTAMP:
	case SO_TIMESTAMPNS:
		s->timestamps = v ? (uint8_t)name : 0;
		return 0;
	case SO_TIMESTAMPING:
		return pd_option_timestamping(s, val, len);
	case SO_RXQ_OVFL:
		s->rxq_ovfl = v != 0;
		return 0;
	case SO_LINGER:
		return len < sizeof(struct linger) ? -EINVAL : 0;
	default:
		return -ENOPROTOOPT;
	}
}

static int pd_packet_set_packet(struct pd_packet *s, int name, const void *val, socklen_t len)
{
	int v = 0, ret = pd_option_int(val, len, &v);

	if (name == PACKET_STATISTICS)
		return -ENOPROTOOPT;
	if (name == PACKET_ADD_MEMBERSHIP || name == PACKET_DROP_MEMBERSHIP) {
		struct packet_mreq mreq;

		if (len < sizeof(mreq))
			return -EINVAL;
		memcpy(&mreq, val, sizeof(mreq));
		if (len < offsetof(struct packet_mreq, mr_address) + mreq.mr_alen)
			return -EINVAL;
		if (name == PACKET_DROP_MEMBERSHIP)
			return 0;
		/*
		 * A port hands up everything that its peer sends, so each membership holds already.
		 */
		if (!pd_port_by_ifindex((uint32_t)mreq.mr_ifindex))
			return -ENODEV;
		return mreq.mr_alen > ETH_ALEN ? -EINVAL : 0;
	}
	if (ret)
		return ret;
	switch (name) {
	case PACKET_AUXDATA:
		s->auxdata = v != 0;
		return 0;
	case PACKET_IGNORE_OUTGOING:
		if (v != 0 && v != 1)
			return -EINVAL;
		s->ignore_outgoing = v;
		return 0;
	case PACKET_VERSION:
		if (v < TPACKET_V1 || v > TPACKET_V3)
			return -EINVAL;
		s->packet_version = v;
		return 0;
	default:
		return -ENOPROTOOPT;
	}
}

/*
 * PACKET_VNET_HDR: a struct virtio_net_hdr in front of each frame. There is one place in front, so
 * not together with inline metadata. Takes locks of its own.
 */
static int pd_option_vnet_hdr(struct pd_packet *s, const void *val, socklen_t len)
{
	int v = 0, ret;

	if (s->type != SOCK_RAW)
		return -EINVAL;
	ret = pd_option_int(val, len, &v);
	if (ret)
		return ret;
	if (v && s->inline_mode)
		return -EINVAL;
	return pd_taps_set_vnet(s, v != 0);
}

/* The default sidecar was set: its priority is the socket's class. */
static void pd_option_classify(struct pd_packet *s)
{
	pd_store_relaxed(&s->has_class, true);
	pd_store_relaxed(&s->send_key, PD_STEER_NONE);
}

/* SO_PRIORITY: also the PFC class of what is sent without a sidecar of its own. */
static void pd_option_priority(struct pd_packet *s, int priority)
{
	pd_lock(&s->lock);
	s->default_sidecar.avip.pd.pfc_priority =
		(uint8_t)pd_min((unsigned)priority, MAX_PFC_QUEUES - 1u);
	pd_option_classify(s);
	pd_unlock(&s->lock);
}

static int pd_packet_set_palladium(struct pd_packet *s, int name, const void *val, socklen_t len)
{
	int v = 0, ret;

	if (name == PALLADIUM_DEFAULT_METADATA) {
		if (len != PD_SIDECAR_BYTES)
			return -EINVAL;
		memcpy(s->default_sidecar.bytes, val, PD_SIDECAR_BYTES);
		pd_option_classify(s);
		return 0;
	}
	ret = pd_option_int(val, len, &v);
	if (ret)
		return ret;
	switch (name) {
	case PALLADIUM_RECV_METADATA:
		s->recv_metadata = v != 0;
		return 0;
	case PALLADIUM_RECV_CONTROL:
		s->recv_control = v != 0;
		return 0;
	case PALLADIUM_METADATA_MODE:
		if (v != PALLADIUM_MODE_CMSG && v != PALLADIUM_MODE_INLINE)
			return -EINVAL;
		if (v == PALLADIUM_MODE_INLINE && s->vnet_hdr)
			return -EINVAL;
		s->inline_mode = v == PALLADIUM_MODE_INLINE;
		s->recv_control = s->inline_mode;
		return 0;
	default:
		return -ENOPROTOOPT;
	}
}

void pd_packet_options_init(struct pd_packet *s)
{
	for (unsigned i = 0; i < PD_PACKET_PLAIN_MAX; i++)
		s->plain[i] = pd_plain_options[i].first;
}

void pd_packet_options_carry(const struct pd_packet *s, int fd)
{
	const int half = (int)(s->rcvbuf / 2), on = 1;
	struct timeval tv;
	socklen_t len = sizeof(tv);

	for (unsigned i = 0; i < PD_PACKET_PLAIN_MAX; i++)
		if (s->plain[i] != pd_plain_options[i].first)
			pd_sys_setsockopt(fd, pd_plain_options[i].level, pd_plain_options[i].name,
					  &s->plain[i], sizeof(s->plain[i]));
	pd_sys_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &half, sizeof(half));
	if (!pd_option_put_timeout(&tv, &len, s->receive_timeout_ns))
		pd_sys_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	if (!pd_option_put_timeout(&tv, &len, s->send_timeout_ns))
		pd_sys_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (s->timestamps)
		pd_sys_setsockopt(fd, SOL_SOCKET, s->timestamps, &on, sizeof(on));
	if (s->auxdata)
		pd_sys_setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on));
	if (s->ignore_outgoing)
		pd_sys_setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
	if (s->rxq_ovfl)
		pd_sys_setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof(on));
	if (s->timestamping)
		pd_sys_setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &s->timestamping,
				  sizeof(s->timestamping));
	if (s->vnet_hdr)
		pd_sys_setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on));
	if (s->packet_version)
		pd_sys_setsockopt(fd, SOL_PACKET, PACKET_VERSION, &s->packet_version,
				  sizeof(s->packet_version));
}

int pd_packet_setsockopt(struct pd_sock *sk, int level, int name, const void *val, socklen_t len)
{
	struct pd_packet *s = pd_packet_of(sk);
	unsigned which = 0;
	int ret, *plain, v = 0;

	if (!val && len)
		return -EFAULT;
	if ((int)len < 0)
		return -EINVAL;
	plain = pd_option_plain(s, level, name, &which);
	if (plain) {
		ret = pd_option_int(val, len, &v);
		if (!ret)
			pd_store_relaxed(plain, pd_plain_options[which].flag ? v != 0 : v);
		if (!ret && level == SOL_SOCKET && name == SO_PRIORITY)
			pd_option_priority(s, v);
		return ret;
	}
	if (level == SOL_PACKET && name == PACKET_VNET_HDR) {
		ret = pd_option_vnet_hdr(s, val, len);
		pd_placeholder_note(s);
		return ret;
	}
	/* Binding takes locks of its own. */
	if (level == SOL_SOCKET && name == SO_BINDTODEVICE)
		return pd_packet_set_socket(s, name, val, len);
	pd_lock(&s->lock);
	switch (level) {
	case SOL_SOCKET:
		ret = pd_packet_set_socket(s, name, val, len);
		break;
	case SOL_PACKET:
		ret = pd_packet_set_packet(s, name, val, len);
		break;
	case SOL_PALLADIUM:
		ret = pd_packet_set_palladium(s, name, val, len);
		break;
	default:
		ret = -ENOPROTOOPT;
	}
	pd_packet_note_control(s);
	pd_unlock(&s->lock);
	pd_packet_room(s); /* SO_RCVBUF may have made some */
	pd_placeholder_note(s);
	pd_pollable_ring(&s->pollable);
	return ret;
}

static int pd_packet_get_socket(struct pd_packet *s, int name, void *val, socklen_t *len)
{
	switch (name) {
	case SO_TYPE:
		return pd_option_put_int(val, len, s->type);
	case SO_DOMAIN:
		return pd_option_put_int(val, len, AF_PACKET);
	case SO_PROTOCOL: /* the kernel's packet sockets leave it open */
		return pd_option_put_int(val, len, 0);
	case SO_ERROR:
		return pd_option_put_int(val, len, pd_exchange(&s->error, 0));
	case SO_RCVBUF:
		return pd_option_put_int(val, len, (int)s->rcvbuf);
	case SO_SNDBUF:
		return pd_option_put_int(val, len, (int)s->sndbuf);
	case SO_RCVTIMEO:
		return pd_option_put_timeout(val, len, s->receive_timeout_ns);
	case SO_SNDTIMEO:
		return pd_option_put_timeout(val, len, s->send_timeout_ns);
	case SO_TIMESTAMP:
	case SO_TIMESTAMPNS:
		return pd_option_put_int(val, len, s->timestamps == name);
	case SO_TIMESTAMPING: /* a struct so_timestamping: the second word names a clock */
		return pd_option_put(val, len, (uint32_t[]){s->timestamping, 0},
				     2 * sizeof(uint32_t));
	case SO_RXQ_OVFL:
		return pd_option_put_int(val, len, s->rxq_ovfl);
	case SO_BINDTODEVICE:
		return pd_option_put(val, len, s->port ? s->port->name : "",
				     s->port ? strlen(s->port->name) + 1 : 0);
	case SO_ACCEPTCONN:
	case SO_LOCK_FILTER:
		return pd_option_put_int(val, len, 0);
	case SO_SNDLOWAT:
		return pd_option_put_int(val, len, 1);
	case SO_LINGER:
		return pd_option_put(val, len, &(struct linger){0}, sizeof(struct linger));
	case SO_BPF_EXTENSIONS:
		return pd_option_put_int(val, len, SKF_AD_MAX);
	default:
		return -ENOPROTOOPT;
	}
}

/* PACKET_STATISTICS: what arrived and what was dropped since the last time. packet->lock held. */
static int pd_packet_get_statistics(struct pd_packet *s, void *val, socklen_t *len)
{
	struct tpacket_stats_v3 stats = {.tp_drops = s->stat_drops};

	stats.tp_packets = pd_exchange(&s->stat_packets, 0);
	s->stat_drops = 0;
	return pd_option_put(val, len, &stats,
			     s->packet_version == TPACKET_V3 ? sizeof(struct tpacket_stats_v3)
							     : sizeof(struct tpacket_stats));
}

static int pd_packet_get_packet(struct pd_packet *s, int name, void *val, socklen_t *len)
{
	static const int hdrlen[] = {sizeof(struct tpacket_hdr), sizeof(struct tpacket2_hdr),
				     sizeof(struct tpacket3_hdr)};
	int v = 0;

	switch (name) {
	case PACKET_STATISTICS:
		return pd_packet_get_statistics(s, val, len);
	case PACKET_AUXDATA:
		return pd_option_put_int(val, len, s->auxdata);
	case PACKET_IGNORE_OUTGOING:
		return pd_option_put_int(val, len, s->ignore_outgoing);
	case PACKET_VERSION:
		return pd_option_put_int(val, len, s->packet_version);
	case PACKET_HDRLEN:
		if (!val || !len || *len < sizeof(v))
			return -EINVAL;
		memcpy(&v, val, sizeof(v));
		if (v < TPACKET_V1 || v > TPACKET_V3)
			return -EINVAL;
		return pd_option_put_int(val, len, hdrlen[v]);
	case PACKET_VNET_HDR:
		return pd_option_put_int(val, len, s->vnet_hdr);
	case PACKET_FANOUT:
		return pd_option_put_int(val, len, 0);
	default:
		return -ENOPROTOOPT;
	}
}

static int pd_packet_get_palladium(struct pd_packet *s, int name, void *val, socklen_t *len)
{
	switch (name) {
	case PALLADIUM_RECV_METADATA:
		return pd_option_put_int(val, len, s->recv_metadata);
	case PALLADIUM_RECV_CONTROL:
		return pd_option_put_int(val, len, s->recv_control);
	case PALLADIUM_METADATA_MODE:
		return pd_option_put_int(
			val, len, s->inline_mode ? PALLADIUM_MODE_INLINE : PALLADIUM_MODE_CMSG);
	case PALLADIUM_DEFAULT_METADATA:
		return pd_option_put(val, len, s->default_sidecar.bytes, PD_SIDECAR_BYTES);
	default:
		return -ENOPROTOOPT;
	}
}

int pd_packet_getsockopt(struct pd_sock *sk, int level, int name, void *val, socklen_t *len)
{
	struct pd_packet *s = pd_packet_of(sk);
	unsigned which = 0;
	int ret, *plain;

	plain = pd_option_plain(s, level, name, &which);
	if (plain)
		return pd_option_put_int(val, len, pd_load_relaxed(plain));
	/* Among several taps what has arrived is counted when it leaves the ring. */
	if (level == SOL_PACKET && name == PACKET_STATISTICS && pd_load_relaxed(&s->attached))
		pd_packet_next_length(s);
	pd_lock(&s->lock);
	switch (level) {
	case SOL_SOCKET:
		ret = pd_packet_get_socket(s, name, val, len);
		break;
	case SOL_PACKET:
		ret = pd_packet_get_packet(s, name, val, len);
		break;
	case SOL_PALLADIUM:
		ret = pd_packet_get_palladium(s, name, val, len);
		break;
	default:
		ret = -ENOPROTOOPT;
	}
	pd_unlock(&s->lock);
	return ret;
}
