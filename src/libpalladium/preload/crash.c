/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PALLADIUM_HANDLE_SIGSEGV: where it happened, into the log, before the program's own handling
 * (base/fault.h).
 *
 * Only what is safe in a handler: numbers are spelt here, lines go straight to the log's
 * descriptor, and the unwinder, which loads itself at its first use, is used once beforehand. An
 * overflow of the stack needs another stack: the main thread is given one, unless the program has
 * seen to that itself; a thread that the program makes has none.
 */
#include <execinfo.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "base/atomic.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/quiet.h"
#include "base/sys.h"
#include "preload/preload.h"

#define PD_CRASH_FRAMES 64
#define PD_CRASH_STACK_BYTES (64u << 10)
/*
 * A program may live with its faults (a virtual machine's null checks): then this many are shown.
 */
#define PD_CRASH_REPORTS 5

/* A line that grows; it is long enough for what is written here. */
struct pd_crash_line {
	size_t n;
	char bytes[200];
};

/* Append `text`. */
static void pd_crash_text(struct pd_crash_line *line, const char *text)
{
	while (*text && line->n < sizeof(line->bytes))
		line->bytes[line->n++] = *text++;
}

/* Append `v` to the base of 10 or 16. */
static void pd_crash_number(struct pd_crash_line *line, uint64_t v, unsigned base)
{
	char digits[24], *p = &digits[sizeof(digits) - 1];

	*p = 0;
	do
		*--p = "0123456789abcdef"[v % base];
	while (v /= base);
	pd_crash_text(line, p);
}

/* Where the thread was when the signal came; NULL where that is not known. */
static void *pd_crash_place(const ucontext_t *uc)
{
#if defined(__x86_64__)
	return (void *)uc->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
	return (void *)uc->uc_mcontext.pc;
#else
	return NULL;
#endif
}

/* Write the report to `fd`. */
static void pd_crash_report(int fd, const siginfo_t *info, void *context)
{
	struct pd_crash_line line = {.n = 0};
	struct pd_quiet quiet;
	void *frames[PD_CRASH_FRAMES], *place = pd_crash_place(context);
	int n, first = 0;

	pd_crash_text(&line, "PALLADIUM PANIC: crash: SIGSEGV");
	if (info->si_code > 0) {
		pd_crash_text(&line, " at address 0x");
		pd_crash_number(&line, (uintptr_t)info->si_addr, 16);
	} else {
		pd_crash_text(&line, " sent by process ");
		pd_crash_number(&line, (uint64_t)info->si_pid, 10);
	}
	pd_crash_text(&line, ", thread ");
	pd_crash_number(&line, (uint64_t)pd_sys_gettid(), 10);
	pd_crash_text(&line, " of process ");
	pd_crash_number(&line, (uint64_t)pd_sys_getpid(), 10);
	pd_crash_text(&line, ", from there outwards:\n");
	if (pd_quiet_write(fd, line.bytes, line.n) < 0)
		return;
	n = backtrace(frames, PD_CRASH_FRAMES);
	/* Without the handler's own frames, where it can be told. */
	while (first < n && frames[first] != place)
		first++;
	if (first == n)
		first = 0;
	pd_quiet_begin(&quiet);
	backtrace_symbols_fd(frames + first, n - first, fd);
	pd_quiet_end(&quiet, 0);
}

/* SIGSEGV, before the program's handler: that, or the default end, follows. */
static bool pd_crash(const siginfo_t *info, void *context)
{
	static const struct timespec pause = {.tv_nsec = 10000000};
	static uint32_t reporter, reports;
	uint32_t self = (uint32_t)pd_sys_gettid(), nobody = 0;
	int fd = pd_log_descriptor();
	uint32_t turn;

	if (fd < 0 || pd_fetch_add(&reports, 1) >= PD_CRASH_REPORTS)
		return false;
	/* One at a time, but nobody waits for ever; a fault in here is not reported. */
	for (int i = 0; i < 100 && !pd_cas(&reporter, &nobody, self); i++) {
		if (nobody == self)
			return false;
		nobody = 0;
		pd_sys_ppoll(NULL, 0, &pause, NULL);
	}
	pd_crash_report(pd_internal_fd_hold(fd, &turn), info, context);
	pd_internal_fd_release(fd, turn);
	pd_store_release(&reporter, 0);
	return false;
}

/* Give the calling thread a stack for handlers if it has none. */
static void pd_crash_stack(void)
{
	stack_t stack;
	void *base;

	if (sigaltstack(NULL, &stack) || !(stack.ss_flags & SS_DISABLE))
		return;
	base = pd_sys_mmap(NULL, PD_CRASH_STACK_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pd_sys_is_error(base))
		return;
	stack = (stack_t){.ss_sp = base, .ss_size = PD_CRASH_STACK_BYTES};
	sigaltstack(&stack, NULL);
}

void pd_crash_start(void)
{
	void *frames[1];
	int ret;

	backtrace(frames, 1);
	pd_crash_stack();
	ret = pd_fault_install(SIGSEGV, pd_crash);
	if (ret)
		pd_warn("crash", "no backtrace on SIGSEGV: %s", pd_strerror(ret));
}
