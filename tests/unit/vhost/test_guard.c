/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that vanishes, met by one thread while the control side guards other mappings: whatever
 * the moment, what is replaced is the mapping of the fault, from the page of the fault on.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/atomic.h"
#include "base/fault.h"
#include "vlib/progress.h"

/* Something may happen behind each load of the one side, and behind each store of the other. */
static void after_load(void);
static void after_store(void);
#undef pd_load_acquire
#define pd_load_acquire(p)                                                 \
	({                                                                 \
		__auto_type loaded = __atomic_load_n(p, __ATOMIC_ACQUIRE); \
		after_load();                                              \
		loaded;                                                    \
	})
#undef pd_store_release
#define pd_store_release(p, v)                            \
	({                                                \
		__atomic_store_n(p, v, __ATOMIC_RELEASE); \
		after_store();                            \
	})
#include "transport/vhost/guard.c"

#define PAGE 4096u
#define PAGES 64u
#define FAULT 4u /* the page that is gone */
#define FILL 0x5a

static uint8_t *here, *elsewhere;
static struct pd_vhost_guard *small, *own;
static unsigned loads, moment; /* the change comes behind this load; 0: never */
static bool mending;           /* a handler runs behind each store */
static struct sigaction
	ours; /* the library's handler; cmocka puts its own in front for each test */

/* As the control side does it when one peer goes and another comes. */
static void change(void)
{
	pd_vhost_guard_end(small);
	small = pd_vhost_guard_begin(elsewhere, PAGES * PAGE, PAGE, NULL);
	assert_ptr_equal(small, guards);
}

static void after_load(void)
{
	if (moment && ++loads == moment) {
		moment = 0;
		change();
	}
}

static bool mend(void)
{
	return guard_mend((uintptr_t)here + FAULT * PAGE + 123);
}

static void after_store(void)
{
	if (!mending)
		return;
	mending = false;
	assert_true(mend());
	mending = true;
}

static uint8_t *filled(void)
{
	uint8_t *p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	memset(p, FILL, PAGES * PAGE);
	return p;
}

/* Page 0 is one mapping, page FAULT another; the rest is nobody's. */
static int setup(void **state)
{
	memset(guards, 0, sizeof(guards));
	guards_from = guards_end = 0;
	mending = false;
	moment = loads = 0;
	here = filled();
	elsewhere = filled();
	small = pd_vhost_guard_begin(here, PAGE, PAGE, NULL);
	own = pd_vhost_guard_begin(here + FAULT * PAGE, PAGE, PAGE, NULL);
	assert_non_null(own);
	return 0;
}

static int teardown(void **state)
{
	pd_vhost_guard_end(own);
	pd_vhost_guard_end(small);
	munmap(here, PAGES * PAGE);
	munmap(elsewhere, PAGES * PAGE);
	return 0;
}

/* Page FAULT is zeroes, and all else what it was. */
static void only_that_page(void)
{
	for (unsigned i = 0; i < PAGES * PAGE; i++) {
		assert_int_equal(here[i], i / PAGE == FAULT ? 0 : FILL);
		assert_int_equal(elsewhere[i], FILL);
	}
	assert_true(pd_vhost_guard_is_cut(own));
	assert_false(pd_vhost_guard_is_cut(small));
}

static void another_slot_changes_while_it_is_read(void **state)
{
	for (unsigned at = 1;; at++) {
		setup(NULL);
		moment = at;
		assert_true(mend());
		if (moment) { /* there are no more */
			assert_true(at > 1);
			moment = 0;
			teardown(NULL);
			break;
		}
		only_that_page();
		teardown(NULL);
	}
	setup(NULL);
}

static void a_fault_while_another_slot_is_written(void **state)
{
	mending = true;
	for (unsigned i = 0; i < 3; i++)
		change();
	pd_vhost_guard_renew(small, 2 * PAGE);
	mending = false;
	only_that_page();
}

