/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Packet sockets: making, binding, naming and ending them.
 *
 * The number that the program gets is a placeholder (placeholder.c): a real descriptor that needs
 * no privilege.
 *
 * A socket may be bound to a port, or to nothing: then it concerns all ports, which are opened at
 * its first use. Binding to an interface of the kernel, or sending by one before anything has
 * passed by a port, turns the socket back into a kernel socket under the same number, which needs
 * the privilege that packet sockets always need. One socket cannot do both: its readiness, its
 * order of frames and its filters would have two masters.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"
#include "config/vars.h"
#include "counters/counters.h"
#include "sock/exception.h"
#include "sock/fd.h"
#include "sock/hooks.h"
#include "sock/layer.h"
#include "sock/packet.h"

static void pd_packet_release(struct pd_sock *sk);
static void pd_packet_destroy(struct pd_sock *sk);

/* --- attaching ---------------------------------------------------------------------------- */

/*
 * Open `port`, or all when it is NULL; then one that cannot be opened does not keep the others.
 * Returns 0 or -errno.
 */
static int pd_packet_open_ports(struct pd_port *port)
{
	int ret = 0, opened = 0;

	if (port)
		return pd_port_open(port);
	for (unsigned i = 0; i < pd_port_count; i++) {
		int one = pd_port_open(&pd_ports[i]);

		opened += one == 0;
		ret = one ? one : ret;
	}
	return opened ? 0 : ret;
}

int pd_packet_attach_first(struct pd_packet *s)
{
	int ret = pd_packet_open_ports(pd_load_acquire(&s->port));

	if (!ret)
		ret = pd_taps_attach(s);
	if (!ret)
		pd_store_release(&s->attached, true); /* pairs with pd_packet_attach */
	return ret;
}

/* --- names -------------------------------------------------------------------------------- */

/* True when the kernel has an interface of that number; asked without any privilege. */
static bool pd_kernel_interface(int ifindex)
{
	struct ifreq ifr = {.ifr_ifindex = ifindex};
	int fd = pd_internal_fd(pd_sys_socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)), ret;

	if (fd < 0)
		return true;
	ret = pd_sys_ioctl(fd, SIOCGIFNAME, &ifr);
	pd_sys_close(fd);
	return ret != -ENODEV;
}

/* The next number of `s` after `fd`, or -1. */
static int pd_packet_number_after(const struct pd_packet *s, int fd)
{
	do
		fd = pd_fd_next((uint32_t)(fd + 1), UINT32_MAX, false);
	while (fd >= 0 && pd_fd_slot(fd) != (uintptr_t)&s->sock);
	return fd;
}

/* `fd`, if it is a number of the socket `ctx`, else another that is, or -1. */
static int pd_packet_number(void *ctx, int fd)
{
	const struct pd_packet *s = ctx;

	return pd_fd_slot(fd) == (uintptr_t)&s->sock ? fd : pd_packet_number_after(s, -1);
}

/*
 * The program binds to an interface of the kernel, or sends by one (then `ll` is NULL): a real
 * packet socket takes the number over. What was set on ours so far (options, O_NONBLOCK) is carried
 * over where it can be. Returns 0 or -errno: without CAP_NET_RAW -EPERM, or -ENODEV when there is
 * no such interface.
 */
static int pd_packet_to_kernel(struct pd_packet *s, const struct sockaddr_ll *ll, socklen_t len)
{
	int fd = pd_internal_fd(
		pd_sys_socket(AF_PACKET, s->type | SOCK_CLOEXEC, htons(s->protocol)));
	int ret, own;

	if (fd == -EPERM && ll && !pd_kernel_interface(ll->sll_ifindex))
		return -ENODEV;
	if (fd < 0)
		return fd;
	if (pd_load_relaxed(&s->sock.flags) & O_NONBLOCK)
		pd_sys_fcntl(fd, F_SETFL, O_NONBLOCK);
	pd_packet_options_carry(s, fd);
	ret = ll ? pd_sys_bind(fd, ll, len) : 0;
	if (!ret) {
		pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_SOCKETS_OS, 1);
		pd_store_release(&s->turned, true);
	}
	/*
	 * All numbers of the socket; the program may have copied it, and closed the first. The
	 * kernel's socket takes them over, and their places in epolls, before they leave the table.
	 */
	for (own = pd_packet_number(s, -1); own >= 0 && !ret;
	     own = pd_packet_number_after(s, own)) {
		int flags = pd_sys_fcntl(own, F_GETFD, 0);

		pd_debug("packet", "fd %d: the kernel's, for interface %d", own,
			 ll ? ll->sll_ifindex : 0);
		ret = pd_min(pd_sys_dup3(fd, own, flags & FD_CLOEXEC ? O_CLOEXEC : 0), 0);
	}
	if (!ret) {
		pd_pollable_move(&s->pollable, pd_packet_number, s);
		for (own = pd_packet_number(s, -1); own >= 0; own = pd_packet_number_after(s, own))
			pd_fd_remove(own);
	}
	pd_sys_close(fd);
	return ret;
}

