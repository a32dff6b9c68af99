/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ports as interfaces: what programs ask about them, by name or index, on whatever descriptor is at
 * hand.
 *
 * The answers are those of an Ethernet interface of the kernel that is up; IFF_RUNNING tells
 * whether the peer is there. getifaddrs and if_nameindex give the kernel's list with the ports
 * appended; an interface of the kernel that has the name of a port is left out. A list of ours is
 * one allocation per entry behind a header, so that freeifaddrs knows it.
 */
#include <errno.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/internal_fd.h"
#include "base/sys.h"
#include "sock/hooks.h"
#include "sock/packet.h"

/* Marks the lists that pd_hook_getifaddrs made; stands in front of the first entry. */
#define PD_IFADDRS_MAGIC 0x5044494641444452ull

/* --- one port ------------------------------------------------------------------------------- */

/* IFF_* of a port. */
static unsigned pd_port_flags(const struct pd_port *port)
{
	unsigned flags = IFF_UP | IFF_BROADCAST | IFF_MULTICAST;

	if (pd_load_relaxed(&port->state) == PD_PORT_UP)
		flags |= IFF_RUNNING | 1 << 16 /* IFF_LOWER_UP: lost where the field is a short */;
	return flags;
}

/* The first address of a family that the port was given, or NULL. */
static const struct pd_conf_address *pd_port_address(const struct pd_port *port, int family)
{
	for (uint32_t i = 0; i < port->config->address_count; i++)
		if (port->config->addresses[i].family == family)
			return &port->config->addresses[i];
	return NULL;
}

/* The IPv4 netmask of a prefix length, network order. */
static uint32_t pd_netmask4(unsigned prefix_len)
{
	return prefix_len ? htonl(UINT32_MAX << (32 - prefix_len)) : 0;
}

/* An IPv4 address as a sockaddr. */
static void pd_put_in(struct sockaddr *sa, uint32_t addr)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = addr};

	memcpy(sa, &in, sizeof(in));
}

/* SIOCGIFADDR, NETMASK, BRDADDR, DSTADDR. */
static int pd_ifquery_in(const struct pd_port *port, unsigned long req, struct ifreq *ifr)
{
	const struct pd_conf_address *a = pd_port_address(port, AF_INET);
	uint32_t addr, mask;

	if (!a)
		return -EADDRNOTAVAIL;
	memcpy(&addr, a->addr, sizeof(addr));
	mask = pd_netmask4(a->prefix_len);
	if (req == SIOCGIFADDR)
		pd_put_in(&ifr->ifr_addr, addr);
	else if (req == SIOCGIFNETMASK)
		pd_put_in(&ifr->ifr_netmask, mask);
	else if (req == SIOCGIFDSTADDR) /* the peer's, or its own where there is none */
		pd_put_in(&ifr->ifr_dstaddr, addr);
	else
		pd_put_in(&ifr->ifr_broadaddr, addr | ~mask);
	return 0;
}

