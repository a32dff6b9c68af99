/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vhost-user wire: message layouts and the one table of what each message looks like.
 *
 * A message is a 12-byte header, a payload of its own size and up to eight descriptors as
 * SCM_RIGHTS. All numbers are in the machine's byte order. This layer knows syntax only: whether a
 * header is one the protocol has, whether its size and its number of descriptors are that
 * message's. What a message means, and whether it may come now, is the role's business
 * (backend.c, frontend.c). The source is QEMU's docs/interop/vhost-user, here "the specification".
 */
#ifndef PD_TRANSPORT_VHOST_WIRE_H
#define PD_TRANSPORT_VHOST_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* Descriptors that one message may carry, and regions of one memory table. */
#define PD_VHOST_FDS_MAX 8
#define PD_VHOST_REGIONS_MAX 8

enum pd_vhost_request {
	PD_VHOST_GET_FEATURES = 1,
	PD_VHOST_SET_FEATURES,
	PD_VHOST_SET_OWNER,
	PD_VHOST_RESET_OWNER,
	PD_VHOST_SET_MEM_TABLE,
	PD_VHOST_SET_LOG_BASE,
	PD_VHOST_SET_LOG_FD,
	PD_VHOST_SET_VRING_NUM,
	PD_VHOST_SET_VRING_ADDR,
	PD_VHOST_SET_VRING_BASE,
	PD_VHOST_GET_VRING_BASE,
	PD_VHOST_SET_VRING_KICK,
	PD_VHOST_SET_VRING_CALL,
	PD_VHOST_SET_VRING_ERR,
	PD_VHOST_GET_PROTOCOL_FEATURES,
	PD_VHOST_SET_PROTOCOL_FEATURES,
	PD_VHOST_GET_QUEUE_NUM,
	PD_VHOST_SET_VRING_ENABLE,
	PD_VHOST_SEND_RARP,
	PD_VHOST_NET_SET_MTU,
	PD_VHOST_SET_BACKEND_REQ_FD,
	PD_VHOST_IOTLB_MSG,
	PD_VHOST_SET_VRING_ENDIAN,
	PD_VHOST_GET_CONFIG,
	PD_VHOST_SET_CONFIG,
	PD_VHOST_CREATE_CRYPTO_SESSION,
	PD_VHOST_CLOSE_CRYPTO_SESSION,
	PD_VHOST_POSTCOPY_ADVISE,
	PD_VHOST_POSTCOPY_LISTEN,
	PD_VHOST_POSTCOPY_END,
	PD_VHOST_GET_INFLIGHT_FD,
	PD_VHOST_SET_INFLIGHT_FD,
	PD_VHOST_GPU_SET_SOCKET,
	PD_VHOST_RESET_DEVICE,
	PD_VHOST_VRING_KICK,
	PD_VHOST_GET_MAX_MEM_SLOTS,
	PD_VHOST_ADD_MEM_REG,
	PD_VHOST_REM_MEM_REG,
	PD_VHOST_SET_STATUS,
	PD_VHOST_GET_STATUS,
	PD_VHOST_REQUESTS /* one more than the last */
};

/* What a back-end asks of the front-end by itself, on the channel of SET_BACKEND_REQ_FD. */
enum pd_vhost_backend_request {
	PD_VHOST_BACKEND_IOTLB_MSG = 1,
	PD_VHOST_BACKEND_CONFIG_CHANGE_MSG,
	PD_VHOST_BACKEND_VRING_HOST_NOTIFIER_MSG,
	PD_VHOST_BACKEND_VRING_CALL,
	PD_VHOST_BACKEND_VRING_ERR,
	PD_VHOST_BACKEND_REQUESTS /* one more than the last that we know */
};

/* Header flags. */
#define PD_VHOST_VERSION 0x1u
#define PD_VHOST_VERSION_MASK 0x3u
#define PD_VHOST_REPLY 0x4u
#define PD_VHOST_NEED_REPLY 0x8u

/* In the u64 of KICK, CALL and ERR: the ring's index, and "no descriptor comes with this". */
#define PD_VHOST_VRING_INDEX_MASK 0xffull
#define PD_VHOST_VRING_NOFD 0x100ull