int pd_packet_leave(struct pd_packet *s)
{
	return pd_packet_to_kernel(s, NULL, 0);
}

int pd_packet_send_elsewhere(struct pd_packet *s, int ifindex)
{
	int ret;

	if (pd_load_acquire(&s->port) || pd_port_by_ifindex((uint32_t)ifindex) ||
	    !pd_ifquery_kernel_has(ifindex))
		return -ENXIO;
	if (pd_load_relaxed(&s->used)) {
		pd_log_ratelimited(PD_LOG_WARN, "packet",
				   "fd %d: frames have passed by a port, so interface %d of the "
				   "kernel is out of its reach: use one socket for each",
				   s->fd, ifindex);
		return -ENXIO;
	}
	pd_info("packet", "fd %d: sends by interface %d of the kernel, so it hears no port", s->fd,
		ifindex);
	ret = pd_packet_to_kernel(s, NULL, 0);
	return ret ? ret : (int)PD_HOOK_PASS;
}

/*
 * Whether the rules of libpalladium.conf let this program use `port` for `protocol` (host order).
 */
static bool pd_packet_allowed(const struct pd_packet *s, const struct pd_port *port,
			      uint16_t protocol)
{
	struct pd_conf_decision d;

	pd_sock_decide(port->name, protocol, &d);
	if (d.use == PD_USE_PALLADIUM)
		return true;
	pd_info("packet",
		"fd %d: %s:%u: the rule leaves %s to the kernel, which has no such interface",
		s->fd, d.rule->place.file, d.rule->place.line, port->name);
	return false;
}

/* bind(2): by ifindex and protocol; ifindex 0 is every port, protocol 0 keeps what there is. */
static int pd_packet_bind(struct pd_sock *sk, const struct sockaddr *addr, socklen_t len)
{
	const struct sockaddr_ll *ll = (const void *)addr;
	struct pd_packet *s = pd_packet_of(sk);
	struct pd_port *port = NULL;
	uint16_t protocol;
	int ret;

	if (!addr && len)
		return -EFAULT;
	if (len < sizeof(*ll) || ll->sll_family != AF_PACKET)
		return -EINVAL;
	protocol = ll->sll_protocol ? ntohs(ll->sll_protocol) : pd_load_relaxed(&s->protocol);
	if (ll->sll_ifindex) {
		port = pd_port_by_ifindex((uint32_t)ll->sll_ifindex);
		if (!port)
			return pd_packet_to_kernel(s, ll, len);
		if (!pd_packet_allowed(s, port, protocol))
			return -ENODEV;
	}
	ret = pd_packet_open_ports(port);
	if (!ret)
		ret = pd_taps_move(s, port, protocol);
	pd_store_release(&s->attached, !ret);
	pd_placeholder_note(s);
	pd_ctr_set_parent(s->ctr, port ? port->index : PD_SHM_NONE);
	pd_pollable_ring(&s->pollable);
	return ret;
}

/* Write a link-layer address the way the kernel does: as much as fits, *len the true length. */
static void pd_packet_put_name(const struct sockaddr_ll *ll, struct sockaddr *addr, socklen_t *len)
{
	socklen_t size = offsetof(struct sockaddr_ll, sll_addr) + ll->sll_halen;

	memcpy(addr, ll, pd_min(*len, size));
	*len = size;
}

