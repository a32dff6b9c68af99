/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory of a type (the theory stands in mem.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/quiet.h"
#include "base/sys.h"
#include "base/textfile.h"

/* Of <linux/memfd.h> and <linux/fcntl.h>, which clash with <fcntl.h> on old systems. */
#define MEM_MFD_CLOEXEC 0x1u
#define MEM_MFD_ALLOW_SEALING 0x2u
#define MEM_MFD_HUGE_2MB (0x4u | 21u << 26) /* MFD_HUGETLB, MFD_HUGE_2MB */
#define MEM_F_ADD_SEALS 1033
#define MEM_SEALS (0x1 | 0x2 | 0x4) /* SEAL, SHRINK, GROW */

#define MEM_HUGE_MIN (PD_MEM_HUGE_BYTES / 2)
#define MEM_HUGE_DIR "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static enum pd_mem_type pd_mem_type = PD_MEM_CONTIG;
static bool pd_mem_asked;

void pd_mem_set_type(enum pd_mem_type type, bool asked)
{
	pd_mem_type = type;
	pd_mem_asked = asked;
}

uint64_t pd_mem_page(void)
{
	static uint64_t page;
	uint64_t known = pd_load_relaxed(&page);

	if (!known) {
		long n = sysconf(_SC_PAGESIZE);

		known = n > 0 ? (uint64_t)n : 4096;
		pd_store_relaxed(&page, known);
	}
	return known;
}

uint64_t pd_mem_unit(uint64_t bytes)
{
	return pd_mem_type != PD_MEM_ANON && bytes >= MEM_HUGE_MIN ? PD_MEM_HUGE_BYTES
								   : pd_mem_page();
}

/* `bytes`, rounded up to a multiple of `unit`, a power of two. */
static uint64_t mem_round_up(uint64_t bytes, uint64_t unit)
{
	return (bytes + unit - 1) & ~(unit - 1);
}

/* --- what is said -------------------------------------------------------------------------- */

/* The number in the file `name` about huge pages, or -errno. */
static long mem_huge_count(const char *name)
{
	char path[128], text[32];
	int ret;

	snprintf(path, sizeof(path), MEM_HUGE_DIR "%s", name);
	ret = pd_textfile_read(path, text, sizeof(text));
	return ret ? ret : strtol(text, NULL, 10);
}

/* Huge pages hold something: said once. */
static void mem_tell_got(void)
{
	static uint32_t told;

	if (!pd_exchange(&told, 1))
		pd_details("mem", "huge pages of 2 MiB hold buffers and rings");
}

/*
 * `bytes` were to be of huge pages, and could not for `err`: said once, with what to do about it.
 */
static void mem_tell_not(uint64_t bytes, int err)
{
	enum pd_log_level level = pd_mem_asked ? PD_LOG_WARN : PD_LOG_INFO;
	unsigned long long want = (bytes + PD_MEM_HUGE_BYTES - 1) / PD_MEM_HUGE_BYTES;
	long spare = mem_huge_count("free_hugepages"), total = mem_huge_count("nr_hugepages");
	long promised = mem_huge_count("resv_hugepages");
	static uint32_t told;

	if (pd_exchange(&told, 1))
		return;
	spare -= pd_max(promised, 0l);
	if (spare >= 0 && total >= 0 && (unsigned long long)spare < want)
		pd_log(level, "mem",
		       "ordinary pages instead of huge ones, everything works: %llu of 2 MiB are "
		       "needed at once and %ld of %ld are free (more: sysctl vm.nr_hugepages)",
		       want, spare, total);
	else
		pd_log(level, "mem",
		       "ordinary pages instead of huge ones, everything works: %llu of 2 MiB "
		       "cannot be had here (%s)",
		       want, pd_strerror(err));
}

/* --- files --------------------------------------------------------------------------------- */

/*
 * Give `fd` its size. A size above RLIMIT_FSIZE would be answered with SIGXFSZ, which ends the
 * program.
 */
static int mem_file_size(int fd, uint64_t bytes)
{
	if (!pd_quiet_size_is_allowed(bytes))
		return -EFBIG;
	return pd_sys_ftruncate(fd, (off_t)bytes);
}

/*
 * Have the kernel allocate the pages of `fd`; the signals of the program interrupt it, and it
 * carries on.
 */
static int mem_file_fill(int fd, uint64_t bytes)
{
	int err;

	do
		err = pd_sys_fallocate(fd, 0, 0, (off_t)bytes);
	while (err == -EINTR);
	return err;
}

/*
 * A file of `bytes` made of huge pages that are all there (`flags` MEM_MFD_HUGE_2MB), or of
 * ordinary ones. Or -errno.
 */
static int mem_file_make(const char *name, uint64_t bytes, unsigned flags)
{
	int fd, err;

	fd = pd_internal_fd(
		pd_sys_memfd_create(name, flags | MEM_MFD_CLOEXEC | MEM_MFD_ALLOW_SEALING));
	if (fd == -EINVAL) /* the kernel cannot seal this kind yet */
		fd = pd_internal_fd(pd_sys_memfd_create(name, flags | MEM_MFD_CLOEXEC));
	if (fd < 0)
		return fd;
	err = mem_file_size(fd, bytes);
	if (!err && flags)
		err = mem_file_fill(fd, bytes);
	if (err) {
		pd_sys_close(fd);
		return err;
	}
	pd_sys_fcntl(fd, MEM_F_ADD_SEALS, MEM_SEALS);
	return fd;
}

/*
 * For less than half a huge page the answer is no, too; and it says what came of it (mem_tell_*).
 */
int pd_mem_file_huge(const char *name, uint64_t bytes)
{
	int fd;

	if (pd_mem_type != PD_MEM_HUGEPAGES || bytes < MEM_HUGE_MIN)
		return -EINVAL;
	fd = mem_file_make(name, mem_round_up(bytes, PD_MEM_HUGE_BYTES), MEM_MFD_HUGE_2MB);
	if (fd < 0)
		mem_tell_not(bytes, fd);
	else
		mem_tell_got();
	return fd;
}

int pd_mem_file_ordinary(const char *name, uint64_t *bytes)
{
	uint64_t size = mem_round_up(*bytes, pd_mem_page());
	int fd = mem_file_make(name, size, 0);

	if (fd >= 0)
		*bytes = size;
	return fd;
}

int pd_mem_file(const char *name, uint64_t *bytes, enum pd_mem_kind *kind)
{
	int fd = pd_mem_file_huge(name, *bytes);

	if (fd >= 0) {
		*bytes = mem_round_up(*bytes, PD_MEM_HUGE_BYTES);
		*kind = PD_MEM_OF_HUGE;
		return fd;
	}
	*kind = PD_MEM_OF_PAGES;
	return pd_mem_file_ordinary(name, bytes);
}

/* pd_mem_file_map, or at `at` when `fixed` is MAP_FIXED. */
static void *mem_file_map(void *at, int fixed, int fd, uint64_t bytes, enum pd_mem_kind kind)
{
	void *p = pd_sys_mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | fixed, fd, 0);

	if (pd_sys_is_error(p))
		return p;
	pd_sys_madvise(p, bytes, MADV_DONTDUMP);
	if (kind != PD_MEM_OF_HUGE && pd_mem_type != PD_MEM_ANON && bytes >= PD_MEM_HUGE_BYTES)
		pd_sys_madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

void *pd_mem_file_map(int fd, uint64_t bytes, enum pd_mem_kind kind)
{
	return mem_file_map(NULL, 0, fd, bytes, kind);
}

int pd_mem_file_map_over(void *at, int fd, uint64_t bytes, enum pd_mem_kind kind)
{
	void *p = mem_file_map(at, MAP_FIXED, fd, bytes, kind);

	return pd_sys_is_error(p) ? (int)(intptr_t)p : 0;
}

/* --- private memory in a reserved stretch --------------------------------------------------- */

void *pd_mem_reserve(uint64_t bytes)
{
	uint64_t slack = PD_MEM_HUGE_BYTES;
	void *p = pd_sys_mmap(NULL, bytes + slack, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (pd_sys_is_error(p))
		return NULL;
	pd_sys_madvise(p, bytes + slack, MADV_DONTDUMP);
	return (void *)mem_round_up((uintptr_t)p, PD_MEM_HUGE_BYTES);
}

/*
 * Huge pages at `at`. The pages are there before the reservation is replaced, so the mapping cannot
 * fail for want of them.
 */
static int mem_commit_huge(void *at, uint64_t bytes)
{
	int fd = pd_mem_file_huge("palladium-buffers", bytes);
	void *p;

	if (fd < 0)
		return fd;
	p = pd_sys_mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	pd_sys_close(fd);
	if (pd_sys_is_error(p))
		return (int)(intptr_t)p;
	pd_sys_madvise(at, bytes, MADV_DONTDUMP);
	pd_sys_madvise(at, bytes, MADV_DONTFORK);
	return PD_MEM_OF_HUGE;
}

int pd_mem_commit(void *at, uint64_t bytes)
{
	uint64_t unit = pd_mem_unit(bytes);

	if (unit == PD_MEM_HUGE_BYTES && mem_commit_huge(at, bytes) == PD_MEM_OF_HUGE)
		return PD_MEM_OF_HUGE;
	if (pd_sys_mprotect(at, bytes, PROT_READ | PROT_WRITE) < 0)
		return -ENOMEM;
	if (unit == PD_MEM_HUGE_BYTES && !pd_sys_madvise(at, bytes, MADV_HUGEPAGE))
		return PD_MEM_OF_ADVISED;
	return PD_MEM_OF_PAGES;
}

void pd_mem_release(void *at, uint64_t bytes)
{
	void *p = pd_sys_mmap(at, bytes, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	if (pd_sys_is_error(p)) { /* too many mappings: what there is has to do */
		pd_sys_madvise(at, bytes, MADV_DONTNEED);
		pd_sys_mprotect(at, bytes, PROT_NONE);
		return;
	}
	pd_sys_madvise(at, bytes, MADV_DONTDUMP);
}

int pd_mem_renew(void *at, uint64_t bytes)
{
	void *p = pd_sys_mmap(at, bytes, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	if (pd_sys_is_error(p))
		return -ENOMEM;
	pd_sys_madvise(at, bytes, MADV_DONTDUMP);
	return 0;
}
