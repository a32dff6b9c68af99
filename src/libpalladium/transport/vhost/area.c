/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end's memory: a memfd, of huge pages where they are wanted and to be had (base/mem.h).
 *
 * It is sealed against shrinking and growing where the kernel can, so that the peer cannot cut it
 * off under us, which would end this process with SIGBUS. No seal keeps it from giving pages back
 * to the system (MADV_REMOVE), though, and a huge page may not be had a second time. So the area
 * is guarded as a peer's memory is (guard.h). The addresses told to the peer are made up: nothing
 * in them says where this process has its memory.
 *
 * Who was given the file can keep it and its mapping for ever, whatever becomes of the connection.
 * So a file is for one peer. Before another one is given memory that a peer before it has had, what
 * the rings still need moves into a file that nobody has, which is mapped in place of the old one:
 * no address changes, for us or for the peer. From then on what the old peer writes, or takes away,
 * is its own, and it sees nothing of what the new one is sent. Where no connection got as far as
 * the memory, nothing moves.
 *
 * What moves is taken by the rings, not by looking where the old file holds something (SEEK_DATA):
 * what they need is little, however much the peer filled, the next one is shown nothing that was
 * between us and the last, and the old file's lock, which its holder can keep for ever (a write
 * from memory that does not come), is not asked for.
 *
 * Huge pages may be there for one set only, and the old one goes with the move, if its peer is gone
 * too. So a move is made into ordinary pages, and from there into huge ones if they can be had.
 */
#include "transport/vhost/area.h"

#include <errno.h>

#include "base/log.h"
#include "base/sys.h"

#define AREA_NAME "palladium-rings"

/* The pages of an area of this kind. */
static uint64_t area_unit(enum pd_mem_kind kind)
{
	return kind == PD_MEM_OF_HUGE ? PD_MEM_HUGE_BYTES : pd_mem_page();
}

/* `bytes` of rings cannot be had, for `err`, which is given back. */
static int area_tell(uint64_t bytes, int err)
{
	pd_log_ratelimited(PD_LOG_ERROR, "vhost",
			   "%llu bytes for rings and their buffers cannot be had (ring= and "
			   "queues= of the port make it less): %s%s",
			   (unsigned long long)bytes, pd_strerror(err),
			   err == -EFBIG ? " (the limit of ulimit -f)" : "");
	return err;
}

int pd_vhost_area_make(struct pd_vhost_area *area, uint64_t bytes, struct pd_progress_work *cut)
{
	struct pd_vhost_guard *guard;
	enum pd_mem_kind kind;
	void *base;
	int fd;

	fd = pd_mem_file(AREA_NAME, &bytes, &kind);
	if (fd < 0)
		return area_tell(bytes, fd);
	base = pd_mem_file_map(fd, bytes, kind);
	if (pd_sys_is_error(base)) {
		pd_sys_close(fd);
		return area_tell(bytes, (int)(intptr_t)base);
	}
	guard = pd_vhost_guard_begin(base, bytes, area_unit(kind), cut);
	if (!guard) {
		pd_sys_munmap(base, bytes);
		pd_sys_close(fd);
		return area_tell(bytes, -ENOSPC);
	}
	*area = (struct pd_vhost_area){fd, base, bytes, guard, false};
	return 0;
}

int pd_vhost_area_next(const struct pd_vhost_area *area, enum pd_mem_kind kind,
		       struct pd_vhost_area_next *next)
{
	uint64_t bytes = area->bytes;
	int fd;

	if ((area->bytes | (uintptr_t)area->base) & (area_unit(kind) - 1))
		return -EINVAL;
	fd = kind == PD_MEM_OF_HUGE ? pd_mem_file_huge(AREA_NAME, bytes)
				    : pd_mem_file_ordinary(AREA_NAME, &bytes);
	if (fd < 0)
		return fd;
	*next = (struct pd_vhost_area_next){fd, pd_mem_file_map(fd, bytes, kind), kind};
	if (!pd_sys_is_error(next->base))
		return 0;
	pd_sys_close(fd);
	return (int)(intptr_t)next->base;
}

int pd_vhost_area_replace(struct pd_vhost_area *area, struct pd_vhost_area_next *next)
{
	int err = pd_mem_file_map_over(area->base, next->fd, area->bytes, next->kind);

	pd_sys_munmap(next->base, area->bytes);
	pd_sys_close(area->fd);
	if (err) {
		/* Whether the old one is still mapped is not known, and the place may be somebody's. */
		pd_vhost_guard_end(area->guard);
		pd_sys_close(next->fd);
		*area = (struct pd_vhost_area){.fd = -1};
		return err;
	}
	pd_vhost_guard_renew(area->guard, area_unit(next->kind));
	area->fd = next->fd;
	area->shared = false;
	return 0;
}

void pd_vhost_area_drop(const struct pd_vhost_area *area, struct pd_vhost_area_next *next)
{
	pd_sys_munmap(next->base, area->bytes);
	pd_sys_close(next->fd);
}

bool pd_vhost_area_is_cut(const struct pd_vhost_area *area)
{
	return pd_vhost_guard_is_cut(area->guard);
}

void pd_vhost_area_free(struct pd_vhost_area *area)
{
	if (area->fd < 0)
		return;
	pd_vhost_guard_end(area->guard);
	pd_sys_munmap(area->base, area->bytes);
	pd_sys_close(area->fd);
	*area = (struct pd_vhost_area){.fd = -1};
}