static int pd_packet_getsockname(struct pd_sock *sk, struct sockaddr *addr, socklen_t *len)
{
	struct pd_packet *s = pd_packet_of(sk);
	struct sockaddr_ll ll = {.sll_family = AF_PACKET, .sll_protocol = htons(s->protocol)};
	const struct pd_port *port = pd_load_acquire(&s->port);

	if (!addr || !len)
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	if (port) {
		ll.sll_ifindex = (int)port->ifindex;
		ll.sll_hatype = ARPHRD_ETHER;
		ll.sll_halen = ETH_ALEN;
		memcpy(ll.sll_addr, port->mac, ETH_ALEN);
	}
	pd_packet_put_name(&ll, addr, len);
	return 0;
}

/* --- the calls ---------------------------------------------------------------------------- */

/* How long a call may wait for a message, given its flags. */
static uint64_t pd_packet_receive_wait(const struct pd_packet *s, int flags)
{
	uint64_t timeout_ns = pd_load_relaxed(&s->receive_timeout_ns);

	if ((flags & MSG_DONTWAIT) || (pd_load_relaxed(&s->sock.flags) & O_NONBLOCK))
		return 0;
	return timeout_ns ? timeout_ns : PD_WAIT_FOREVER;
}

/* One message received: what recvmsg returns, or -errno. */
static ssize_t pd_packet_receive_one(struct pd_packet *s, struct mmsghdr *m, int flags)
{
	int ret = pd_packet_receive(s, m, 1, flags, pd_packet_receive_wait(s, flags),
				    PD_WAIT_FOREVER);

	return ret < 0 ? ret : (ssize_t)m->msg_len;
}

static ssize_t pd_packet_recvmsg(struct pd_sock *sk, struct msghdr *msg, int flags)
{
	struct mmsghdr m = {.msg_len = 0};
	ssize_t ret;

	if (!msg)
		return -EFAULT;
	m.msg_hdr = *msg;
	ret = pd_packet_receive_one(pd_packet_of(sk), &m, flags);
	if (ret >= 0)
		*msg = m.msg_hdr;
	return ret;
}

static ssize_t pd_packet_recvfrom(struct pd_sock *sk, void *buf, size_t n, int flags,
				  struct sockaddr *addr, socklen_t *len)
{
	struct iovec iov = {.iov_base = buf, .iov_len = n};
	struct mmsghdr m = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
	ssize_t ret;

	if (addr && len) {
		m.msg_hdr.msg_name = addr;
		m.msg_hdr.msg_namelen = *len;
	}
	ret = pd_packet_receive_one(pd_packet_of(sk), &m, flags);
	if (ret >= 0 && addr && len)
		*len = m.msg_hdr.msg_namelen;
	return ret;
}

static ssize_t pd_packet_recv(struct pd_sock *sk, void *buf, size_t n, int flags)
{
	return pd_packet_recvfrom(sk, buf, n, flags, NULL, NULL);
}

/* Whether a length is one that the kernel takes for negative. */
static bool pd_packet_iov_negative(const struct iovec *iov, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if ((ssize_t)iov[i].iov_len < 0)
			return true;
	return false;
}

/*
 * What readv and writev make of their buffers: 1, -EINVAL, or 0 for no room at all, which returns
 * at once.
 */
static int pd_packet_check_iov(const struct iovec *iov, int count)
{
	if (count < 0 || count > UIO_MAXIOV || pd_packet_iov_negative(iov, (size_t)count))
		return -EINVAL;
	for (int i = 0; i < count; i++)
		if (iov[i].iov_len)
			return 1;
	return 0;
}

/*
 * What the flags of preadv2 and pwritev2 mean to a socket: flags for recvmsg, or -errno as the
 * kernel has it.
 */
static int pd_packet_rwf(off_t pos, int flags)
{
	if (pos != -1)
		return -ESPIPE;
	if (flags & ~(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND))
		return -EOPNOTSUPP;
	return flags & RWF_NOWAIT ? MSG_DONTWAIT : 0;
}

/* read(2) of nothing returns at once, unlike recv. */
static ssize_t pd_packet_read(struct pd_sock *sk, void *buf, size_t n)
{
	return !n ? 0 : pd_packet_recvfrom(sk, buf, n, 0, NULL, NULL);
}

