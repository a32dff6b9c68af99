/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vfork and syscall: jumps, not calls.
 *
 * The child of vfork returns through the caller's frame before the parent does, so a wrapper with a
 * frame of its own would return to an address that the child has overwritten. syscall() gets the
 * same treatment because its number may be vfork's or clone's.
 */
#include "preload/asm.h"

#if defined(__x86_64__)

__asm__(".text\n"
	".p2align 4\n"
	".globl vfork\n"
	".type vfork, @function\n"
	"vfork:\n"
	"	.cfi_startproc\n"
	"	endbr64\n"
	"	jmp *pd_real_vfork(%rip)\n"
	"	.cfi_endproc\n"
	".size vfork, .-vfork\n"
	".p2align 4\n"
	".globl syscall\n"
	".type syscall, @function\n"
	"syscall:\n"
	"	.cfi_startproc\n"
	"	endbr64\n"
	"	cmpb $0, pd_gate_configured(%rip)\n"
	"	je 1f\n"
	"	cmpq $511, %rdi\n" /* PD_SYSCALL_MAP_SIZE - 1 */
	"	ja 1f\n"
	"	leaq pd_syscall_map(%rip), %rax\n"
	"	cmpb $0, (%rax,%rdi)\n"
	"	je 1f\n"
	"	jmp pd_syscall_dispatch\n"
	"1:	jmp *pd_real_syscall(%rip)\n"
	"	.cfi_endproc\n"
	".size syscall, .-syscall\n");

#elif defined(__aarch64__)

__asm__(".text\n"
	".p2align 4\n"
	".globl vfork\n"
	".type vfork, %function\n"
	"vfork:\n"
	"	.cfi_startproc\n"
	"	hint #34\n" /* bti c */
	"	adrp x16, pd_real_vfork\n"
	"	ldr x16, [x16, #:lo12:pd_real_vfork]\n"
	"	br x16\n"
	"	.cfi_endproc\n"
	".size vfork, .-vfork\n"
	".p2align 4\n"
	".globl syscall\n"
	".type syscall, %function\n"
	"syscall:\n"
	"	.cfi_startproc\n"
	"	hint #34\n"
	"	adrp x16, pd_gate_configured\n"
	"	ldrb w16, [x16, #:lo12:pd_gate_configured]\n"
	"	cbz w16, 1f\n"
	"	cmp x0, #511\n" /* PD_SYSCALL_MAP_SIZE - 1 */
	"	b.hi 1f\n"
	"	adrp x16, pd_syscall_map\n"
	"	add x16, x16, #:lo12:pd_syscall_map\n"
	"	ldrb w16, [x16, x0]\n"
	"	cbz w16, 1f\n"
	"	b pd_syscall_dispatch\n"
	"1:	adrp x16, pd_real_syscall\n"
	"	ldr x16, [x16, #:lo12:pd_real_syscall]\n"
	"	br x16\n"
	"	.cfi_endproc\n"
	".size syscall, .-syscall\n");

#endif

_Static_assert(PD_SYSCALL_MAP_SIZE == 512, "the comparisons above");
