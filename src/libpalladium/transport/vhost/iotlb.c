/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The IOTLB: what the front-end said of where its I/O virtual addresses stand.
 *
 * Two memory tables (virtio/mem.h) by I/O virtual address, one of what may be read and one of what
 * may be written, so that the data path finds a translation as it finds any address, in the one
 * that its ring is for, and permission is a matter of being there. The data path reads them under
 * the locks of the lanes' sides. So a change is made in a second pair, and each side is moved over
 * under its lock: when all are, nobody uses what was taken away, and the message may be
 * acknowledged.
 *
 * Misses. The data path notes an address that has no translation, leaves its chain in the ring, and
 * goes on when the tables have changed (pd_vq_missed, pd_vq_stall). What is noted is asked for from
 * here, once: the answer is an update on the connection, whenever it comes, and an address that is
 * never answered costs nothing. An answer that does not allow the access makes the chain a bad one,
 * and the front-end is told (ACCESS_FAIL). A part of a ring that has no translation is asked for in
 * the same way, by the control side, and the ring comes up when it is known.
 *
 * What is known is bounded. A front-end knows everything itself and is asked again for what was
 * thrown away.
 */
#include "transport/vhost/iotlb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transport/vhost/backend_channel.h"
#include "transport/vhost/backend_rings.h"

_Static_assert(PD_VQ_READ == PD_VHOST_ACCESS_RO && PD_VQ_WRITE == PD_VHOST_ACCESS_WO,
	       "queues and messages spell an access alike");

struct pd_vhost_tables {
	struct pd_mem_table read, write;
};

struct pd_vhost_iotlb_cache {
	struct pd_vhost_tables *now, *next;        /* in use, and to be changed */
	uint32_t victim;                           /* which of many is thrown away next */
	struct pd_vq_miss part[2 * PD_QUEUES_MAX]; /* of rings that are down */
};

int pd_vhost_iotlb_begin(struct pd_vhost_backend *be)
{
	struct pd_vhost_iotlb_cache *c = be->iotlb;

	if (c)
		return 0;
	c = be->iotlb = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->now = calloc(1, sizeof(*c->now));
	c->next = calloc(1, sizeof(*c->next));
	if (c->now && c->next)
		return 0;
	pd_vhost_iotlb_end(be);
	return -ENOMEM;
}

void pd_vhost_iotlb_end(struct pd_vhost_backend *be)
{
	if (!be->iotlb)
		return;
	free(be->iotlb->now);
	free(be->iotlb->next);
	free(be->iotlb);
	be->iotlb = NULL;
}

/* --- tables -------------------------------------------------------------------------------- */

/* Copy a table, without what a new one has behind its end. */
static void table_copy(struct pd_mem_table *to, const struct pd_mem_table *from)
{
	to->n = from->n;
	memcpy(to->region, from->region, from->n * sizeof(from->region[0]));
}

/* Take out entry `i`. */
static void table_drop(struct pd_mem_table *table, uint32_t i)
{
	table->n--;
	memmove(&table->region[i], &table->region[i + 1],
		(table->n - i) * sizeof(table->region[0]));
}

/* Put `entry` in as the `i`th. There is room. */
static void table_put(struct pd_mem_table *table, uint32_t i, const struct pd_mem_region *entry)
{
	memmove(&table->region[i + 1], &table->region[i],
		(table->n - i) * sizeof(table->region[0]));
	table->region[i] = *entry;
	table->n++;
}

/* The entry `r` without what is before `from`. */
static struct pd_mem_region behind(const struct pd_mem_region *r, uint64_t from)
{
	uint64_t cut = from - r->guest_addr;

	return (struct pd_mem_region){from, r->size - cut, r->user_addr + cut, r->host + cut};
}

/*
 * Take out `from` to `last`, both included; of an entry that is partly there, the rest stays. There
 * is room for one more. Returns where a new entry for that stretch goes.
 */
