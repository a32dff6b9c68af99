/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end's memory: a memfd, of huge pages where they are wanted and to be had (base/mem.h).
 *
 * It is sealed against shrinking and growing where the kernel can, so that the peer cannot cut it
 * off under us, which would end this process with SIGBUS. The addresses told to the peer are made
 * up: nothing in them says where this process has its memory.
 */
#include "transport/vhost/area.h"

#include "base/mem.h"
#include "base/sys.h"

int pd_vhost_area_make(struct pd_vhost_area *area, uint64_t bytes)
{
	enum pd_mem_kind kind;
	void *base;
	int fd;

	fd = pd_mem_file("palladium-rings", &bytes, &kind);
	if (fd < 0)
		return fd;
	base = pd_mem_file_map(fd, bytes, kind);
	if (pd_sys_is_error(base)) {
		pd_sys_close(fd);
		return (int)(intptr_t)base;
	}
	*area = (struct pd_vhost_area){fd, base, bytes};
	return 0;
}

void pd_vhost_area_free(struct pd_vhost_area *area)
{
	if (area->fd < 0)
		return;
	pd_sys_munmap(area->base, area->bytes);
	pd_sys_close(area->fd);
	*area = (struct pd_vhost_area){.fd = -1};
}
