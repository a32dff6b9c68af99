/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The names of the library's own descriptors (the theory stands in internal_fd.h).
 *
 * Records stand in chunks that are never freed, so that a late look at a name touches valid memory.
 * Each has a cache line: who rings one lane does not slow down who rings another.
 */
#include "base/internal_fd.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include "base/assert.h"
#include "base/atomic.h"
#include "base/lib.h"
#include "base/lock.h"
#include "base/sys.h"

#define CHUNK_SHIFT 8
#define CHUNK_RECORDS (1u << CHUNK_SHIFT)
#define CHUNKS 4096u
/*
 * How long pd_internal_fd_settle waits for one that does not end, since it is the caller's own
 * thread that was interrupted.
 */
#define SETTLE_YIELDS 1000u

struct record {
	int number;        /* -1: none */
	uint32_t turn;     /* 0 or 1 */
	uint32_t users[2]; /* of each turn */
	uint32_t free;     /* the next free record, plus one; under the lock */
	bool moving;       /* a mover waits: not to be used anew; under the lock */
	bool closed;       /* while it moved; under the lock */
} PD_CACHE_ALIGNED;

const struct pd_internal_fd_layer *pd_internal_fd_layer;
uint32_t pd_internal_fd_moves = 1;

static struct pd_lock names_lock = PD_LOCK_INIT(PD_RANK_NAMES);
static struct record *chunks[CHUNKS];
static uint32_t records;      /* made so far; under the lock */
static uint32_t records_free; /* the first free one, plus one; under the lock */

void pd_internal_fd_lock(void)
{
	pd_lock(&names_lock);
}

void pd_internal_fd_unlock(void)
{
	pd_unlock(&names_lock);
}

bool pd_internal_fd_busy(void)
{
	return pd_load_acquire(&names_lock.word);
}

void pd_internal_fd_settle(void)
{
	for (unsigned i = 0; i < SETTLE_YIELDS && pd_internal_fd_busy(); i++)
		sched_yield();
}

static struct record *record_of(int name)
{
	uint32_t i = (uint32_t)(name - PD_INTERNAL_FD_FIRST);

	/* Pairs with the release in record_make. */
	return &pd_load_acquire(&chunks[i >> CHUNK_SHIFT])[i & (CHUNK_RECORDS - 1)];
}

/* A record that nobody uses: its name, or -ENOMEM. Lock held. */
static int record_make(void)
{
	size_t bytes = CHUNK_RECORDS * sizeof(struct record);
	uint32_t i = records_free;
	struct record *chunk;

	if (i) {
		records_free = record_of(PD_INTERNAL_FD_FIRST + (int)(i - 1))->free;
		return PD_INTERNAL_FD_FIRST + (int)(i - 1);
	}
	if (records == CHUNKS * CHUNK_RECORDS)
		return -ENOMEM;
	if (!(records & (CHUNK_RECORDS - 1))) {
		chunk = pd_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (pd_sys_is_error(chunk))
			return -ENOMEM;
		pd_store_release(&chunks[records >> CHUNK_SHIFT], chunk);
	}
	return PD_INTERNAL_FD_FIRST + (int)records++;
}

/* Nobody knows the name any more. Lock held. */
static void record_free(int name)
{
	struct record *r = record_of(name);

	r->free = records_free;
	records_free = (uint32_t)(name - PD_INTERNAL_FD_FIRST) + 1;
}

/* --- making and closing ---------------------------------------------------------------------- */

/* As pd_internal_fd_try; `stays`: at its own number. */
static int name_make(int fd, bool stays)
{
	int name, number;

	if (fd < 0 || !pd_internal_fd_layer)
		return fd;
	name = record_make();
	if (name < 0)
		number = name;
	else if (stays)
		number = pd_internal_fd_layer->note(fd, name) ?: fd;
	else
		number = pd_internal_fd_layer->place(fd, name);
	if (number < 0) {
		if (name >= 0)
			record_free(name);
		return number;
	}
	pd_store_seq(&record_of(name)->number, number);
	return name;
}

int pd_internal_fd_try(int fd)
{
	return name_make(fd, false);
}

int pd_internal_fd_note(int fd)
{
	return name_make(fd, true);
}