/* Protocol feature bits. */
enum pd_vhost_protocol_feature {
	PD_VHOST_PF_MQ = 0,
	PD_VHOST_PF_LOG_SHMFD = 1,
	PD_VHOST_PF_RARP = 2,
	PD_VHOST_PF_REPLY_ACK = 3,
	PD_VHOST_PF_MTU = 4,
	PD_VHOST_PF_BACKEND_REQ = 5,
	PD_VHOST_PF_CROSS_ENDIAN = 6,
	PD_VHOST_PF_CRYPTO_SESSION = 7,
	PD_VHOST_PF_PAGEFAULT = 8,
	PD_VHOST_PF_CONFIG = 9,
	PD_VHOST_PF_BACKEND_SEND_FD = 10,
	PD_VHOST_PF_HOST_NOTIFIER = 11,
	PD_VHOST_PF_INFLIGHT_SHMFD = 12,
	PD_VHOST_PF_RESET_DEVICE = 13,
	PD_VHOST_PF_INBAND_NOTIFICATIONS = 14,
	PD_VHOST_PF_CONFIGURE_MEM_SLOTS = 15,
	PD_VHOST_PF_STATUS = 16,
};

/* The virtio feature bit that says protocol features can be negotiated. */
#define PD_VHOST_F_PROTOCOL_FEATURES 30

struct pd_vhost_header {
	uint32_t request; /* enum pd_vhost_request */
	uint32_t flags;
	uint32_t size; /* of the payload, bytes */
};
_Static_assert(sizeof(struct pd_vhost_header) == 12, "the header is 12 bytes");

struct pd_vhost_vring_state {
	uint32_t index;
	uint32_t num;
};
_Static_assert(sizeof(struct pd_vhost_vring_state) == 8, "layout");

struct pd_vhost_vring_addr {
	uint32_t index;
	uint32_t flags;
	uint64_t desc; /* the three parts, as addresses of the front-end's process */
	uint64_t used;
	uint64_t avail;
	uint64_t log; /* guest address of the used ring, for the dirty log */
};
_Static_assert(sizeof(struct pd_vhost_vring_addr) == 40, "layout");
_Static_assert(offsetof(struct pd_vhost_vring_addr, used) == 16, "layout");
_Static_assert(offsetof(struct pd_vhost_vring_addr, avail) == 24, "layout");

struct pd_vhost_region {
	uint64_t gpa;         /* guest physical address: what descriptors hold */
	uint64_t size;        /* bytes */
	uint64_t uaddr;       /* front-end process address: what SET_VRING_ADDR holds */
	uint64_t mmap_offset; /* where the region starts in its file */
};
_Static_assert(sizeof(struct pd_vhost_region) == 32, "layout");

struct pd_vhost_memory {
	uint32_t n_regions;
	uint32_t padding;
	struct pd_vhost_region regions[PD_VHOST_REGIONS_MAX];
};
_Static_assert(offsetof(struct pd_vhost_memory, regions) == 8, "layout");

struct pd_vhost_single_region {
	uint64_t padding;
	struct pd_vhost_region region;
};
_Static_assert(sizeof(struct pd_vhost_single_region) == 40, "layout");

/* What an IOTLB message says, and the access that a translation allows or a miss is about. */
enum pd_vhost_iotlb_type {
	PD_VHOST_IOTLB_MISS = 1,
	PD_VHOST_IOTLB_UPDATE,
	PD_VHOST_IOTLB_INVALIDATE,
	PD_VHOST_IOTLB_ACCESS_FAIL,
};
#define PD_VHOST_ACCESS_RO 0x1
#define PD_VHOST_ACCESS_WO 0x2
#define PD_VHOST_ACCESS_RW 0x3

/* As Linux has it, which is what every peer sends: with padding at its end. */
struct pd_vhost_iotlb {
	uint64_t iova;
	uint64_t size;
	uint64_t uaddr; /* front-end process address */
	uint8_t perm;   /* PD_VHOST_ACCESS_* */
	uint8_t type;   /* enum pd_vhost_iotlb_type */
	uint8_t padding[6];
};
_Static_assert(sizeof(struct pd_vhost_iotlb) == 32, "layout");

struct pd_vhost_log {
	uint64_t size;   /* bytes */
	uint64_t offset; /* where the log starts in its file */
};
_Static_assert(sizeof(struct pd_vhost_log) == 16, "layout");

/*
 * In-flight memory: `num_queues` queue regions for up to `queue_size` descriptors each, in a file.
 */
struct pd_vhost_inflight_desc {
	uint64_t mmap_size;
	uint64_t mmap_offset;
	uint16_t num_queues;
	uint16_t queue_size;
	uint32_t padding; /* which some peers leave out */
};
_Static_assert(sizeof(struct pd_vhost_inflight_desc) == 24, "layout");

/* Payloads up to this size are read, so that what we refuse is refused with its name. */
#define PD_VHOST_PAYLOAD_MAX 512

