/*
 * A kernel that proves an accelerator: it enters long mode, runs a few instructions there, writes a word to the first serial
 * port and ends QEMU by its isa-debug-exit.
 *
 * QEMU boots it with -kernel as a PVH guest (xen/docs/misc/pvh.pandoc): 32-bit protected mode, flat segments, no paging. A
 * broken KVM typically survives real mode and SeaBIOS and hangs or aborts here.
 */
#include "probe.h"

#define SERIAL_PORT 0x3f8
#define EXIT_PORT 0x501

#define PRESENT_WRITABLE 0x3
#define LARGE_PAGE 0x80
#define CR0_PG 0x80000000
#define CR0_EM 0x4
#define CR0_MP 0x2
#define CR4_PAE 0x20
#define CR4_OSFXSR 0x200
#define CR4_OSXMMEXCPT 0x400
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100

	.section .note.Xen, "a", @note
	.balign 4
	.long 4, 4, 18 /* sizes of name and value; XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long entry

	.text
	.code32
	.globl entry
entry:
	movl $pml4, %eax
	movl %eax, %cr3
	movl %cr4, %eax
	orl $(CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT), %eax
	movl %eax, %cr4
	movl $MSR_EFER, %ecx
	rdmsr
	orl $EFER_LME, %eax
	wrmsr
	movl %cr0, %eax
	andl $~CR0_EM, %eax
	orl $(CR0_PG | CR0_MP), %eax
	movl %eax, %cr0
	lgdt gdt_pointer
	ljmp $8, $long_mode

	.code64
long_mode:
	xorl %eax, %eax
	cpuid
	movabsq $FIRST_HALF, %rax
	movq %rax, %xmm0
	movabsq $SECOND_HALF, %rax
	movq %rax, %xmm1
	paddb %xmm1, %xmm0
	movq %xmm0, %rax
	movw $SERIAL_PORT, %dx
	movl $8, %ecx
write:
	outb %al, %dx
	shrq $8, %rax
	decl %ecx
	jnz write
	movw $EXIT_PORT, %dx
	outb %al, %dx
halt:
	hlt
	jmp halt

	.data
	.balign 8
gdt:
	.quad 0
	.quad 0x00209a0000000000 /* 64-bit code, ring 0 */
gdt_pointer:
	.word gdt_pointer - gdt - 1
	.long gdt

	/* The first 2 MiB, one to one. */
	.balign 4096
pml4:
	.quad pdpt + PRESENT_WRITABLE
	.balign 4096
pdpt:
	.quad pd + PRESENT_WRITABLE
	.balign 4096
pd:
	.quad 0 + PRESENT_WRITABLE + LARGE_PAGE
	.balign 4096

	.section .note.GNU-stack, "", @progbits