/* ethtool's basics; `data` is the request's own structure. */
static int pd_ifquery_ethtool(const struct pd_port *port, void *data)
{
	struct ethtool_drvinfo *info = data;
	struct ethtool_value *value = data;
	struct ethtool_cmd *cmd = data;
	struct ethtool_ts_info *ts = data;

	switch (*(uint32_t *)data) {
	case ETHTOOL_GDRVINFO:
		memset(info, 0, sizeof(*info));
		info->cmd = ETHTOOL_GDRVINFO;
		snprintf(info->driver, sizeof(info->driver), "palladium");
		snprintf(info->version, sizeof(info->version), "0.1.0");
		snprintf(info->bus_info, sizeof(info->bus_info), "%s", port->config->transport);
		return 0;
	case ETHTOOL_GLINK:
		value->data = pd_load_relaxed(&port->state) == PD_PORT_UP;
		return 0;
	case ETHTOOL_GSET:
		memset(cmd, 0, sizeof(*cmd));
		cmd->cmd = ETHTOOL_GSET;
		cmd->duplex = DUPLEX_FULL;
		cmd->port = PORT_OTHER;
		ethtool_cmd_speed_set(cmd, (uint32_t)SPEED_UNKNOWN);
		return 0;
	case ETHTOOL_GET_TS_INFO:
		memset(ts, 0, sizeof(*ts));
		ts->cmd = ETHTOOL_GET_TS_INFO;
		ts->so_timestamping = 0x8 | 0x10; /* SOF_TIMESTAMPING_RX_SOFTWARE | _SOFTWARE */
		ts->phc_index = -1;
		return 0;
	case ETHTOOL_GRXCSUM:
	case ETHTOOL_GTXCSUM:
	case ETHTOOL_GSG:
	case ETHTOOL_GTSO:
	case ETHTOOL_GUFO:
	case ETHTOOL_GGSO:
	case ETHTOOL_GGRO:
	case ETHTOOL_GFLAGS:
		value->data = 0;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

/* A request about one port; `ifr` names it. */
static int pd_ifquery_port(const struct pd_port *port, unsigned long req, struct ifreq *ifr)
{
	switch (req) {
	case SIOCGIFINDEX:
		ifr->ifr_ifindex = (int)port->ifindex;
		return 0;
	case SIOCGIFHWADDR:
		memset(&ifr->ifr_hwaddr, 0, sizeof(ifr->ifr_hwaddr));
		ifr->ifr_hwaddr.sa_family = ARPHRD_ETHER;
		memcpy(ifr->ifr_hwaddr.sa_data, port->mac, ETH_ALEN);
		return 0;
	case SIOCGIFMTU:
		ifr->ifr_mtu = (int)port->mtu;
		return 0;
	case SIOCGIFFLAGS:
		ifr->ifr_flags = (short)pd_port_flags(port);
		return 0;
	case SIOCSIFFLAGS: /* up and promiscuous is what a port always is */
	case SIOCADDMULTI:
	case SIOCDELMULTI:
		return 0;
	case SIOCGIFADDR:
	case SIOCGIFNETMASK:
	case SIOCGIFBRDADDR:
	case SIOCGIFDSTADDR:
		return pd_ifquery_in(port, req, ifr);
	case SIOCGIFMETRIC:
		ifr->ifr_metric = 0;
		return 0;
	case SIOCGIFTXQLEN:
		ifr->ifr_qlen = (int)port->config->ring;
		return 0;
	case SIOCETHTOOL:
		return ifr->ifr_data ? pd_ifquery_ethtool(port, ifr->ifr_data) : -EFAULT;
	case SIOCGIFMAP:
		memset(&ifr->ifr_map, 0, sizeof(ifr->ifr_map));
		return 0;
	case SIOCGIFSLAVE: /* as the kernel, which knows of no such thing either */
		return -EINVAL;
	default: /* what is set comes from the configuration and stays */
		return -EOPNOTSUPP;
	}
}

int pd_ifquery_kernel_index(const char *name)
{
	int fd = pd_internal_fd(pd_sys_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), ret;
	struct ifreq ifr = {0};

	if (fd < 0)
		return 0;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	ret = pd_sys_ioctl(fd, SIOCGIFINDEX, &ifr);
	pd_sys_close(fd);
	return ret < 0 ? 0 : ifr.ifr_ifindex;
}

bool pd_ifquery_kernel_has(int ifindex)
{
	int fd = pd_internal_fd(pd_sys_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), ret;
	struct ifreq ifr = {.ifr_ifindex = ifindex};

	if (fd < 0)
		return false;
	ret = pd_sys_ioctl(fd, SIOCGIFNAME, &ifr);
	pd_sys_close(fd);
	return ret >= 0;
}

/*
 * Take interfaces that a port hides out of the `used` bytes at `buf`. Returns how many bytes stay.
 */
static int pd_ifquery_unhide(char *buf, int used)
{
	struct ifreq ifr;
	int kept = 0;

	for (int at = 0; at + (int)sizeof(ifr) <= used; at += (int)sizeof(ifr)) {
		memcpy(&ifr, buf + at, sizeof(ifr));
		if (pd_port_by_name(ifr.ifr_name))
			continue;
		memcpy(buf + kept, &ifr, sizeof(ifr));
		kept += (int)sizeof(ifr);
	}
	return kept;
}

/*
 * SIOCGIFCONF: the kernel's interfaces with addresses, then ours. Without a buffer, room that will
 * do.
 */
static int pd_ifquery_conf(struct ifconf *ifc)
{
	int room = ifc->ifc_len, used, fd, ret;
	char *buf = ifc->ifc_buf;

	fd = pd_internal_fd(pd_sys_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	if (fd < 0)
		return fd;
	ret = pd_sys_ioctl(fd, SIOCGIFCONF, ifc);
	pd_sys_close(fd);
	if (ret < 0)
		return ret;
	used = buf ? pd_ifquery_unhide(buf, ifc->ifc_len) : ifc->ifc_len;
	for (unsigned i = 0; i < pd_port_count; i++) {
		struct ifreq ifr = {0};

		if (!pd_port_address(&pd_ports[i], AF_INET))
			continue;
		if (buf && used + (int)sizeof(ifr) > room)
			break;
		memcpy(ifr.ifr_name, pd_ports[i].name, IFNAMSIZ);
		pd_ifquery_in(&pd_ports[i], SIOCGIFADDR, &ifr);
		if (buf)
			memcpy(buf + used, &ifr, sizeof(ifr));
		used += (int)sizeof(ifr);
	}
	ifc->ifc_len = used;
	return 0;
}

int pd_ifquery_ioctl(unsigned long req, void *arg)
{
	struct pd_port *port;
	struct ifconf ifc;
	struct ifreq ifr;
	int ret;

	if (!arg)
		return 1;
	switch (req) {
	case SIOCGIFCONF:
		memcpy(&ifc, arg, sizeof(ifc));
		ret = pd_ifquery_conf(&ifc);
		memcpy(arg, &ifc, sizeof(ifc));
		return ret;
	case SIOCGIFNAME:
		memcpy(&ifr, arg, sizeof(ifr));
		port = pd_port_by_ifindex((uint32_t)ifr.ifr_ifindex);
		if (!port)
			return 1;
		memcpy(arg, port->name, IFNAMSIZ);
		return 0;
	case SIOCGIFINDEX:
	case SIOCGIFHWADDR:
	case SIOCGIFMTU:
	case SIOCGIFFLAGS:
	case SIOCSIFFLAGS:
	case SIOCGIFADDR:
	case SIOCGIFNETMASK:
	case SIOCGIFBRDADDR:
	case SIOCGIFDSTADDR:
	case SIOCGIFSLAVE:
	case SIOCGMIIPHY:
	case SIOCGMIIREG:
	case SIOCGHWTSTAMP:
	case SIOCGIFMETRIC:
	case SIOCGIFTXQLEN:
	case SIOCGIFMAP:
	case SIOCETHTOOL:
	case SIOCSIFADDR:
	case SIOCSIFBRDADDR:
	case SIOCSIFDSTADDR:
	case SIOCSIFHWADDR:
	case SIOCSIFMAP:
	case SIOCSIFMETRIC:
	case SIOCSIFMTU:
	case SIOCSIFNAME:
	case SIOCSIFNETMASK:
	case SIOCSIFTXQLEN:
	case SIOCADDMULTI:
	case SIOCDELMULTI:
		/* A copy, for the program's may stand at any address. */
		memcpy(&ifr, arg, sizeof(ifr));
		ifr.ifr_name[IFNAMSIZ - 1] = 0;
		port = pd_port_by_name(ifr.ifr_name);
		if (!port)
			return 1;
		ret = pd_ifquery_port(port, req, &ifr);
		if (ret >= 0)
			memcpy(arg, &ifr, sizeof(ifr));
		return ret;
	default:
		return 1;
	}
}

/* --- hooks: single questions ------------------------------------------------------------------ */

static long pd_hook_ioctl(int fd, unsigned long req, void *arg)
{
	int ret = pd_ifquery_ioctl(req, arg);

	return ret > 0 ? PD_HOOK_PASS : ret;
}

static long pd_hook_if_nametoindex(const char *name)
{
	struct pd_port *port = pd_port_by_name(name);

	return port ? (long)port->ifindex : PD_HOOK_PASS;
}

static long pd_hook_if_indextoname(unsigned index, char *name)
{
	struct pd_port *port = pd_port_by_ifindex(index);

	if (!port)
		return PD_HOOK_PASS;
	memcpy(name, port->name, IFNAMSIZ);
	return 0;
}

/* --- hooks: lists ----------------------------------------------------------------------------- */

/* The kernel's list with the ports behind it, in the form that if_freenameindex frees. */
static long pd_hook_if_nameindex(struct if_nameindex **list)
{
	struct if_nameindex *kernel = pd_kernel->if_nameindex(), *grown;
	unsigned n = 0;

	if (!kernel)
		return -errno;
	for (unsigned i = 0; kernel[i].if_index; i++) {
		if (pd_port_by_name(kernel[i].if_name))
			free(kernel[i].if_name);
		else
			kernel[n++] = kernel[i];
	}
	kernel[n] = (struct if_nameindex){0};
	grown = realloc(kernel, (n + pd_port_count + 1) * sizeof(*grown));
	if (!grown) {
		if_freenameindex(kernel);
		return -ENOBUFS;
	}
	for (unsigned i = 0; i < pd_port_count; i++, n++) {
		grown[n].if_index = pd_ports[i].ifindex;
		grown[n].if_name = strdup(pd_ports[i].name);
		if (!grown[n].if_name) {
			grown[n].if_index = 0;
			if_freenameindex(grown);
			return -ENOBUFS;
		}
	}
	grown[n] = (struct if_nameindex){0};
	*list = grown;
	return 0;
}

/* One entry of our part of a getifaddrs list, with what it points to. */
struct pd_ifaddrs {
	struct ifaddrs ifa; /* first: what the program sees */
	union {
		struct sockaddr_ll ll;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} addr, mask, broadcast;
	char name[IFNAMSIZ];
};

/* A list of ours: the program is given the first entry, so freeifaddrs finds the rest behind it. */
struct pd_ifaddrs_list {
	uint64_t magic;
	struct ifaddrs *kernel; /* the kernel's list, which our last entry leads on to */
	struct pd_ifaddrs entry[];
};

/* The link-layer entry of a port. */
static void pd_ifaddrs_link(const struct pd_port *port, struct pd_ifaddrs *e)
{
	e->addr.ll = (struct sockaddr_ll){.sll_family = AF_PACKET,
					  .sll_ifindex = (int)port->ifindex,
					  .sll_hatype = ARPHRD_ETHER,
					  .sll_halen = ETH_ALEN};
	memcpy(e->addr.ll.sll_addr, port->mac, ETH_ALEN);
	e->broadcast = e->addr;
	memset(e->broadcast.ll.sll_addr, 0xff, ETH_ALEN);
	e->ifa.ifa_broadaddr = (struct sockaddr *)&e->broadcast;
}

/* The entry of an IPv4 or IPv6 address. */
static void pd_ifaddrs_inet(const struct pd_port *port, const struct pd_conf_address *a,
			    struct pd_ifaddrs *e)
{
	uint32_t addr;

	e->ifa.ifa_netmask = (struct sockaddr *)&e->mask;
	if (a->family == AF_INET) {
		memcpy(&addr, a->addr, sizeof(addr));
		pd_put_in((struct sockaddr *)&e->addr, addr);
		pd_put_in((struct sockaddr *)&e->mask, pd_netmask4(a->prefix_len));
		pd_put_in((struct sockaddr *)&e->broadcast, addr | ~pd_netmask4(a->prefix_len));
		e->ifa.ifa_broadaddr = (struct sockaddr *)&e->broadcast;
		return;
	}
	e->addr.in6 = (struct sockaddr_in6){.sin6_family = AF_INET6};
	memcpy(&e->addr.in6.sin6_addr, a->addr, 16);
	if (a->addr[0] == 0xfe && (a->addr[1] & 0xc0) == 0x80)
		e->addr.in6.sin6_scope_id = port->ifindex;
	e->mask.in6 = (struct sockaddr_in6){.sin6_family = AF_INET6};
	for (unsigned bit = 0; bit < a->prefix_len; bit++)
		e->mask.in6.sin6_addr.s6_addr[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
}

/* Fill one entry for `port`; `a` is NULL for its link-layer address. */
static void pd_ifaddrs_fill(const struct pd_port *port, const struct pd_conf_address *a,
			    struct pd_ifaddrs *e)
{
	memcpy(e->name, port->name, sizeof(e->name));
	e->ifa.ifa_name = e->name;
	e->ifa.ifa_flags = pd_port_flags(port);
	e->ifa.ifa_addr = (struct sockaddr *)&e->addr;
	if (a)
		pd_ifaddrs_inet(port, a, e);
	else
		pd_ifaddrs_link(port, e);
}

/*
 * The first entry of the kernel's list that no port hides; those that are hidden are taken out of
 * what follows. libc frees all as one.
 */
static struct ifaddrs *pd_ifaddrs_unhide(struct ifaddrs *list)
{
	struct ifaddrs **link = &list;

	while (*link)
		if (pd_port_by_name((*link)->ifa_name))
			*link = (*link)->ifa_next;
		else
			link = &(*link)->ifa_next;
	return list;
}

static long pd_hook_getifaddrs(struct ifaddrs **list)
{
	struct pd_ifaddrs_list *ours;
	struct ifaddrs *kernel, *rest;
	size_t n = 0, k = 0;

	if (pd_kernel->getifaddrs(&kernel))
		return -errno;
	for (unsigned i = 0; i < pd_port_count; i++)
		n += 1 + pd_ports[i].config->address_count;
	ours = calloc(1, sizeof(*ours) + n * sizeof(ours->entry[0]));
	if (!ours) {
		pd_kernel->freeifaddrs(kernel);
		return -ENOMEM;
	}
	ours->magic = PD_IFADDRS_MAGIC;
	ours->kernel = kernel;
	rest = pd_ifaddrs_unhide(kernel);
	for (unsigned i = 0; i < pd_port_count; i++) {
		const struct pd_port_config *config = pd_ports[i].config;

		pd_ifaddrs_fill(&pd_ports[i], NULL, &ours->entry[k++]);
		for (uint32_t j = 0; j < config->address_count; j++)
			pd_ifaddrs_fill(&pd_ports[i], &config->addresses[j], &ours->entry[k++]);
	}
	for (k = 0; k < n; k++)
		ours->entry[k].ifa.ifa_next = k + 1 < n ? &ours->entry[k + 1].ifa : rest;
	*list = &ours->entry[0].ifa;
	return 0;
}

/*
 * Any list that getifaddrs gave while ports are configured is ours. One from before that is not:
 * then the word in front of it is the allocator's, never our mark.
 */
static long pd_hook_freeifaddrs(struct ifaddrs *list)
{
	struct pd_ifaddrs_list *ours;

	if (!list)
		return 0;
	ours = pd_container_of(list, struct pd_ifaddrs_list, entry[0].ifa);
	if (ours->magic != PD_IFADDRS_MAGIC)
		return PD_HOOK_PASS;
	pd_kernel->freeifaddrs(ours->kernel);
	free(ours);
	return 0;
}

void pd_ifquery_init(void)
{
	pd_hooks.ioctl = pd_hook_ioctl;
	pd_hooks.if_nametoindex = pd_hook_if_nametoindex;
	pd_hooks.if_indextoname = pd_hook_if_indextoname;
	pd_hooks.if_nameindex = pd_hook_if_nameindex;
	pd_hooks.getifaddrs = pd_hook_getifaddrs;
	pd_hooks.freeifaddrs = pd_hook_freeifaddrs;
}