/*
 * One frame into `iov`. `flags` as recvmsg. Returns octets or -errno; 0 at once for no room at all,
 * as read does.
 */
static ssize_t pd_packet_readv_flags(struct pd_sock *sk, const struct iovec *iov, int count,
				     int flags)
{
	struct mmsghdr m = {
		.msg_hdr = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count}};
	int ret = pd_packet_check_iov(iov, count);

	return ret <= 0 ? ret : pd_packet_receive_one(pd_packet_of(sk), &m, flags);
}

static ssize_t pd_packet_readv(struct pd_sock *sk, const struct iovec *iov, int count)
{
	return pd_packet_readv_flags(sk, iov, count, 0);
}

static ssize_t pd_packet_preadv2(struct pd_sock *sk, const struct iovec *iov, int count, off_t pos,
				 int flags)
{
	int ret = pd_packet_rwf(pos, flags);

	return ret < 0 ? ret : pd_packet_readv_flags(sk, iov, count, ret);
}

/* What is left of a time until `end_ns`, as the kernel writes it back. */
static void pd_packet_put_left(struct timespec *left, uint64_t end_ns)
{
	uint64_t now = pd_clock_ns(), ns = end_ns > now ? end_ns - now : 0;

	if (end_ns == PD_WAIT_FOREVER) /* farther than any clock goes */
		return;
	left->tv_sec = (time_t)(ns / PD_NS_PER_SEC);
	left->tv_nsec = (long)(ns % PD_NS_PER_SEC);
}

/*
 * recvmmsg(2), as the kernel has it: SO_RCVTIMEO bounds the wait for each message; `timeout` is
 * looked at when a message has come, and the time that is left is written back. So one message
 * always comes, and one that never comes is waited for.
 */
static int pd_packet_recvmmsg(struct pd_sock *sk, struct mmsghdr *msgs, unsigned n, int flags,
			      struct timespec *timeout)
{
	struct pd_packet *s = pd_packet_of(sk);
	uint64_t end;
	int ret;

	end = pd_wait_deadline_ts(timeout, &ret);
	if (ret)
		return ret;
	if (!msgs && n)
		return -EFAULT;
	ret = pd_packet_receive(s, msgs, pd_min(n, (unsigned)UIO_MAXIOV), flags,
				pd_packet_receive_wait(s, flags), end);
	if (timeout && ret > 0)
		pd_packet_put_left(timeout, end);
	return ret;
}

/* One message sent: its length or -errno. */
static ssize_t pd_packet_send_one(struct pd_packet *s, struct mmsghdr *m, int flags)
{
	int ret = pd_packet_send(s, m, 1, flags);

	return ret < 0 ? ret : (ssize_t)m->msg_len;
}

static ssize_t pd_packet_sendmsg(struct pd_sock *sk, const struct msghdr *msg, int flags)
{
	struct mmsghdr m = {.msg_len = 0};
	ssize_t ret;

	if (!msg)
		return -EFAULT;
	m.msg_hdr = *msg;
	ret = pd_packet_send_one(pd_packet_of(sk), &m, flags);
	if (pd_unlikely(ret == -EMSGSIZE) && msg->msg_iovlen <= UIO_MAXIOV &&
	    pd_packet_iov_negative(msg->msg_iov, msg->msg_iovlen))
		return -EINVAL;
	return ret;
}

static ssize_t pd_packet_sendto(struct pd_sock *sk, const void *buf, size_t n, int flags,
				const struct sockaddr *addr, socklen_t len)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = n};
	struct mmsghdr m = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};

	if (addr) {
		m.msg_hdr.msg_name = (void *)(uintptr_t)addr;
		m.msg_hdr.msg_namelen = len;
	}
	return pd_packet_send_one(pd_packet_of(sk), &m, flags);
}

static ssize_t pd_packet_send_buf(struct pd_sock *sk, const void *buf, size_t n, int flags)
{
	return pd_packet_sendto(sk, buf, n, flags, NULL, 0);
}

static ssize_t pd_packet_write(struct pd_sock *sk, const void *buf, size_t n)
{
	return pd_packet_sendto(sk, buf, n, 0, NULL, 0);
}

/*
 * One frame from `iov`. `flags` as sendmsg. Returns octets or -errno; 0 at once for nothing at all,
 * as write does.
 */
