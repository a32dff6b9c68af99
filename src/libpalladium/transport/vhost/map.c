/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mapping the regions of a memory table.
 *
 * A region is `size` bytes at `mmap_offset` of its file. We map from the offset rounded down to the
 * file's block (a page, or a huge page on hugetlbfs) to the end rounded up, since hugetlbfs takes
 * no other unit. The file must be a regular one (memfd, tmpfs and hugetlbfs files are) and hold the
 * region now; that it may be cut shorter later is guard.c's concern. The mapping stays out of core
 * dumps: it may be gigabytes of somebody else's memory.
 *
 * Taken are files whose pages come without asking anybody (fs.c).
 *
 * Files that hold nothing can be as large as all of our addresses. What is mapped of one peer, and
 * of all together, has a bound, so that the program has some left. A few peers with huge tables
 * must not keep others out: there is a reserve, for small ones alone.
 */
#include "transport/vhost/map.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/sys.h"
#include "transport/vhost/fs.h"

/* What is mapped of all peers together, in bytes. pd_control held. */
static uint64_t mapped;

struct pd_vhost_map *pd_vhost_map_new(struct pd_progress_work *cut)
{
	struct pd_vhost_map *map = calloc(1, sizeof(*map));

	if (map)
		map->cut = cut;
	return map;
}

bool pd_vhost_map_is_cut(const struct pd_vhost_map *map)
{
	for (uint32_t i = 0; i < map->n; i++) {
		if (pd_vhost_guard_is_cut(map->mapping[i].guard))
			return true;
	}
	return false;
}

struct pd_vhost_map *pd_vhost_map_copy(const struct pd_vhost_map *map)
{
	struct pd_vhost_map *copy = pd_vhost_map_new(map->cut);

	if (!copy)
		return NULL;
	copy->n = map->n;
	memcpy(copy->mapping, map->mapping, map->n * sizeof(map->mapping[0]));
	copy->table.n = map->table.n;
	memcpy(copy->table.region, map->table.region, map->table.n * sizeof(map->table.region[0]));
	return copy;
}

void pd_vhost_map_forget(struct pd_vhost_map *map)
{
	free(map);
}

void pd_vhost_mapping_unmap(const struct pd_vhost_mapping *mapping)
{
	pd_vhost_guard_end(mapping->guard);
	pd_sys_munmap(mapping->base, mapping->len);
	mapped -= mapping->len;
}

void pd_vhost_map_free(struct pd_vhost_map *map)
{
	if (!map)
		return;
	for (uint32_t i = 0; i < map->n; i++)
		pd_vhost_mapping_unmap(&map->mapping[i]);
	free(map);
}

/* What is said of a file on the file system `name`, in words that stand until the next. */
static const char *refuse_fs(const char *name)
{
	static char why[128];

	snprintf(why, sizeof(why), "memory in a file of %s, not tmpfs, hugetlbfs, ext4, xfs, f2fs",
		 name);
	return why;
}

/*
 * The stretch of the file `fd` to map for `size` bytes at `offset`: *from and *len, in *unit.
 * Returns NULL or why the file cannot hold them.
 */
static const char *file_stretch(int fd, uint64_t offset, uint64_t size, uint64_t *from,
				uint64_t *len, uint64_t *unit)
{
	char fs[PD_VHOST_FS_NAME];
	struct stat st;
	uint64_t block, end, file_end;

	if (!size)
		return "a memory region of size 0";
	if (__builtin_add_overflow(offset, size, &end) || end > INT64_MAX / 2)
		return "a memory region whose file offset wraps";
	if (!pd_vhost_fs_is_file(fd))
		return "a memory region that is no file";
	if (!pd_vhost_fs_is_local(fd, fs))
		return refuse_fs(fs);
	if (pd_sys_fstat(fd, &st))
		return "a memory region that is no file";
	if (end > (uint64_t)st.st_size)
		return "a memory region that its file is too short for";
	block = (uint64_t)st.st_blksize;
	if (block < 4096 || (block & (block - 1)))
		block = 4096;
	*unit = block;
	*from = offset & ~(block - 1);
	file_end = (end + block - 1) & ~(block - 1);
	*len = file_end - *from;
	return NULL;
}

