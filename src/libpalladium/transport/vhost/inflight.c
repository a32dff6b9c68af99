/* SPDX-License-Identifier: BSD-2-Clause */
/* The back-end's memory for what is in flight. See inflight.h. */
#include "transport/vhost/inflight.h"

#include <errno.h>

#include "base/mem.h"
#include "base/sys.h"
#include "virtio/inflight.h"

void pd_vhost_inflight_init(struct pd_vhost_inflight *inflight)
{
	*inflight = (struct pd_vhost_inflight){.fd = -1};
}

void pd_vhost_inflight_free(struct pd_vhost_inflight *inflight)
{
	pd_vhost_map_free(inflight->map);
	if (inflight->fd >= 0)
		pd_sys_close(inflight->fd);
	pd_vhost_inflight_init(inflight);
}

/* Are these numbers of rings and descriptors possible? Returns NULL or what is wrong. */
static const char *check_numbers(const struct pd_vhost_inflight_desc *desc, unsigned n_rings)
{
	if (!desc->num_queues || desc->num_queues > n_rings)
		return "an in-flight region for a number of rings that is not ours";
	if (!desc->queue_size || desc->queue_size > PD_VQ_SIZE_MAX)
		return "an in-flight region for rings of a size that is none";
	return NULL;
}

/* Map what *desc says of the file `fd` in place of what there was. Returns NULL or why not. */
static const char *take(struct pd_vhost_inflight *inflight,
			const struct pd_vhost_inflight_desc *desc, int fd,
			struct pd_progress_work *cut)
{
	const struct pd_vhost_region region = {
		.size = desc->mmap_size,
		.mmap_offset = desc->mmap_offset,
	};
	struct pd_vhost_map *map = pd_vhost_map_new(cut);
	const char *why = map ? pd_vhost_map_add(map, &region, fd) : "no memory";

	if (why) {
		pd_vhost_map_free(map);
		return why;
	}
	pd_vhost_inflight_free(inflight);
	inflight->map = map;
	inflight->desc = *desc;
	return NULL;
}

const char *pd_vhost_inflight_take(struct pd_vhost_inflight *inflight,
				   const struct pd_vhost_inflight_desc *desc, unsigned n_rings,
				   int fd, struct pd_progress_work *cut)
{
	const char *why = check_numbers(desc, n_rings);

	if (why)
		return why;
	if (desc->mmap_offset % sizeof(uint64_t))
		return "an in-flight region that is misaligned";
	/* Which format the rings have may still be open: that of the smaller entries has to fit. */
	if (desc->mmap_size < desc->num_queues * pd_inflight_queue_bytes(desc->queue_size, false))
		return "an in-flight region that is too small for its rings";
	return take(inflight, desc, fd, cut);
}

const char *pd_vhost_inflight_make(struct pd_vhost_inflight *inflight,
				   struct pd_vhost_inflight_desc *desc, unsigned n_rings,
				   bool packed, struct pd_progress_work *cut)
{
	const char *why = check_numbers(desc, n_rings);
	uint64_t bytes;
	int fd;

	if (why)
		return why;
	desc->mmap_offset = 0;
	desc->mmap_size = desc->num_queues * pd_inflight_queue_bytes(desc->queue_size, packed);
	bytes = desc->mmap_size;
	fd = pd_mem_file_ordinary("palladium-inflight", &bytes);
	if (fd < 0)
		return "no memory for an in-flight region";
	why = take(inflight, desc, fd, cut);
	if (why)
		pd_sys_close(fd);
	else
		inflight->fd = fd;
	return why;
}

const char *pd_vhost_inflight_ring(const struct pd_vhost_inflight *inflight, unsigned i,
				   struct pd_vq_layout *layout)
{
	const struct pd_vhost_inflight_desc *desc = &inflight->desc;
	uint64_t each;

	if (!inflight->map || i >= desc->num_queues)
		return NULL;
	each = pd_inflight_queue_bytes(desc->queue_size, pd_vq_is_packed(layout->features));
	if (desc->num_queues * each > desc->mmap_size)
		return "an in-flight region that is too small for packed rings";
	return pd_inflight_begin(layout, inflight->map->mapping[0].host + i * each,
				 desc->queue_size);
}

bool pd_vhost_inflight_is_cut(const struct pd_vhost_inflight *inflight)
{
	return inflight->map && pd_vhost_map_is_cut(inflight->map);
}