static uint32_t table_cut(struct pd_mem_table *table, uint64_t from, uint64_t last)
{
	uint32_t i = 0;

	while (i < table->n && table->region[i].guest_addr + (table->region[i].size - 1) < from)
		i++;
	while (i < table->n && table->region[i].guest_addr <= last) {
		struct pd_mem_region *r = &table->region[i];
		uint64_t end = r->guest_addr + (r->size - 1);

		if (end > last) {
			struct pd_mem_region rest = behind(r, last + 1);

			if (r->guest_addr >= from) {
				*r = rest;
				return i;
			}
			table_put(table, i + 1, &rest);
			end = last;
		}
		if (r->guest_addr < from) {
			r->size = from - r->guest_addr;
			i++;
			continue;
		}
		table_drop(table, i);
	}
	return i;
}

/*
 * Put an entry in, in place of what is there; the table's bound is kept by throwing another away.
 */
static void table_set(struct pd_mem_table *table, const struct pd_mem_region *entry,
		      uint32_t *victim)
{
	/* Each cut may leave an entry in two. */
	while (table->n + 2 > PD_MEM_REGIONS_MAX)
		table_drop(table, (*victim += 7) % table->n);
	table_put(table, table_cut(table, entry->guest_addr, entry->guest_addr + (entry->size - 1)),
		  entry);
}

/*
 * Where `iova` to `iova + len - 1` stand in one piece of our memory, though in several entries
 * perhaps. NULL when some of it is missing: *from is the first such address; or when it is in
 * pieces: *from is past the end.
 */
static uint8_t *table_find(const struct pd_mem_table *table, uint64_t iova, uint64_t len,
			   uint64_t *from)
{
	uint8_t *start = NULL;
	uint32_t hint = 0;

	for (uint64_t done = 0, run; done < len; done += run) {
		uint8_t *p = pd_mem_at(table, &hint, iova + done, &run);

		*from = iova + done;
		if (!p)
			return NULL;
		if (!done)
			start = p;
		*from = iova + len;
		if (p != start + done)
			return NULL;
		run = pd_min(run, len - done);
	}
	return start;
}

/* Do the tables allow this access to one byte? */
static bool is_allowed(const struct pd_vhost_tables *t, uint64_t iova, uint8_t access)
{
	uint64_t from;

	return (!(access & PD_VQ_READ) || table_find(&t->read, iova, 1, &from)) &&
	       (!(access & PD_VQ_WRITE) || table_find(&t->write, iova, 1, &from));
}

/* --- rings --------------------------------------------------------------------------------- */

void *pd_vhost_iotlb_part(struct pd_vhost_backend *be, unsigned i, uint64_t iova, uint64_t len,
			  uint8_t access, const char **why)
{
	const struct pd_vhost_tables *t = be->iotlb->now;
	struct pd_vq_miss *miss = &be->iotlb->part[i];
	uint64_t from = iova;
	uint8_t *p;

	*why = NULL;
	if (iova + (len - 1) < iova) {
		*why = pd_vhost_reason(&be->role, "ring %u wraps", i);
		return NULL;
	}
	p = table_find(&t->read, iova, len, &from);
	if (p && (access & PD_VQ_WRITE) && table_find(&t->write, iova, len, &from) != p)
		p = NULL;
	if (p)
		return p;
	if (from == iova + len) {
		*why = pd_vhost_reason(&be->role, "ring %u does not stand in one memory region", i);
	} else if (miss->denied && miss->addr == from) {
		*why = pd_vhost_reason(&be->role,
				       "ring %u: the peer does not allow access to 0x%llx", i,
				       (unsigned long long)from);
	} else if (!miss->noted || miss->addr != from) {
		*miss = (struct pd_vq_miss){.addr = from, .access = access, .noted = true};
	}
	return NULL;
}

/* The table that the buffers of this side are looked up in: a device reads what it receives. */
static const struct pd_mem_table *buffers_of(const struct pd_vhost_tables *t, enum pd_dir dir)
{
	return dir == PD_RX ? &t->read : &t->write;
}

