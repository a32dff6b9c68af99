/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end's memory: a memfd.
 *
 * It is sealed against shrinking and growing where the kernel can, so that the peer cannot cut it
 * off under us, which would end this process with SIGBUS. The addresses told to the peer are made
 * up: nothing in them says where this process has its memory.
 */
#include "transport/vhost/area.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "base/internal_fd.h"
#include "base/sys.h"

/* Of <linux/memfd.h> and <linux/fcntl.h>, which clash with <fcntl.h> on old systems. */
#define AREA_MFD_CLOEXEC 0x1u
#define AREA_MFD_ALLOW_SEALING 0x2u
#define AREA_F_ADD_SEALS 1033
#define AREA_SEALS (0x1 | 0x2 | 0x4) /* SEAL, SHRINK, GROW */

#define AREA_UNIT 4096ull

int pd_vhost_area_make(struct pd_vhost_area *area, uint64_t bytes)
{
	void *base;
	int fd, err;

	bytes = (bytes + AREA_UNIT - 1) & ~(AREA_UNIT - 1);
	fd = pd_sys_memfd_create("palladium-rings", AREA_MFD_CLOEXEC | AREA_MFD_ALLOW_SEALING);
	if (fd == -EINVAL)
		fd = pd_sys_memfd_create("palladium-rings", AREA_MFD_CLOEXEC);
	fd = pd_internal_fd(fd);
	if (fd < 0)
		return fd;
	err = pd_sys_ftruncate(fd, (off_t)bytes);
	if (err)
		goto err_close;
	pd_sys_fcntl(fd, AREA_F_ADD_SEALS, AREA_SEALS);
	base = pd_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (pd_sys_is_error(base)) {
		err = (int)(intptr_t)base;
		goto err_close;
	}
	pd_sys_madvise(base, bytes, MADV_DONTDUMP);
	*area = (struct pd_vhost_area){fd, base, bytes};
	return 0;

err_close:
	pd_sys_close(fd);
	return err;
}

void pd_vhost_area_free(struct pd_vhost_area *area)
{
	if (area->fd < 0)
		return;
	pd_sys_munmap(area->base, area->bytes);
	pd_sys_close(area->fd);
	*area = (struct pd_vhost_area){.fd = -1};
}
