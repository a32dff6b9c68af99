/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A random back-end, for our front-end: it answers, uses rings, and asks for translations.
 */
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhost.h"

/* Map the memory that a table speaks of. */
static void map_area(const struct pd_vhost_memory *m, int fd)
{
	struct stat st;

	if (peer.area || fstat(fd, &st))
		return;
	peer.area_bytes = (uint64_t)st.st_size;
	peer.area = mmap(NULL, peer.area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(peer.area != MAP_FAILED && m->n_regions == 1);
}

/* Answer one request: rightly mostly. */
static void answer(const struct pd_vhost_header *hdr, const union pd_vhost_payload *asked)
{
	const struct pd_vhost_kind *kind = &pd_vhost_kinds[hdr->request];
	union pd_vhost_payload p = {0};
	uint32_t bytes = sizeof(p.u64);
	int fd = -1;

	if (kind->answer == PD_VHOST_ANSWER_NONE && !(hdr->flags & PD_VHOST_NEED_REPLY))
		return;
	if (rarely(30)) /* not now, or never */
		return;
	if (kind->answer == PD_VHOST_ANSWER_NONE) {
		p.u64 = rarely(20) ? rnd(3) : 0;
	} else if (kind->answer == PD_VHOST_ANSWER_U64) {
		/* The features are what they were, or the rings would begin anew each time. */
		p.u64 = hdr->request == PD_VHOST_GET_FEATURES && !rarely(8) ? peer.features
									    : any_u64(hdr->request);
	} else {
		p = *asked;
		bytes = rarely(4) ? any_payload(hdr->request, PD_VHOST_SIZE_ANY, &p) : hdr->size;
		if (hdr->request == PD_VHOST_GET_INFLIGHT_FD && !rarely(4))
			p.inflight.mmap_size = any_number();
		fd = kind->answer == PD_VHOST_ANSWER_OWN ? any_file(MEMORY) : -1;
	}
	if (rarely(60))
		fd = any_file(EVENT);
	send_message(peer.sock, hdr->request, PD_VHOST_REPLY, &p, bytes, &fd, fd >= 0);
}

/* Read one message and answer it. Returns false when none was there. */
static bool serve_one(void)
{
	struct pd_vhost_header hdr;
	union pd_vhost_payload p;
	int fd;

	if (!read_message(peer.sock, 0, &hdr, &p, &fd))
		return false;
	MUST(hdr.request < PD_VHOST_REQUESTS);
	if (hdr.request == PD_VHOST_SET_MEM_TABLE)
		map_area(&p.memory, fd);
	if (hdr.request == PD_VHOST_SET_BACKEND_REQ_FD && peer.channel < 0)
		peer.channel = fd;
	else if (fd >= 0)
		close(fd);
	answer(&hdr, &p);
	turn();
	return true;
}

/* Write to the front-end's rings. */
static void scribble(void)
{
	uint32_t room = (uint32_t)pd_min(peer.area_bytes, 0x40000ull);

	for (uint32_t n = 1 + rnd(8); peer.area && n; n--)
		peer.area[rnd(room)] = (uint8_t)rnd(one_in(2) ? 4 : 256);
}

/* Use everything that the front-end has made available on a split ring, rightly. */
static void use_ring(void)
{
	struct pd_vhost_frontend *fe = (struct pd_vhost_frontend *)side->role;
	const struct pd_vq_layout *layout = &fe->ring[rnd(2 * side->config.queues)].layout;
	struct vring_used *used = layout->used;
	struct vring_avail *avail = layout->avail;

	if (pd_vq_is_packed(fe->features) || !layout->size)
		return;
	for (uint32_t n = rnd(8); n && used->idx != avail->idx; n--) {
		uint32_t at = used->idx & (layout->size - 1);

		used->ring[at].id = avail->ring[at];
		used->ring[at].len = layout->receive ? layout->hdr_bytes + rnd(200) : 0;
		used->idx++;
	}
}

/* Ask for something on the channel, and take what was answered to an earlier question. */
static void ask(void)
{
	union pd_vhost_payload p = {0};
	uint32_t request =
		one_in(8) ? rnd(PD_VHOST_BACKEND_REQUESTS + 1) : PD_VHOST_BACKEND_IOTLB_MSG;
	enum pd_vhost_size size = request == PD_VHOST_BACKEND_IOTLB_MSG    ? PD_VHOST_SIZE_IOTLB
				  : request >= PD_VHOST_BACKEND_VRING_CALL ? PD_VHOST_SIZE_STATE
									   : PD_VHOST_SIZE_ANY;
	uint32_t bytes = any_payload(0, size, &p);
	int fd = any_file(EVENT);
	char answers[600];

	send_message(peer.channel, request, one_in(2) ? PD_VHOST_NEED_REPLY : 0, &p, bytes, &fd,
		     rarely(8));
	if (!one_in(8) && peer.channel >= 0 &&
	    recv(peer.channel, answers, sizeof(answers), MSG_DONTWAIT) < 0)
		MUST(errno == EAGAIN || errno == ECONNRESET);
}

/* The time that it has for its answers is over, if it is running. */
static void too_late(void)
{
	struct pd_progress_timer *timer = &((struct pd_vhost_frontend *)side->role)->handshake;

	if (pd_list_empty(&timer->node))
		return;
	pd_progress_timer_cancel(timer);
	timer->fn(timer);
}

void back_end_step(void)
{
	switch (rnd(16)) {
	case 5:
		ask();
		break;
	case 0:
		if (one_in(3))
			peer_comes();
		break;
	case 1:
		scribble();
		call_lanes();
		break;
	case 2:
	case 3:
		use_ring();
		call_lanes();
		break;
	case 4: /* nobody asked */
		if (rarely(2))
			send_request(1 + rnd(PD_VHOST_REQUESTS - 1));
		break;
	case 6:
		if (one_in(8))
			too_late();
		break;
	default:
		for (int i = 0; i < 40 && serve_one(); i++)
			;
	}
	turn();
}
