/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An allocator and a constructor that call us before we are ready: preloaded in front of and behind
 * libpalladium.so. malloc maps, opens, reads and asks the loader; all must work.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <poll.h>
#include <unistd.h>

static char *arena, *arena_end;
static int inside;

/* Calls that an allocator makes, each through the public name. */
static void look_around(void)
{
	char c;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, &c, 1) != 1 || fcntl(fd, F_GETFD) != FD_CLOEXEC ||
	    ioctl(fd, 0, 0) == 0 || close(fd) || close(fd) != -1)
		_exit(90);
	fd = openat(AT_FDCWD, "/dev/null", O_RDWR);
	if (fd < 0 || write(fd, &c, 1) != 1 || dup2(fd, fd) != fd || close(fd))
		_exit(91);
	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (fd < 0 || send(fd, &c, 1, 0) != -1 || poll(NULL, 0, 0) || close(fd))
		_exit(92);
}

void *malloc(size_t n)
{
	char *p;

	if (!inside) {
		inside = 1;
		look_around();
		if (!dlsym(RTLD_NEXT, "malloc")) /* as jemalloc and tcmalloc do */
			_exit(93);
		inside = 0;
	}
	n = (n + 31) & ~(size_t)15;
	if (!arena || (size_t)(arena_end - arena) < n) {
		size_t size = n + (1 << 20);

		arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			     0);
		if (arena == MAP_FAILED)
			_exit(94);
		arena_end = arena + size;
	}
	p = arena;
	arena += n;
	*(size_t *)p = n - 16;
	return p + 16;
}

void free(void *p)
{
}

void *calloc(size_t n, size_t size)
{
	return malloc(n * size); /* fresh from mmap, never given twice */
}

void *realloc(void *old, size_t n)
{
	void *p = malloc(n);

	if (old) {
		size_t had = *(size_t *)((char *)old - 16);

		memcpy(p, old, had < n ? had : n);
	}
	return p;
}

void *aligned_alloc(size_t align, size_t n)
{
	uintptr_t p = (uintptr_t)malloc(n + align + 16);

	p = (p + align + 15) & ~(align - 1);
	*(size_t *)(p - 16) = n;
	return (void *)p;
}

void *memalign(size_t align, size_t n)
{
	return aligned_alloc(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
	*out = aligned_alloc(align, n);
	return 0;
}

__attribute__((constructor)) static void start(void)
{
	look_around();
}
