/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fibers (contract in fiber.h).
 *
 * A suspended side's registers stand on its own stack, in the order in which the switch takes them
 * off again; what a call may destroy need not be kept. A new fiber's stack is laid out as if it had
 * been suspended just before pd_fiber_begin, which hands the fiber to pd_fiber_main.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/sys.h"
#include "vlib/fiber.h"

#ifdef PD_UNDER_ASAN
#	include <sanitizer/asan_interface.h>
#	include <sanitizer/common_interface_defs.h>
#	include <sanitizer/lsan_interface.h>
#endif
#ifdef PD_UNDER_TSAN
#	include <sanitizer/tsan_interface.h>
#endif

/* Keep this side's place in *from, and go on at `to`. */
void pd_fiber_switch(void **from, void *to);
/* Where a fiber begins. */
void pd_fiber_begin(void);
/* Its first function, called from there only. */
void pd_fiber_main(struct pd_fiber *f);

#if defined(__x86_64__)

/* The words of a suspended side, from the lowest. */
enum { PD_FRAME_CONTROL, PD_FRAME_FIBER = 2, PD_FRAME_BEGIN = 7, PD_FRAME_WORDS };

/* The control words of SSE and the x87, as every thread begins with them. */
#	define PD_FRAME_CONTROL_WORD (0x1f80 | 0x037full << 32)

__asm__(".text\n"
	".p2align 4\n"
	".globl pd_fiber_switch\n"
	".hidden pd_fiber_switch\n"
	".type pd_fiber_switch, @function\n"
	"pd_fiber_switch:\n"
	"	.cfi_startproc\n"
	"	endbr64\n"
	"	pushq %rbp\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset rbp, 0\n"
	"	pushq %rbx\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset rbx, 0\n"
	"	pushq %r12\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset r12, 0\n"
	"	pushq %r13\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset r13, 0\n"
	"	pushq %r14\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset r14, 0\n"
	"	pushq %r15\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset r15, 0\n"
	"	subq $8, %rsp\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	stmxcsr (%rsp)\n"
	"	fnstcw 4(%rsp)\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n" /* the same frame on the other side */
	"	ldmxcsr (%rsp)\n"
	"	fldcw 4(%rsp)\n"
	"	addq $8, %rsp\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	popq %r15\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore r15\n"
	"	popq %r14\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore r14\n"
	"	popq %r13\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore r13\n"
	"	popq %r12\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore r12\n"
	"	popq %rbx\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore rbx\n"
	"	popq %rbp\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore rbp\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size pd_fiber_switch, .-pd_fiber_switch\n"
	".p2align 4\n"
	".globl pd_fiber_begin\n"
	".hidden pd_fiber_begin\n"
	".type pd_fiber_begin, @function\n"
	"pd_fiber_begin:\n"
	"	.cfi_startproc\n"
	"	.cfi_undefined rip\n" /* nobody called: backtraces end here */
	"	movq %r14, %rdi\n"
	"	call pd_fiber_main\n"
	"	ud2\n"
	"	.cfi_endproc\n"
	".size pd_fiber_begin, .-pd_fiber_begin\n");

/* Whether the thread has a shadow stack: the instruction does nothing where there is none. */
static bool pd_fiber_is_shadowed(void)
{
	uint64_t shadow = 0;

	__asm__ volatile(".byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8" /* rdsspq %rax */ : "+a"(shadow));
	return shadow;
}

#elif defined(__aarch64__)

enum { PD_FRAME_BEGIN = 1, PD_FRAME_FIBER, PD_FRAME_WORDS = 20 };

