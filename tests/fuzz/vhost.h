/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of the vhost-user fuzzer share.
 *
 *   vhost.c           the library's side, and the fuzzer
 *   vhost_message.c   messages: sensible ones mostly
 *   vhost_kept.c      memory for what is in flight, as a back-end leaves it
 *   vhost_frontend.c  a random front-end, for our back-end
 *   vhost_backend.c   a random back-end, for our front-end
 */
#ifndef PD_TESTS_FUZZ_VHOST_H
#define PD_TESTS_FUZZ_VHOST_H

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "fuzz.h"
#include "transport/vhost/backend.h"
#include "transport/vhost/frontend.h"

#define GPA 0x100000ull
#define UVA 0x7f0000000000ull
#define MEM_BYTES (64u << 10)
#define RING_BYTES \
	0x2000u /* between two rings: descriptors, available ring at 0x800, used ring at 0x1000 */
#define RINGS_MAX 4u
#define BUFFERS_AT (RINGS_MAX * RING_BYTES)
#define KEPT_SIZE 128u /* of the largest ring that there is an in-flight region for */

/* The role of a kind; the structure is new for each run, the lanes stay. */
struct side {
	struct pd_port_config config;
	struct pd_vhost_role_base *role;
	struct pd_vhost_lane *lanes;
	struct pd_progress_work broken;
	bool is_up;
	unsigned long ups, messages;
};
/* That of the run. */
extern struct side *side;

/* Files that the peer may send. */
enum pool { MEMORY, SHORT_MEMORY, EVENT, BLOCKING_EVENT, PIPE, SOCKET, FOLDER, NOTHING, POOL };
#define LOG SHORT_MEMORY /* large enough for one */
#define LOG_BYTES 4096
extern int pool[POOL];
extern uint8_t *memory; /* MEMORY, mapped */

struct peer {
	int sock;                   /* -1: the peer is gone */
	bool cut;                   /* MEMORY is shorter than it was */
	uint32_t offset[RINGS_MAX]; /* in each ring: descriptors so far */
	uint32_t num[RINGS_MAX];
	bool packed;
	int channel;        /* the peer's end of the back-end's channel, -1: there is none */
	bool drops_channel; /* while the back-end is about to use it */
	/* The rings' memory as it was told, mapped. */
	uint8_t *area;
	uint64_t area_bytes;
	uint64_t features;
	/* As front-end: what it was offered, once it has asked, and what it has taken of that. */
	uint64_t offered, offered_protocol, taken;
	bool iommu; /* it wants its addresses translated */
	/* The in-flight region that it was given: -1 and NULL where there is none. */
	int kept_fd;
	uint8_t *kept;
	struct pd_vhost_inflight_desc kept_desc;
};
extern struct peer peer;

/* --- vhost.c --------------------------------------------------------------------------------- */

/* Let the library do what there is to do. */
void turn(void);

/* The peer closes its end of the channel, if it has one. */
void channel_gone(void);

/* The data path, on each side that is up; then what it has set off. */
void call_lanes(void);

/* The peer closes its connection; it makes a new one; somebody else does, while it has one. */
void peer_gone(void);
void peer_comes(void);
void another_comes(void);

/* --- vhost_message.c ------------------------------------------------------------------------- */

/* A file of the pool; `usual` mostly. */
int any_file(enum pool usual);

/* A place in the peer's memory, or somewhere. */
uint64_t any_address(uint64_t base);

/* A number that means something to somebody. */
uint64_t any_number(void);

/* Features; the number of a message whose payload is one. */
uint64_t any_features(void);
uint64_t any_u64(uint32_t request);

/* The payload of a message of this size. Returns its bytes. */
uint32_t any_payload(uint32_t request, enum pd_vhost_size size, union pd_vhost_payload *p);

/* One message, as it should be mostly. */
void send_message(int sock, uint32_t request, uint32_t flags, const union pd_vhost_payload *p,
		  uint32_t size, const int *fds, unsigned n_fds);

/* In-flight memory for our rings, of a size that is right mostly. */
struct pd_vhost_inflight_desc any_kept(void);

/* A request with any payload, and the descriptors that go with it. */
void send_request(uint32_t request);

/*
 * Read one message of the library's, with its descriptor (-1: none); `reply`: PD_VHOST_REPLY, or 0
 * for a request. It is as it should be. Returns false when there is none.
 */
bool read_message(int sock, uint32_t reply, struct pd_vhost_header *hdr, union pd_vhost_payload *p,
		  int *fd);

/* --- vhost_kept.c ---------------------------------------------------------------------------- */

/* Keep the in-flight region that was given, in place of what there was; `fd` is taken. */
void kept_take(const struct pd_vhost_inflight_desc *desc, int fd);

/*
 * Write into it what a back-end leaves behind that dies with something in flight on ring `i`, or
 * what none would.
 */
void kept_note(uint32_t i);

/* --- roles ----------------------------------------------------------------------------------- */

/* What the peer does next, as a front-end and as a back-end. */
void front_end_step(void);
void back_end_step(void);

#endif /* PD_TESTS_FUZZ_VHOST_H */