static ssize_t pd_packet_writev_flags(struct pd_sock *sk, const struct iovec *iov, int count,
				      int flags)
{
	struct mmsghdr m = {
		.msg_hdr = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count}};
	int ret = pd_packet_check_iov(iov, count);

	return ret <= 0 ? ret : pd_packet_send_one(pd_packet_of(sk), &m, flags);
}

static ssize_t pd_packet_writev(struct pd_sock *sk, const struct iovec *iov, int count)
{
	return pd_packet_writev_flags(sk, iov, count, 0);
}

static ssize_t pd_packet_pwritev2(struct pd_sock *sk, const struct iovec *iov, int count, off_t pos,
				  int flags)
{
	int ret = pd_packet_rwf(pos, flags);

	return ret < 0 ? ret : pd_packet_writev_flags(sk, iov, count, ret);
}

static int pd_packet_sendmmsg(struct pd_sock *sk, struct mmsghdr *msgs, unsigned n, int flags)
{
	if (!msgs && n)
		return -EFAULT;
	return pd_packet_send(pd_packet_of(sk), msgs, pd_min(n, (unsigned)UIO_MAXIOV), flags);
}

/* mmap(2): there is no ring. */
static void *pd_packet_mmap(struct pd_sock *sk, void *addr, size_t len, int prot, int flags,
			    off_t off)
{
	return (void *)(intptr_t)-EINVAL;
}

static int pd_packet_ioctl(struct pd_sock *sk, unsigned long req, void *arg)
{
	struct pd_packet *s = pd_packet_of(sk);
	int ret, value;

	if (!arg && (req == SIOCINQ || req == SIOCOUTQ))
		return -EFAULT;
	/* A program's buffer may stand at any address, as for the kernel. */
	switch (req) {
	case SIOCINQ:
		value = (int)pd_packet_next_length(s);
		memcpy(arg, &value, sizeof(value));
		return 0;
	case SIOCOUTQ: /* what was sent is in the peer's memory already */
		memset(arg, 0, sizeof(value));
		return 0;
	}
	ret = pd_ifquery_ioctl(req, arg);
	if (ret == -EOPNOTSUPP)
		return pd_exception(s, ret, false, "ioctl %#lx of a port", req);
	if (ret <= 0)
		return ret;
	/* About no port of ours: any kernel socket answers for the kernel's interfaces. */
	ret = pd_internal_fd(pd_sys_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	if (ret >= 0) {
		int fd = ret;

		ret = pd_sys_ioctl(fd, req, arg);
		pd_sys_close(fd);
	}
	return ret;
}

/* --- life --------------------------------------------------------------------------------- */

static struct pd_sock_ops pd_packet_ops = {
	.bind = pd_packet_bind,
	.getsockname = pd_packet_getsockname,
	.setsockopt = pd_exception_setsockopt,
	.getsockopt = pd_exception_getsockopt,
	.read = pd_packet_read,
	.readv = pd_packet_readv,
	.preadv2 = pd_packet_preadv2,
	.preadv64v2 = pd_packet_preadv2,
	.recv = pd_packet_recv,
	.recvfrom = pd_packet_recvfrom,
	.recvmsg = pd_packet_recvmsg,
	.recvmmsg = pd_packet_recvmmsg,
	.write = pd_packet_write,
	.writev = pd_packet_writev,
	.pwritev2 = pd_packet_pwritev2,
	.pwritev64v2 = pd_packet_pwritev2,
	.send = pd_packet_send_buf,
	.sendto = pd_packet_sendto,
	.sendmsg = pd_packet_sendmsg,
	.sendmmsg = pd_packet_sendmmsg,
	.ioctl = pd_packet_ioctl,
	.mmap = pd_packet_mmap,
	.release = pd_packet_release,
	.destroy = pd_packet_destroy,
};

/* The last descriptor is closed: no more frames, and whoever waits on the socket learns of it. */
static void pd_packet_release(struct pd_sock *sk)
{
	struct pd_packet *s = pd_packet_of(sk);

	pd_taps_release(s);
	pd_pollable_detach(&s->pollable);
}

/* Nobody uses the socket any more. */
static void pd_packet_destroy(struct pd_sock *sk)
{
	pd_ctr_free(pd_packet_of(sk)->ctr);
}

void pd_packet_after_fork(struct pd_packet *s)
{
	bool quiet = !pd_load_relaxed(&s->lock.word);

	pd_lock_init(&s->lock, PD_RANK_SOCKET);
	s->stops = 0;
	if (quiet) /* else caught in a change: its memory is left alone */
		free(s->queue.ring);
	memset(&s->queue, 0, sizeof(s->queue)); /* pd_taps_after_fork has reset the pool */
	pd_pollable_after_fork(&s->pollable);
}

/* Set a new socket up; the head is done. */
static void pd_packet_init(struct pd_packet *s, int type, uint16_t protocol)
{
	pd_pollable_init(&s->pollable, &pd_packet_pollable_ops);
	s->pollable.owner = &s->sock;
	pd_lock_init(&s->lock, PD_RANK_SOCKET);
	s->type = type & 0xf;
	s->protocol = protocol;
	s->port_mask = pd_sock_rule_ports(protocol);
	s->port = NULL;
	s->attached = s->released = false;
	s->inline_mode = pd_vars.metadata == PD_METADATA_INLINE;
	s->recv_control = s->inline_mode;
	pd_packet_note_control(s);
	pd_packet_options_init(s);
	pd_steer_own_init(&s->receive_own, pd_vars.ring_allocation_logic_rx);
	pd_steer_own_init(&s->send_own, pd_vars.ring_allocation_logic_tx);
	s->send_key = PD_STEER_NONE;
}

/*
 * The buffers of a new socket are as large as the kernel makes them: as those of `fd`, which stands
 * in for it.
 */
static void pd_packet_size_buffers(struct pd_packet *s, int fd)
{
	socklen_t len = sizeof(s->rcvbuf);

	pd_sys_getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &s->rcvbuf, &len);
	pd_sys_getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &s->sndbuf, &len);
	s->receive_limit_bytes = pd_max((uint64_t)s->rcvbuf, pd_vars.rx_bytes_min);
}