/* Mappings that a thread guards in turn, of many lengths. */
static void *changer(void *arg)
{
	uint32_t *stop = arg;

	for (unsigned i = 1; !pd_load_relaxed(stop); i++) {
		uint8_t *at = i & 1 ? here : elsewhere;

		pd_vhost_guard_end(small);
		small = pd_vhost_guard_begin(at, at == here ? PAGE : PAGES * PAGE, PAGE, NULL);
	}
	return NULL;
}

static void two_threads(void **state)
{
	uint32_t stop = 0;
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, changer, &stop), 0);
	for (unsigned i = 0; i < 3000; i++)
		if (!mend())
			fail();
	pd_store_relaxed(&stop, 1);
	pthread_join(t, NULL);
	only_that_page();
}

/* A file is cut short, and then the next one in the same slot is not. */
static void a_file_that_is_cut(void **state)
{
	int fd = memfd_create("cut", MFD_CLOEXEC);
	uint8_t *p;

	assert_int_equal(ftruncate(fd, 4 * PAGE), 0);
	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	memset(p, FILL, 4 * PAGE);
	pd_vhost_guard_end(small);
	small = pd_vhost_guard_begin(p, 4 * PAGE, PAGE, NULL);
	assert_int_equal(ftruncate(fd, PAGE), 0);
	assert_int_equal(sigaction(SIGBUS, &ours, NULL), 0);
	assert_int_equal(*(volatile uint8_t *)(p + 2 * PAGE), 0);
	assert_int_equal(p[0], FILL);
	assert_int_equal(p[4 * PAGE - 1], 0);
	assert_true(pd_vhost_guard_is_cut(small));
	assert_false(pd_vhost_guard_is_cut(own));
	pd_vhost_guard_renew(small, PAGE);
	assert_false(pd_vhost_guard_is_cut(small));
	munmap(p, 4 * PAGE);
	close(fd);
}

/* Regions of all peers there can be: what one has takes nothing from another. */
#define REGIONS (PD_PORTS_MAX * 509u)

static void as_many_as_all_peers_may_have(void **state)
{
	static struct pd_vhost_guard *g[REGIONS];
	const size_t bytes = (size_t)REGIONS * PAGE;
	uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	for (unsigned i = 0; i < REGIONS; i++) {
		g[i] = pd_vhost_guard_begin(p + (size_t)i * PAGE, PAGE, PAGE, NULL);
		assert_non_null(g[i]);
	}
	p[bytes - 1] = FILL;
	assert_true(guard_mend((uintptr_t)p + bytes - 1));
	assert_int_equal(p[bytes - 1], 0);
	/* Those that end are the first to be used again, in any order. */
	pd_vhost_guard_end(g[1000]);
	pd_vhost_guard_end(g[20]);
	pd_vhost_guard_end(g[500]);
	assert_ptr_equal(pd_vhost_guard_begin(p, PAGE, PAGE, NULL), g[20]);
	assert_ptr_equal(pd_vhost_guard_begin(p, PAGE, PAGE, NULL), g[500]);
	assert_ptr_equal(pd_vhost_guard_begin(p, PAGE, PAGE, NULL), g[1000]);
	munmap(p, bytes);
}

/* More than there may be: one is refused, and taken when another has ended. */
static void one_more_than_there_are(void **state)
{
	struct pd_vhost_guard *last = NULL, *g;

	while ((g = pd_vhost_guard_begin(here, PAGE, PAGE, NULL)))
		last = g;
	assert_ptr_equal(last, &guards[GUARDS - 1]);
	pd_vhost_guard_end(last);
	assert_ptr_equal(pd_vhost_guard_begin(here, PAGE, PAGE, NULL), last);
	assert_null(pd_vhost_guard_begin(here, PAGE, PAGE, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(another_slot_changes_while_it_is_read, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_fault_while_another_slot_is_written, setup,
						teardown),
		cmocka_unit_test_setup_teardown(two_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_is_cut, setup, teardown),
		cmocka_unit_test_setup_teardown(as_many_as_all_peers_may_have, setup, teardown),
		cmocka_unit_test_setup_teardown(one_more_than_there_are, setup, teardown),
	};

	setup(NULL);
	sigaction(SIGBUS, NULL, &ours);
	teardown(NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
