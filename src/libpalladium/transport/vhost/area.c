/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end's memory: a memfd, of huge pages where they are wanted and to be had (base/mem.h).
 *
 * It is sealed against shrinking and growing where the kernel can, so that the peer cannot cut it
 * off under us, which would end this process with SIGBUS. No seal keeps it from giving pages back
 * to the system (MADV_REMOVE), though, and a huge page may not be had a second time. So the area
 * is guarded as a peer's memory is (guard.h). The addresses told to the peer are made up: nothing
 * in them says where this process has its memory.
 */
#include "transport/vhost/area.h"

#include <errno.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"

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

	fd = pd_mem_file("palladium-rings", &bytes, &kind);
	if (fd < 0)
		return area_tell(bytes, fd);
	base = pd_mem_file_map(fd, bytes, kind);
	if (pd_sys_is_error(base)) {
		pd_sys_close(fd);
		return area_tell(bytes, (int)(intptr_t)base);
	}
	guard = pd_vhost_guard_begin(
		base, bytes, kind == PD_MEM_OF_HUGE ? PD_MEM_HUGE_BYTES : pd_mem_page(), cut);
	if (!guard) {
		pd_sys_munmap(base, bytes);
		pd_sys_close(fd);
		return area_tell(bytes, -ENOSPC);
	}
	*area = (struct pd_vhost_area){fd, base, bytes, guard};
	return 0;
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