union pd_vhost_payload {
	uint64_t u64;
	struct pd_vhost_vring_state state;
	struct pd_vhost_vring_addr addr;
	struct pd_vhost_memory memory;
	struct pd_vhost_single_region region;
	struct pd_vhost_iotlb iotlb;
	struct pd_vhost_log log;
	struct pd_vhost_inflight_desc inflight;
	uint8_t bytes[PD_VHOST_PAYLOAD_MAX];
};
_Static_assert(sizeof(union pd_vhost_payload) == PD_VHOST_PAYLOAD_MAX, "nothing is larger");

/* A message in memory. Descriptors beyond n_fds are -1. */
struct pd_vhost_msg {
	struct pd_vhost_header hdr;
	uint32_t n_fds;
	union pd_vhost_payload payload;
	int fds[PD_VHOST_FDS_MAX];
};

/* How many payload bytes a message has. */
enum pd_vhost_size {
	PD_VHOST_SIZE_NONE,   /* 0 */
	PD_VHOST_SIZE_U64,    /* 8 */
	PD_VHOST_SIZE_STATE,  /* struct pd_vhost_vring_state */
	PD_VHOST_SIZE_ADDR,   /* struct pd_vhost_vring_addr */
	PD_VHOST_SIZE_MEMORY, /* as many regions as it says, or the table in full */
	PD_VHOST_SIZE_REGION, /* struct pd_vhost_single_region */
	PD_VHOST_SIZE_LOG,    /* 16, or 8 without LOG_SHMFD */
	PD_VHOST_SIZE_IOTLB,  /* struct pd_vhost_iotlb */
	PD_VHOST_SIZE_KEPT,   /* struct pd_vhost_inflight_desc, with its padding or without */
	PD_VHOST_SIZE_ANY,    /* of a message we never offer: whatever fits */
	PD_VHOST_SIZES
};

/* How many descriptors a message has. */
enum pd_vhost_fds {
	PD_VHOST_FDS_NONE,     /* none */
	PD_VHOST_FDS_ONE,      /* exactly one */
	PD_VHOST_FDS_OPTIONAL, /* none or one */
	PD_VHOST_FDS_VRING,    /* one, or none with the no-fd bit */
	PD_VHOST_FDS_REGIONS,  /* one for each region */
	PD_VHOST_FDS_ANY,      /* of a message we never offer: whatever fits */
	PD_VHOST_FDS_KINDS
};

/* What comes back. */
enum pd_vhost_answer {
	PD_VHOST_ANSWER_NONE, /* nothing, but an acknowledgement when need_reply asks for it */
	PD_VHOST_ANSWER_U64,
	PD_VHOST_ANSWER_STATE,
	PD_VHOST_ANSWER_OWN, /* a reply of its own kind: the handler's, or of a message we never offer */
	PD_VHOST_ANSWERS
};

/* One row: everything about a message that does not depend on the role's state. */
struct pd_vhost_kind {
	const char *name; /* as the specification spells it, without VHOST_USER_ */
	uint8_t size;     /* enum pd_vhost_size */
	uint8_t fds;      /* enum pd_vhost_fds */
	uint8_t answer;   /* enum pd_vhost_answer */
	int8_t feature;   /* the protocol feature it belongs to, or -1 */
};

/* By enum pd_vhost_request; the row of 0 has no name. */
extern const struct pd_vhost_kind pd_vhost_kinds[PD_VHOST_REQUESTS];

/* The name of a request, "unknown" when the protocol has none of that number. */
const char *pd_vhost_request_name(uint32_t request);

/*
 * Look at a header alone, as soon as it is there. `reply`: it must (front-end) or must not
 * (back-end) have the reply flag. Returns NULL, or a few words about what is wrong with it.
 */
const char *pd_vhost_check_header(const struct pd_vhost_header *hdr, int reply);

/* Look at a whole request. Returns NULL, or a few words about what is wrong with it. */
const char *pd_vhost_check_request(const struct pd_vhost_msg *msg);

/* The name of a request of the back-end's, without VHOST_USER_BACKEND_. */
const char *pd_vhost_backend_request_name(uint32_t request);

/*
 * Look at a whole request of the back-end's. Returns NULL, or a few words about what is wrong with
 * it.
 */
const char *pd_vhost_check_backend_request(const struct pd_vhost_msg *msg);

/*
 * Look at a whole reply to `request`, one that we send. `ack`: need_reply was set. Returns NULL or
 * what is wrong.
 */
const char *pd_vhost_check_reply(const struct pd_vhost_msg *msg, uint32_t request);

/* Close the descriptors that `msg` still holds. */
void pd_vhost_msg_close_fds(struct pd_vhost_msg *msg);

/* Take the first descriptor out of `msg`, or -1: the caller owns it. */
int pd_vhost_msg_take_fd(struct pd_vhost_msg *msg);

#endif /* PD_TRANSPORT_VHOST_WIRE_H */