__asm__(".text\n"
	".p2align 4\n"
	".globl pd_fiber_switch\n"
	".hidden pd_fiber_switch\n"
	".type pd_fiber_switch, %function\n"
	"pd_fiber_switch:\n"
	"	.cfi_startproc\n"
	"	hint #34\n" /* bti c */
	"	stp x29, x30, [sp, #-160]!\n"
	"	.cfi_adjust_cfa_offset 160\n"
	"	.cfi_rel_offset x29, 0\n"
	"	.cfi_rel_offset x30, 8\n"
	"	stp x19, x20, [sp, #16]\n"
	"	stp x21, x22, [sp, #32]\n"
	"	stp x23, x24, [sp, #48]\n"
	"	stp x25, x26, [sp, #64]\n"
	"	stp x27, x28, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n" /* the same frame on the other side */
	"	ldp x19, x20, [sp, #16]\n"
	"	ldp x21, x22, [sp, #32]\n"
	"	ldp x23, x24, [sp, #48]\n"
	"	ldp x25, x26, [sp, #64]\n"
	"	ldp x27, x28, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	ldp x29, x30, [sp], #160\n"
	"	.cfi_adjust_cfa_offset -160\n"
	"	.cfi_restore x29\n"
	"	.cfi_restore x30\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size pd_fiber_switch, .-pd_fiber_switch\n"
	".p2align 4\n"
	".globl pd_fiber_begin\n"
	".hidden pd_fiber_begin\n"
	".type pd_fiber_begin, %function\n"
	"pd_fiber_begin:\n"
	"	.cfi_startproc\n"
	"	.cfi_undefined x30\n" /* nobody called: backtraces end here */
	"	mov x0, x19\n"
	"	bl pd_fiber_main\n"
	"	brk #1\n"
	"	.cfi_endproc\n"
	".size pd_fiber_begin, .-pd_fiber_begin\n");

/* Whether the thread has a guarded control stack: the instruction does nothing without. */
static bool pd_fiber_is_shadowed(void)
{
	register uint64_t none __asm__("x16") = 1;

	__asm__ volatile("hint #40" /* chkfeat x16 */ : "+r"(none));
	return !none;
}

#endif

/* Lay the top of the stack out as the switch would leave it. */
static void pd_fiber_lay_out(struct pd_fiber *f)
{
	/* A few words above, for who looks at a caller's frame; and both ABIs' alignment. */
	uint64_t *frame = (uint64_t *)(void *)(f->stack + f->stack_bytes - 32) - PD_FRAME_WORDS;

	frame[PD_FRAME_BEGIN] = (uintptr_t)pd_fiber_begin;
#if defined(__x86_64__)
	frame[PD_FRAME_CONTROL] = PD_FRAME_CONTROL_WORD;
#endif
	frame[PD_FRAME_FIBER] = (uintptr_t)f;
	f->sp = frame;
}

/* --- what the sanitizers are told ------------------------------------------------------------ */

/* The fiber has a stack. */
static void pd_fiber_note_made(struct pd_fiber *f, const char *name)
{
#ifdef PD_UNDER_ASAN
	__lsan_register_root_region(f->stack, f->stack_bytes);
#endif
#ifdef PD_UNDER_TSAN
	f->tsan = __tsan_create_fiber(0);
	__tsan_set_fiber_name(f->tsan, name);
#endif
}

/* It is about to be unmapped, with frames on it that never returned. */
static void pd_fiber_note_freed(struct pd_fiber *f)
{
#ifdef PD_UNDER_ASAN
	__lsan_unregister_root_region(f->stack, f->stack_bytes);
	__asan_unpoison_memory_region(f->stack, f->stack_bytes);
#endif
#ifdef PD_UNDER_TSAN
	__tsan_destroy_fiber(f->tsan);
#endif
}

/* The thread goes over to the fiber's stack: the last thing before the switch. */
static PD_ALWAYS_INLINE void pd_fiber_note_leave_thread(struct pd_fiber *f)
{
#ifdef PD_UNDER_ASAN
	__sanitizer_start_switch_fiber(&f->caller_fake, f->stack, f->stack_bytes);
#endif
#ifdef PD_UNDER_TSAN
	f->caller_tsan = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(f->tsan, 0);
#endif
}

/* It is back on its own: the first thing after the switch. */
static PD_ALWAYS_INLINE void pd_fiber_note_enter_thread(struct pd_fiber *f)
{
#ifdef PD_UNDER_ASAN
	__sanitizer_finish_switch_fiber(f->caller_fake, NULL, NULL);
#endif
}

/* It leaves the fiber's stack, for good when the fiber has returned. */
static PD_ALWAYS_INLINE void pd_fiber_note_leave(struct pd_fiber *f)
{
#ifdef PD_UNDER_ASAN
	__sanitizer_start_switch_fiber(f->returned ? NULL : &f->fake, f->caller_stack,
				       f->caller_stack_bytes);
#endif
#ifdef PD_UNDER_TSAN
	__tsan_switch_to_fiber(f->caller_tsan, 0);
#endif
}

