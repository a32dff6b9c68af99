/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory for buffers and rings, of the type that PALLADIUM_MEM_ALLOC_TYPE names.
 *
 * Three kinds, tried in this order: reserved huge pages (hugetlb; only when asked for), pages that
 * the kernel makes huge where it can (madvise), ordinary pages. What cannot be had falls to the
 * next, so the type is a wish and never a reason to fail; what was got, and why not more, is said
 * in one line per process.
 *
 * Reserved huge pages always come as a file of this process (memfd) whose pages are allocated
 * before anything is mapped. The kernel then says -ENOSPC where a first touch would be SIGBUS:
 * reservations do not know of the limits of a cgroup or of a NUMA policy.
 *
 * Pieces below half a huge page are always of ordinary pages: memory that nobody uses costs more
 * than the faults.
 */
#ifndef PD_BASE_MEM_H
#define PD_BASE_MEM_H

#include <stdbool.h>
#include <stdint.h>

/* PALLADIUM_MEM_ALLOC_TYPE, with VMA's numbers. */
enum pd_mem_type { PD_MEM_ANON, PD_MEM_CONTIG, PD_MEM_HUGEPAGES };

/* What a piece was made of. */
enum pd_mem_kind { PD_MEM_OF_PAGES, PD_MEM_OF_ADVISED, PD_MEM_OF_HUGE };

/* The huge page that every machine with huge pages has; a default of 1 GiB would be waste. */
#define PD_MEM_HUGE_BYTES (2ull << 20)

/*
 * What pieces are made of from here on; `asked`: the user named the type, so a warning may say that
 * it could not be had. PD_MEM_CONTIG until it is called. Control path, before the first piece.
 */
void pd_mem_set_type(enum pd_mem_type type, bool asked);

/*
 * Where a piece of `bytes` has to begin, and what its size has to be a multiple of, to get what the
 * type says: the huge page or the system's page.
 */
uint64_t pd_mem_unit(uint64_t bytes);

/* The system's page. */
uint64_t pd_mem_page(void);

/*
 * Reserve `bytes` of address space, at a multiple of the huge page: inaccessible, free of cost, not
 * in core dumps. Returns it, or NULL.
 */
void *pd_mem_reserve(uint64_t bytes);

/*
 * Make `bytes` at `at`, inside what was reserved, memory that is zero. `at` and `bytes` are
 * multiples of pd_mem_unit(bytes). A forked child has its own copy, except of PD_MEM_OF_HUGE: there
 * it has a hole, which pd_mem_renew fills. Control path. Returns what it is made of, or -ENOMEM
 * (and nothing changed).
 */
int pd_mem_commit(void *at, uint64_t bytes);

/* Give what pd_mem_commit made back to the reservation. */
void pd_mem_release(void *at, uint64_t bytes);

/*
 * Make a committed piece, or its hole in a forked child, ordinary memory that is zero. For the
 * child. Returns 0 or -ENOMEM.
 */
int pd_mem_renew(void *at, uint64_t bytes);

/*
 * A file of at least *bytes, all zero, to be mapped here and by a peer; sealed against shrinking
 * and growing where the kernel can. *bytes becomes its size, a multiple of its page. Returns the
 * descriptor, closed on exec, or -errno; *kind says what it is made of: PD_MEM_OF_HUGE or
 * PD_MEM_OF_PAGES.
 */
int pd_mem_file(const char *name, uint64_t *bytes, enum pd_mem_kind *kind);

/*
 * The same of ordinary pages, whatever the type: for a file that a peer may keep after it was
 * closed here, and ask for again and again.
 */
int pd_mem_file_ordinary(const char *name, uint64_t *bytes);

/*
 * The same of huge pages, if the type asks for them, or none at all (-errno). `bytes` is a multiple
 * of PD_MEM_HUGE_BYTES.
 */
int pd_mem_file_huge(const char *name, uint64_t bytes);

/*
 * Map such a file. It may become huge pages later where the type says so. Returns it, or an error
 * (pd_sys_is_error).
 */
void *pd_mem_file_map(int fd, uint64_t bytes, enum pd_mem_kind kind);

/*
 * The same in place of what is mapped at `at`, at a page of its kind. Returns 0 or -errno, and then
 * what was mapped there may be gone.
 */
int pd_mem_file_map_over(void *at, int fd, uint64_t bytes, enum pd_mem_kind kind);

#endif /* PD_BASE_MEM_H */
