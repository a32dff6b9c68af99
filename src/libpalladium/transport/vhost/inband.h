/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Notifications as messages in place of eventfds (INBAND_NOTIFICATIONS), for either role.
 *
 * Rings know eventfds only, here too. Each has two of ours that no peer ever sees: `out`, by which
 * its side rings the peer as it rings any, and which the progress thread hears and turns into a
 * message; and `in`, which is rung when a message of the peer's comes. So the data path is the one
 * without messages and never meets the socket, and a program that does not ask for this pays
 * nothing for it.
 *
 * One message at a time is on its way: the next goes when the peer has acknowledged it
 * (specification, "In-band notifications"). What is rung meanwhile is noted per ring. So a peer
 * that does not answer holds up nothing but its own notifications, the socket never fills up with
 * them, and no ring is forgotten.
 *
 * pd_control is held by the caller of everything here.
 */
#ifndef PD_TRANSPORT_VHOST_INBAND_H
#define PD_TRANSPORT_VHOST_INBAND_H

#include "transport/transport.h"
#include "transport/vhost/conn.h"

/*
 * What a peer must know for it. It is an error to agree on INBAND_NOTIFICATIONS without the other
 * two.
 */
#define PD_VHOST_INBAND_NEEDS                                                       \
	(PD_BIT(PD_VHOST_PF_INBAND_NOTIFICATIONS) | PD_BIT(PD_VHOST_PF_REPLY_ACK) | \
	 PD_BIT(PD_VHOST_PF_BACKEND_REQ))

struct pd_vhost_inband;

/* The notifications of one ring. */
struct pd_vhost_bell {
	struct pd_vhost_inband *of;
	struct pd_progress_fd out;
	int in;
};

struct pd_vhost_inband {
	struct pd_vhost_conn *conn; /* that our messages go out on, which may be closed at times */
	uint32_t request;           /* what they are */
	/* They cannot be sent: the connection must end for this reason. */
	void (*failed)(struct pd_vhost_inband *inband, const char *reason);
	unsigned n_rings; /* 0: not agreed on */
	uint32_t due;     /* rings that were rung since their last message, as bits */
	unsigned ring;    /* of the last message */
	bool awaited;     /* which is not acknowledged */
	struct pd_vhost_bell bell[2 * PD_QUEUES_MAX];
};
_Static_assert(2 * PD_QUEUES_MAX <= 32, "a bit for each ring");

/* None yet. Once, before everything else; conn, request and failed are as above. */
void pd_vhost_inband_init(struct pd_vhost_inband *inband, struct pd_vhost_conn *conn,
			  uint32_t request,
			  void (*failed)(struct pd_vhost_inband *inband, const char *reason));

/*
 * It was agreed on, for so many rings; harmless when it was before. Returns 0 or -errno with
 * nothing changed.
 */
int pd_vhost_inband_open(struct pd_vhost_inband *inband, unsigned n_rings);

/* It is over; no ring is up with what is here. Harmless when it was not agreed on. */
void pd_vhost_inband_close(struct pd_vhost_inband *inband);

/* True when it was agreed on. */
static inline bool pd_vhost_inband_is_open(const struct pd_vhost_inband *inband)
{
	return inband->n_rings;
}

/*
 * The eventfd by which ring `i` rings the peer, and the one that the peer's messages ring; -1: not
 * agreed on.
 */
static inline int pd_vhost_inband_out(const struct pd_vhost_inband *inband, unsigned i)
{
	return i < inband->n_rings ? inband->bell[i].out.fd : -1;
}
static inline int pd_vhost_inband_in(const struct pd_vhost_inband *inband, unsigned i)
{
	return i < inband->n_rings ? inband->bell[i].in : -1;
}

/* An acknowledgement came. Returns NULL or why the connection must end. */
const char *pd_vhost_inband_answer(struct pd_vhost_inband *inband, const struct pd_vhost_msg *msg);

/* There may be room for a message. Returns NULL or why the connection must end. */
const char *pd_vhost_inband_drained(struct pd_vhost_inband *inband);

/* `conn` is another one now, so the last message may have come to nothing. Returns as above. */
const char *pd_vhost_inband_again(struct pd_vhost_inband *inband);

/*
 * Before the connection is closed: what is rung goes out without waiting for acknowledgements, as
 * far as there is room.
 */
void pd_vhost_inband_flush(struct pd_vhost_inband *inband);

#endif /* PD_TRANSPORT_VHOST_INBAND_H */