void pd_vhost_iotlb_attach(struct pd_vhost_backend *be, struct pd_vhost_lane *lane, enum pd_dir dir)
{
	const struct pd_vhost_tables *t = be->iotlb->now;

	pd_vhost_lane_retranslate(lane, dir, buffers_of(t, dir), &t->read);
}

/*
 * `from` to `last` changed: what waits there has its answer, which may be no. Returns whether it
 * is.
 */
static bool answer(struct pd_vq_miss *miss, const struct pd_vhost_tables *t, uint64_t from,
		   uint64_t last, bool update)
{
	if ((!miss->noted && !miss->denied) || miss->addr < from || miss->addr > last)
		return false;
	miss->noted = miss->asked = false;
	miss->denied = update && !is_allowed(t, miss->addr, miss->access);
	return miss->denied;
}

/*
 * Use the changed tables, in which `from` to `last` are not what they were: every side that is up
 * is moved over. Returns NULL or why the connection must end.
 */
static const char *change(struct pd_vhost_backend *be, uint64_t from, uint64_t last, bool update)
{
	struct pd_vhost_iotlb_cache *c = be->iotlb;
	struct pd_vhost_tables *t = c->next;
	const char *why = NULL;

	for (unsigned i = 0; i < pd_vhost_n_rings(&be->role); i++) {
		struct pd_vhost_lane *lane = pd_vhost_ring_lane(&be->role, i);
		enum pd_dir dir = pd_vhost_ring_dir(&be->role, i);
		struct pd_vq_miss miss = c->part[i];
		bool denied = false;

		if (be->ring[i].up) {
			pd_vhost_lane_lock(lane, dir);
			miss = lane->vq[dir].miss;
			denied = answer(&lane->vq[dir].miss, t, from, last, update);
			pd_vhost_lane_retranslate(lane, dir, buffers_of(t, dir), &t->read);
			pd_vhost_lane_unlock(lane, dir);
		} else {
			denied = answer(&c->part[i], t, from, last, update);
		}
		if (denied && !why)
			why = pd_vhost_backend_channel_iotlb(be, PD_VHOST_IOTLB_ACCESS_FAIL,
							     miss.addr, miss.access);
	}
	c->next = c->now;
	c->now = t;
	return why;
}

/* Does the part of a ring at `iova` lie, wholly or in part, in `from` to `last`? */
static bool meets(uint64_t iova, uint64_t len, uint64_t from, uint64_t last)
{
	return iova <= last && iova + (len - 1) >= from;
}

/*
 * Take the rings down that lie in `from` to `last` and do not stand where they stood: settling
 * looks for them anew. Others keep their places, even when what is known of those was thrown away.
 */
static void rings_moved(struct pd_vhost_backend *be, uint64_t from, uint64_t last)
{
	const bool packed = pd_vq_is_packed(be->features);

	for (unsigned i = 0; i < pd_vhost_n_rings(&be->role); i++) {
		const struct pd_vhost_ring *ring = &be->ring[i];

		if (!ring->up && !ring->sink)
			continue;
		if ((meets(ring->addr.desc, pd_vq_desc_bytes(ring->num), from, last) ||
		     meets(ring->addr.avail, pd_vq_avail_bytes(ring->num, packed), from, last) ||
		     meets(ring->addr.used, pd_vq_used_bytes(ring->num, packed), from, last)) &&
		    !pd_vhost_backend_ring_stays(be, i))
			pd_vhost_backend_ring_down(be, i);
	}
}

/* --- messages ------------------------------------------------------------------------------ */

/* Begin a change: the tables as they are. */
static struct pd_vhost_tables *change_begin(struct pd_vhost_backend *be)
{
	struct pd_vhost_tables *t = be->iotlb->next;

	table_copy(&t->read, &be->iotlb->now->read);
	table_copy(&t->write, &be->iotlb->now->write);
	return t;
}

/*
 * Forget `from` to `last` in a table that may be full: cut in the middle of an entry, the rest
 * behind is forgotten as well.
 */
