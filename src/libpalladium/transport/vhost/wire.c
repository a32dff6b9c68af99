/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The message table of vhost-user and the syntax checks that read it.
 *
 * A message whose syntax is wrong says that the two ends disagree on where messages start or what
 * they are, so it ends the connection; there is no sensible reply to it. Messages that belong to
 * features we never offer are still read whole, so that the refusal can name them.
 */
#include "transport/vhost/wire.h"

#include "base/closer.h"

#define KIND(name_, size_, fds_, answer_, feature_)                               \
	[PD_VHOST_##name_] = {#name_, PD_VHOST_SIZE_##size_, PD_VHOST_FDS_##fds_, \
			      PD_VHOST_ANSWER_##answer_, feature_}
#define PF(name_) PD_VHOST_PF_##name_

const struct pd_vhost_kind pd_vhost_kinds[PD_VHOST_REQUESTS] = {
	/*   message             payload fds      reply  protocol feature */
	KIND(GET_FEATURES, NONE, NONE, U64, -1),
	KIND(SET_FEATURES, U64, NONE, NONE, -1),
	KIND(SET_OWNER, NONE, NONE, NONE, -1),
	KIND(RESET_OWNER, NONE, NONE, NONE, -1),
	KIND(SET_MEM_TABLE, MEMORY, REGIONS, NONE, -1),
	KIND(SET_LOG_BASE, LOG, OPTIONAL, OWN, PF(LOG_SHMFD)),
	KIND(SET_LOG_FD, NONE, ONE, NONE, PF(LOG_SHMFD)),
	KIND(SET_VRING_NUM, STATE, NONE, NONE, -1),
	KIND(SET_VRING_ADDR, ADDR, NONE, NONE, -1),
	KIND(SET_VRING_BASE, STATE, NONE, NONE, -1),
	KIND(GET_VRING_BASE, STATE, NONE, STATE, -1),
	KIND(SET_VRING_KICK, U64, VRING, NONE, -1),
	KIND(SET_VRING_CALL, U64, VRING, NONE, -1),
	KIND(SET_VRING_ERR, U64, VRING, NONE, -1),
	KIND(GET_PROTOCOL_FEATURES, NONE, NONE, U64, -1),
	KIND(SET_PROTOCOL_FEATURES, U64, NONE, NONE, -1),
	KIND(GET_QUEUE_NUM, NONE, NONE, U64, PF(MQ)),
	KIND(SET_VRING_ENABLE, STATE, NONE, NONE, -1),
	KIND(SEND_RARP, U64, NONE, NONE, PF(RARP)),
	KIND(NET_SET_MTU, U64, NONE, NONE, PF(MTU)),
	KIND(SET_BACKEND_REQ_FD, NONE, ONE, NONE, PF(BACKEND_REQ)),
	KIND(IOTLB_MSG, IOTLB, NONE, NONE, -1),
	KIND(SET_VRING_ENDIAN, STATE, NONE, NONE, PF(CROSS_ENDIAN)),
	KIND(GET_CONFIG, ANY, NONE, OWN, PF(CONFIG)),
	KIND(SET_CONFIG, ANY, NONE, NONE, PF(CONFIG)),
	KIND(CREATE_CRYPTO_SESSION, ANY, NONE, OWN, PF(CRYPTO_SESSION)),
	KIND(CLOSE_CRYPTO_SESSION, U64, NONE, NONE, PF(CRYPTO_SESSION)),
	KIND(POSTCOPY_ADVISE, NONE, NONE, OWN, PF(PAGEFAULT)),
	KIND(POSTCOPY_LISTEN, NONE, NONE, NONE, PF(PAGEFAULT)),
	KIND(POSTCOPY_END, NONE, NONE, U64, PF(PAGEFAULT)),
	KIND(GET_INFLIGHT_FD, KEPT, NONE, OWN, PF(INFLIGHT_SHMFD)),
	KIND(SET_INFLIGHT_FD, KEPT, ONE, NONE, PF(INFLIGHT_SHMFD)),
	KIND(GPU_SET_SOCKET, ANY, ANY, NONE, -1),
	KIND(RESET_DEVICE, NONE, NONE, NONE, PF(RESET_DEVICE)),
	KIND(VRING_KICK, STATE, NONE, NONE, PF(INBAND_NOTIFICATIONS)),
	KIND(GET_MAX_MEM_SLOTS, NONE, NONE, U64, PF(CONFIGURE_MEM_SLOTS)),
	KIND(ADD_MEM_REG, REGION, ONE, NONE, PF(CONFIGURE_MEM_SLOTS)),
	/* QEMU sends a descriptor with this one although it is of no use. */
	KIND(REM_MEM_REG, REGION, OPTIONAL, NONE, PF(CONFIGURE_MEM_SLOTS)),
	KIND(SET_STATUS, U64, NONE, NONE, PF(STATUS)),
	KIND(GET_STATUS, NONE, NONE, U64, PF(STATUS)),
};
_Static_assert(PD_ARRAY_SIZE(pd_vhost_kinds) == PD_VHOST_GET_STATUS + 1,
	       "the table ends with the last request");

/* The same of what a back-end asks; a HOST_NOTIFIER is never offered. */
static const struct pd_vhost_kind backend_kinds[PD_VHOST_BACKEND_REQUESTS] = {
#define BACKEND_KIND(name_, size_, fds_, feature_)                                        \
	[PD_VHOST_BACKEND_##name_] = {#name_, PD_VHOST_SIZE_##size_, PD_VHOST_FDS_##fds_, \
				      PD_VHOST_ANSWER_NONE, feature_}
	BACKEND_KIND(IOTLB_MSG, IOTLB, NONE, -1),
	BACKEND_KIND(CONFIG_CHANGE_MSG, NONE, NONE, PF(CONFIG)),
	BACKEND_KIND(VRING_HOST_NOTIFIER_MSG, ANY, ANY, PF(HOST_NOTIFIER)),
	BACKEND_KIND(VRING_CALL, STATE, NONE, PF(INBAND_NOTIFICATIONS)),
	BACKEND_KIND(VRING_ERR, STATE, NONE, PF(INBAND_NOTIFICATIONS)),
#undef BACKEND_KIND
};

/* The bytes of each fixed size; 0 for those that vary. Control path. */
static uint32_t size_fixed(enum pd_vhost_size size)
{
	static const uint32_t bytes[PD_VHOST_SIZES] = {
		[PD_VHOST_SIZE_U64] = sizeof(uint64_t),
		[PD_VHOST_SIZE_STATE] = sizeof(struct pd_vhost_vring_state),
		[PD_VHOST_SIZE_ADDR] = sizeof(struct pd_vhost_vring_addr),
		[PD_VHOST_SIZE_REGION] = sizeof(struct pd_vhost_single_region),
		[PD_VHOST_SIZE_IOTLB] = sizeof(struct pd_vhost_iotlb),
	};

	return bytes[size];
}

const char *pd_vhost_request_name(uint32_t request)
{
	if (request == 0 || request >= PD_VHOST_REQUESTS)
		return "unknown";
	return pd_vhost_kinds[request].name;
}

const char *pd_vhost_check_header(const struct pd_vhost_header *hdr, int reply)
{
	if (hdr->request == 0 || hdr->request >= PD_VHOST_REQUESTS)
		return "unknown request";
	if ((hdr->flags & PD_VHOST_VERSION_MASK) != PD_VHOST_VERSION)
		return "wrong protocol version";
	if (!!(hdr->flags & PD_VHOST_REPLY) != !!reply)
		return reply ? "a request where a reply was due"
			     : "a reply where a request was due";
	if (hdr->size > PD_VHOST_PAYLOAD_MAX)
		return "payload too large";
	return NULL;
}

/* True when the payload of `msg` has the size of its kind. */
static int size_ok(const struct pd_vhost_msg *msg, enum pd_vhost_size size)
{
	const size_t head = offsetof(struct pd_vhost_memory, regions);
	uint32_t n;

	switch (size) {
	case PD_VHOST_SIZE_ANY:
		return 1;
	case PD_VHOST_SIZE_LOG:
		return msg->hdr.size == 8 || msg->hdr.size == 16;
	case PD_VHOST_SIZE_KEPT:
		return msg->hdr.size == sizeof(struct pd_vhost_inflight_desc) ||
		       msg->hdr.size == offsetof(struct pd_vhost_inflight_desc, padding);
	case PD_VHOST_SIZE_MEMORY:
		if (msg->hdr.size < head)
			return 0;
		n = msg->payload.memory.n_regions;
		if (n > PD_VHOST_REGIONS_MAX)
			return 0;
		return msg->hdr.size == head + n * sizeof(struct pd_vhost_region) ||
		       msg->hdr.size == sizeof(struct pd_vhost_memory);
	default:
		return msg->hdr.size == size_fixed(size);
	}
}

/* True when `msg`, whose size is right, has as many descriptors as its kind wants. */
static int fds_ok(const struct pd_vhost_msg *msg, enum pd_vhost_fds fds)
{
	switch (fds) {
	case PD_VHOST_FDS_NONE:
		return msg->n_fds == 0;
	case PD_VHOST_FDS_ONE:
		return msg->n_fds == 1;
	case PD_VHOST_FDS_OPTIONAL:
		return msg->n_fds <= 1;
	case PD_VHOST_FDS_VRING:
		return msg->n_fds == !(msg->payload.u64 & PD_VHOST_VRING_NOFD);
	case PD_VHOST_FDS_REGIONS:
		return msg->n_fds == msg->payload.memory.n_regions;
	default:
		return 1;
	}
}

/*
 * Look at the payload and the descriptors of `msg`, which is of this kind. Returns NULL or what is
 * wrong.
 */
static const char *check_kind(const struct pd_vhost_msg *msg, const struct pd_vhost_kind *kind)
{
	if (!size_ok(msg, kind->size))
		return "payload of a wrong size";
	if (!fds_ok(msg, kind->fds))
		return "wrong number of file descriptors";
	return NULL;
}

const char *pd_vhost_check_request(const struct pd_vhost_msg *msg)
{
	return check_kind(msg, &pd_vhost_kinds[msg->hdr.request]);
}

const char *pd_vhost_backend_request_name(uint32_t request)
{
	if (request == 0 || request >= PD_VHOST_BACKEND_REQUESTS)
		return "unknown";
	return backend_kinds[request].name;
}

const char *pd_vhost_check_backend_request(const struct pd_vhost_msg *msg)
{
	if (msg->hdr.request >= PD_VHOST_BACKEND_REQUESTS)
		return "unknown request";
	return check_kind(msg, &backend_kinds[msg->hdr.request]);
}

const char *pd_vhost_check_reply(const struct pd_vhost_msg *msg, uint32_t request)
{
	const struct pd_vhost_kind *kind = &pd_vhost_kinds[request];

	if (msg->hdr.request != request)
		return "reply to another request";
	/* Of a kind of its own is that of GET_INFLIGHT_FD alone, of those requests that we send. */
	if (msg->n_fds > (kind->answer == PD_VHOST_ANSWER_OWN))
		return "file descriptors on a reply";
	if (kind->answer == PD_VHOST_ANSWER_OWN)
		return size_ok(msg, kind->size) ? NULL : "reply of a wrong size";
	if (msg->hdr.size != size_fixed(kind->answer == PD_VHOST_ANSWER_STATE ? PD_VHOST_SIZE_STATE
									      : PD_VHOST_SIZE_U64))
		return "reply of a wrong size";
	return NULL;
}

void pd_vhost_msg_close_fds(struct pd_vhost_msg *msg)
{
	for (uint32_t i = 0; i < PD_VHOST_FDS_MAX; i++) {
		if (msg->fds[i] >= 0)
			pd_closer_shared(msg->fds[i]);
		msg->fds[i] = -1;
	}
	msg->n_fds = 0;
}

int pd_vhost_msg_take_fd(struct pd_vhost_msg *msg)
{
	int fd = msg->fds[0];

	msg->fds[0] = -1;
	return fd;
}
