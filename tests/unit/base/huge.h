/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Huge pages for a test: root may have some more while it runs. One test program at a time has
 * them.
 */
#ifndef PD_TEST_HUGE_H
#define PD_TEST_HUGE_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define HUGE_DIR "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static int huge_lock = -1;
static long huge_before;

static long huge_read(const char *name)
{
	char path[128];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), HUGE_DIR "%s", name);
	f = fopen(path, "r");
	if (!f)
		return -1;
	if (fscanf(f, "%ld", &n) != 1)
		n = -1;
	fclose(f);
	return n;
}

static bool huge_write(long n)
{
	FILE *f = fopen(HUGE_DIR "nr_hugepages", "w");
	bool ok = f && fprintf(f, "%ld\n", n) > 0;

	return f && !fclose(f) && ok;
}

/* Huge pages that nobody has been promised. */
static inline long huge_free(void)
{
	return huge_read("free_hugepages") - huge_read("resv_hugepages");
}

/*
 * `n` huge pages are free from here on, exactly; false when that cannot be had (not root, memory
 * too scattered).
 */
static bool huge_begin(long n)
{
	huge_lock = open("/tmp/palladium-test-hugepages.lock", O_CREAT | O_RDWR | O_CLOEXEC, 0666);
	if (huge_lock < 0 || flock(huge_lock, LOCK_EX))
		return false;
	huge_before = huge_read("nr_hugepages");
	return huge_before >= 0 && huge_write(huge_before + n - huge_free()) && huge_free() == n;
}

/*
 * As it was before huge_begin; harmless without it, so that the teardown of a failed test can call
 * it.
 */
static void huge_end(void)
{
	if (huge_lock < 0)
		return;
	if (huge_before >= 0)
		huge_write(huge_before);
	close(huge_lock);
	huge_lock = -1;
}

/*
 * KernelPageSize in KiB of the mapping at `at`, and in *resident its Rss in KiB; -1 when there is
 * none.
 */
static long huge_page_size(const void *at, long *resident)
{
	unsigned long from, to, addr = (unsigned long)at;
	FILE *f = fopen("/proc/self/smaps", "r");
	long size = -1, value;
	bool here = false;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = from <= addr && addr < to;
		else if (here && sscanf(line, "KernelPageSize: %ld", &value) == 1)
			size = value;
		else if (here && resident && sscanf(line, "Rss: %ld", &value) == 1)
			*resident = value;
	}
	if (f)
		fclose(f);
	return size;
}

#endif /* PD_TEST_HUGE_H */