static void table_forget(struct pd_mem_table *table, uint64_t from, uint64_t last, uint32_t *victim)
{
	while (table->n + 1 > PD_MEM_REGIONS_MAX)
		table_drop(table, (*victim += 7) % table->n);
	table_cut(table, from, last);
}

const char *pd_vhost_iotlb_message(struct pd_vhost_backend *be, const struct pd_vhost_iotlb *msg)
{
	struct pd_vhost_iotlb_cache *c = be->iotlb;
	struct pd_mem_region entry = {msg->iova, msg->size, msg->uaddr, NULL};
	const uint64_t last = msg->iova + (msg->size - 1);
	struct pd_vhost_tables *t;
	const char *why;

	if (!c)
		return "a translation, which was not agreed on";
	if (msg->type != PD_VHOST_IOTLB_UPDATE && msg->type != PD_VHOST_IOTLB_INVALIDATE)
		return "neither an update nor an invalidation";
	if (!msg->size || last < msg->iova)
		return "a translation of size 0, or whose addresses wrap";
	if (msg->type == PD_VHOST_IOTLB_UPDATE) {
		if (msg->perm & ~PD_VHOST_ACCESS_RW)
			return "a translation for no access that there is";
		entry.host = be->map ? pd_mem_translate_user(&be->map->table, msg->uaddr, msg->size)
				     : NULL;
		if (!entry.host)
			return "a translation to what is not in one memory region";
	}
	t = change_begin(be);
	table_forget(&t->read, msg->iova, last, &c->victim);
	table_forget(&t->write, msg->iova, last, &c->victim);
	if (entry.host && msg->perm & PD_VHOST_ACCESS_RO)
		table_set(&t->read, &entry, &c->victim);
	if (entry.host && msg->perm & PD_VHOST_ACCESS_WO)
		table_set(&t->write, &entry, &c->victim);
	why = change(be, msg->iova, last, entry.host);
	rings_moved(be, msg->iova, last);
	return why;
}

/* Drop from a table what does not stand in `memory`. */
static void table_prune(struct pd_mem_table *table, const struct pd_mem_table *memory)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < table->n; i++) {
		const struct pd_mem_region *r = &table->region[i];

		if (pd_mem_guest(memory, r->host) != UINT64_MAX &&
		    pd_mem_guest(memory, r->host + (r->size - 1)) != UINT64_MAX)
			table->region[kept++] = *r;
	}
	table->n = kept;
}

void pd_vhost_iotlb_prune(struct pd_vhost_backend *be, const struct pd_vhost_map *map)
{
	struct pd_vhost_tables *t = change_begin(be);

	table_prune(&t->read, &map->table);
	table_prune(&t->write, &map->table);
	change(be, 0, UINT64_MAX, false);
	rings_moved(be, 0, UINT64_MAX);
}

/* Ask for what `miss` notes, once. Returns as pd_vhost_iotlb_ask. */
static const char *ask(struct pd_vhost_backend *be, struct pd_vq_miss *miss)
{
	if (!miss->noted || miss->asked)
		return NULL;
	miss->asked = true;
	return pd_vhost_backend_channel_iotlb(be, PD_VHOST_IOTLB_MISS, miss->addr, miss->access);
}

const char *pd_vhost_iotlb_ask(struct pd_vhost_backend *be)
{
	const char *why = NULL;

	for (unsigned i = 0; be->iotlb && !why && i < pd_vhost_n_rings(&be->role); i++) {
		struct pd_vhost_lane *lane = pd_vhost_ring_lane(&be->role, i);
		enum pd_dir dir = pd_vhost_ring_dir(&be->role, i);

		if (!be->ring[i].up) {
			why = ask(be, &be->iotlb->part[i]);
			continue;
		}
		pd_vhost_lane_lock(lane, dir);
		why = ask(be, &lane->vq[dir].miss);
		pd_vhost_lane_unlock(lane, dir);
	}
	return why;
}