/* It is on the fiber's stack. */
static PD_ALWAYS_INLINE void pd_fiber_note_enter(struct pd_fiber *f)
{
#ifdef PD_UNDER_ASAN
	__sanitizer_finish_switch_fiber(f->fake, &f->caller_stack, &f->caller_stack_bytes);
#endif
}

/* --- stacks ---------------------------------------------------------------------------------- */

/*
 * Name the mapping for who reads a core dump or /proc/PID/maps; kernels that cannot do without.
 */
static void pd_fiber_name_stack(const struct pd_fiber *f, const char *name)
{
	char text[64] = "palladium-";
	size_t n = strlen(text);

	for (; *name && n < sizeof(text) - 1; name++)
		if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.",
			   *name))
			text[n++] = *name;
	PD_SYS_5(SYS_prctl, 0x53564d41 /* PR_SET_VMA */, 0 /* PR_SET_VMA_ANON_NAME */, f->stack,
		 f->stack_bytes, text);
}

/* Map the stack and its guard. Returns 0 or -ENOMEM. */
static int pd_fiber_map(struct pd_fiber *f, size_t stack_bytes)
{
	size_t page = (size_t)pd_mem_page();
	unsigned char *map;

	stack_bytes =
		pd_max(stack_bytes ? stack_bytes : PD_FIBER_STACK_BYTES, PD_FIBER_STACK_MIN_BYTES);
	stack_bytes = (stack_bytes * PD_FIBER_STACK_SCALE + page - 1) & ~(page - 1);
	map = pd_sys_mmap(NULL, PD_FIBER_GUARD_BYTES + stack_bytes, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (pd_sys_is_error(map))
		return -ENOMEM;
	if (pd_sys_mprotect(map + PD_FIBER_GUARD_BYTES, stack_bytes, PROT_READ | PROT_WRITE)) {
		pd_sys_munmap(map, PD_FIBER_GUARD_BYTES + stack_bytes);
		return -ENOMEM;
	}
	f->stack = map + PD_FIBER_GUARD_BYTES;
	f->stack_bytes = stack_bytes;
	return 0;
}

int pd_fiber_make(struct pd_fiber *f, const char *name, size_t stack_bytes, void (*fn)(void *arg),
		  void *arg)
{
	memset(f, 0, sizeof(*f));
	if (pd_fiber_is_shadowed())
		return -ENOTSUP;
	if (pd_fiber_map(f, stack_bytes))
		return -ENOMEM;
	f->fn = fn;
	f->arg = arg;
	pd_fiber_name_stack(f, name);
	pd_fiber_lay_out(f);
	pd_fiber_note_made(f, name);
	return 0;
}

void pd_fiber_free(struct pd_fiber *f)
{
	if (!f->stack)
		return;
	pd_fiber_note_freed(f);
	pd_sys_munmap(f->stack - PD_FIBER_GUARD_BYTES, PD_FIBER_GUARD_BYTES + f->stack_bytes);
	f->stack = NULL;
}

PD_UNSANITIZED size_t pd_fiber_used(const struct pd_fiber *f)
{
	size_t clean = 0;

	/* The kernel gives it zeroed, and whatever is used holds something else sooner or later. */
	while (f->stack && clean < f->stack_bytes && !f->stack[clean])
		clean++;
	return f->stack ? f->stack_bytes - clean : 0;
}

/* --- running --------------------------------------------------------------------------------- */

/* Different in every thread, and found without a system call. */
static const void *pd_fiber_this_thread(void)
{
	static __thread char self;

	return &self;
}

__attribute__((used)) void pd_fiber_main(struct pd_fiber *f)
{
	pd_fiber_note_enter(f);
	f->fn(f->arg);
	f->returned = true;
	pd_fiber_suspend(f);
	__builtin_trap();
}

PD_NOINLINE bool pd_fiber_resume(struct pd_fiber *f)
{
	pd_assert(f->stack && !f->returned);
	pd_assert(!f->thread || f->thread == pd_fiber_this_thread());
	f->thread = pd_fiber_this_thread();
	pd_fiber_note_leave_thread(f);
	pd_fiber_switch(&f->caller_sp, f->sp);
	pd_fiber_note_enter_thread(f);
	return !f->returned;
}

PD_NOINLINE void pd_fiber_suspend(struct pd_fiber *f)
{
	pd_fiber_note_leave(f);
	pd_fiber_switch(&f->sp, f->caller_sp);
	pd_fiber_note_enter(f);
}