int pd_internal_fd_take(int fd)
{
	int name = pd_internal_fd_try(fd);

	if (name < 0 && fd >= 0)
		pd_sys_close(fd);
	return name;
}

int pd_internal_fd_adopt(int fd)
{
	return pd_internal_fd(fd);
}

int pd_internal_fd_forget(int name)
{
	struct record *r;
	int number;

	if (!pd_internal_fd_is_name(name))
		return name;
	r = record_of(name);
	number = r->number;
	pd_store_seq(&r->number, -1);
	if (number >= 0)
		pd_internal_fd_layer->remove(number);
	if (r->moving)
		r->closed = true;
	else
		record_free(name);
	return number >= 0 ? number : -EBADF;
}

int pd_internal_fd_close(int name)
{
	int ret;

	pd_internal_fd_lock();
	ret = pd_internal_fd_forget(name);
	if (ret >= 0)
		ret = pd_sys_close(ret);
	pd_internal_fd_unlock();
	return ret;
}

/* --- use ------------------------------------------------------------------------------------- */

int pd_internal_fd_number(int fd)
{
	return pd_internal_fd_is_name(fd) ? pd_load_seq(&record_of(fd)->number) : fd;
}

int pd_internal_fd_hold(int fd, uint32_t *turn)
{
	struct record *r;

	*turn = 0;
	if (!pd_internal_fd_is_name(fd))
		return fd;
	r = record_of(fd);
	for (;;) {
		*turn = pd_load_seq(&r->turn);
		__atomic_fetch_add(&r->users[*turn], 1, __ATOMIC_SEQ_CST);
		if (pd_likely(pd_load_seq(&r->turn) == *turn))
			return pd_load_seq(&r->number);
		pd_fetch_sub(&r->users[*turn], 1);
	}
}

void pd_internal_fd_release(int fd, uint32_t turn)
{
	if (pd_internal_fd_is_name(fd))
		pd_fetch_sub(&record_of(fd)->users[turn], 1);
}

long pd_sys_internal(long nr, int fd, long b, long c, long d, long e, long f)
{
	uint32_t turn;
	int number = pd_internal_fd_hold(fd, &turn);
	long ret = pd_sys(nr, number, b, c, d, e, f);

	pd_internal_fd_release(fd, turn);
	return ret;
}

int pd_internal_fd_ready(int fd, short events)
{
	static const struct timespec now = {0, 0};
	struct pollfd p = {.events = events};
	uint32_t turn;
	int ret;

	p.fd = pd_internal_fd_hold(fd, &turn);
	ret = pd_sys_ppoll(&p, 1, &now, NULL);
	pd_internal_fd_release(fd, turn);
	return ret < 0 ? ret : p.revents;
}

/* --- moving ---------------------------------------------------------------------------------- */

uint32_t pd_internal_fd_move(int name, int number)
{
	struct record *r = record_of(name);
	uint32_t turn = r->turn;

	pd_assert(!r->moving);
	r->moving = true;
	pd_store_seq(&r->number, number);
	pd_store_seq(&r->turn, turn ^ 1);
	__atomic_fetch_add(&pd_internal_fd_moves, 2, __ATOMIC_SEQ_CST);
	return turn;
}

bool pd_internal_fd_is_quiet(int name, uint32_t turn)
{
	return !pd_load_seq(&record_of(name)->users[turn]);
}

void pd_internal_fd_moved(int name)
{
	struct record *r = record_of(name);

	r->moving = false;
	if (r->closed) {
		r->closed = false;
		record_free(name);
	}
}

void pd_internal_fd_lost(int name)
{
	pd_store_seq(&record_of(name)->number, -1);
}

/* --- fork ------------------------------------------------------------------------------------ */

/* In the child: the other threads, whose calls may have held names, are not here. */
static void names_fork_child(void)
{
	pd_unlock(&names_lock);
	for (uint32_t i = 0; i < records; i++) {
		struct record *r = record_of(PD_INTERNAL_FD_FIRST + (int)i);

		r->users[0] = r->users[1] = 0;
	}
}

void pd_internal_fd_register_fork(void)
{
	/* The lowest order: taken last. */
	static struct pd_fork_hook hook = {
		.order = -1,
		.prepare = pd_internal_fd_lock,
		.parent = pd_internal_fd_unlock,
		.child = names_fork_child,
	};

	pd_fork_register(&hook);
}