/*
 * Whether `len` more bytes are too many, for a peer whose table has `beside` already. What is
 * mapped may be over the bound, in the reserve.
 */
static bool too_much(uint64_t len, uint64_t beside)
{
	uint64_t most = PD_VHOST_MAP_ALL_BYTES;

	if (len <= PD_VHOST_MAP_SMALL_BYTES && beside <= PD_VHOST_MAP_SMALL_BYTES - len)
		most += PD_VHOST_MAP_RESERVE_BYTES;
	return mapped > most || len > most - mapped;
}

/* pd_vhost_mapping_map, for a table of `beside` bytes so far. */
static const char *map_beside(struct pd_vhost_mapping *mapping, int fd, uint64_t offset,
			      uint64_t size, uint64_t beside, struct pd_progress_work *cut)
{
	uint64_t from, unit;
	const char *wrong = file_stretch(fd, offset, size, &from, &mapping->len, &unit);

	if (wrong)
		return wrong;
	if (too_much(mapping->len, beside))
		return "too much memory of all peers together";
	mapping->base = pd_sys_mmap(NULL, mapping->len, PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_NORESERVE, fd, (off_t)from);
	if (pd_sys_is_error(mapping->base)) {
		pd_debug("vhost", "mmap of %llu bytes at %llu: %s",
			 (unsigned long long)mapping->len, (unsigned long long)from,
			 pd_strerror((int)(intptr_t)mapping->base));
		return "a memory region that cannot be mapped";
	}
	pd_sys_madvise(mapping->base, mapping->len, MADV_DONTDUMP);
	mapping->host = (uint8_t *)mapping->base + (offset - from);
	mapping->guard = pd_vhost_guard_begin(mapping->base, mapping->len, unit, cut);
	if (mapping->guard) {
		mapped += mapping->len;
		return NULL;
	}
	pd_sys_munmap(mapping->base, mapping->len);
	return "too many memory regions of all peers together";
}

const char *pd_vhost_mapping_map(struct pd_vhost_mapping *mapping, int fd, uint64_t offset,
				 uint64_t size, struct pd_progress_work *cut)
{
	return map_beside(mapping, fd, offset, size, 0, cut);
}

const char *pd_vhost_map_add(struct pd_vhost_map *map, const struct pd_vhost_region *region, int fd)
{
	struct pd_mem_region entry = {
		.guest_addr = region->gpa,
		.size = region->size,
		.user_addr = region->uaddr,
	};
	struct pd_vhost_mapping mapping;
	uint64_t bytes = 0;
	const char *wrong;

	if (map->n == PD_VHOST_SLOTS_MAX)
		return "too many memory regions";
	if (region->gpa + region->size < region->size ||
	    region->uaddr + region->size < region->size)
		return "a memory region whose addresses wrap";
	for (uint32_t i = 0; i < map->n; i++)
		bytes += map->mapping[i].len;
	if (region->size > PD_VHOST_MAP_BYTES - pd_min(bytes, PD_VHOST_MAP_BYTES))
		return "a memory region that makes it more than a peer may share (32 TiB)";
	wrong = map_beside(&mapping, fd, region->mmap_offset, region->size, bytes, map->cut);
	if (wrong)
		return wrong;
	entry.host = mapping.host;
	if (pd_mem_add(&map->table, &entry)) {
		pd_vhost_mapping_unmap(&mapping);
		return "a memory region that overlaps another";
	}
	map->mapping[map->n++] = mapping;
	return NULL;
}

const char *pd_vhost_map_del(struct pd_vhost_map *map, const struct pd_vhost_region *region,
			     struct pd_vhost_mapping *gone)
{
	struct pd_mem_region entry;

	if (pd_mem_del(&map->table, region->gpa, region->uaddr, region->size, &entry))
		return "no such memory region";
	for (uint32_t i = 0; i < map->n; i++) {
		if (map->mapping[i].host != entry.host)
			continue;
		*gone = map->mapping[i];
		map->mapping[i] = map->mapping[--map->n];
		return NULL;
	}
	pd_assert(!"every region has its mapping");
	return "no such memory region";
}