int pd_packet_new(int fd, int type, uint16_t protocol, struct pd_sock **out)
{
	bool inherited = fd >= 0;
	struct pd_packet *s;
	struct pd_sock *sk;
	int ret;

	ret = pd_packet_ports_init();
	if (ret)
		return ret;
	pd_sock_ops_fill(&pd_packet_ops);
	sk = pd_sock_new(PD_SOCK_PACKET, sizeof(*s), &pd_packet_ops);
	if (!sk)
		return -ENOMEM;
	s = pd_packet_of(sk);
	sk->flags = type & SOCK_NONBLOCK ? O_NONBLOCK : 0;
	pd_packet_init(s, type, protocol);
	if (!inherited) {
		fd = pd_placeholder_make(s, type);
		ret = pd_min(fd, 0);
	}
	s->fd = fd;
	pd_packet_size_buffers(s, fd);
	s->ctr = pd_ctr_alloc(PD_CTR_SOCKET, fd, PD_SHM_NONE, "packet");
	pd_ctr_text(s->ctr, PD_CTR_TEXT_KIND, "packet/%s", s->type == SOCK_RAW ? "raw" : "dgram");
	pd_ctr_gauge(s->ctr, PD_CTR_SOCKET_RX_LIMIT_BYTES, s->receive_limit_bytes);
	if (!ret)
		ret = pd_fd_install(fd, sk);
	if (ret) {
		if (!inherited && fd >= 0)
			pd_sys_close(fd);
		pd_sock_put(sk);
		return ret;
	}
	pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_SOCKETS_OFFLOADED, 1);
	pd_gate_open(&pd_gate_active);
	*out = sk;
	return 0;
}

int pd_packet_socket(int type, int protocol)
{
	struct pd_sock *sk;
	int fd, ret;

	ret = pd_packet_new(-1, type, ntohs((uint16_t)protocol), &sk);
	if (ret)
		return ret;
	fd = pd_packet_of(sk)->fd;
	pd_placeholder_note(pd_packet_of(sk));
	/*
	 * Until it is bound it hears what comes in by ports that are in use, as the kernel's do; it
	 * opens none yet.
	 */
	if (protocol)
		pd_taps_attach(pd_packet_of(sk));
	pd_sock_put(sk); /* the table has its own */
	return fd;
}
