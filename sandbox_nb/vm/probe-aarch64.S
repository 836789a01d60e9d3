/*
 * A kernel that proves an accelerator: it runs a few instructions, vector ones among them, writes a word to the first serial
 * port of QEMU's machine "virt" and powers off by PSCI.
 *
 * QEMU loads it with -kernel as a plain ELF file and starts it at its entry, in EL1 with the MMU off.
 */
#include "probe.h"

#define PL011_DATA 0x09000000 /* hw/arm/virt.c, VIRT_UART */
#define CPACR_EL1_FPEN (3 << 20)
#define PSCI_SYSTEM_OFF 0x84000008

	.text
	.globl entry
entry:
	mrs x0, cpacr_el1
	orr x0, x0, #CPACR_EL1_FPEN
	msr cpacr_el1, x0
	isb
	ldr x0, =FIRST_HALF
	ldr x1, =SECOND_HALF
	fmov d0, x0
	fmov d1, x1
	add v0.8b, v0.8b, v1.8b
	fmov x0, d0
	ldr x1, =PL011_DATA
	mov w2, #8
write:
	str w0, [x1] /* takes the lowest byte */
	lsr x0, x0, #8
	subs w2, w2, #1
	b.ne write
	ldr w0, =PSCI_SYSTEM_OFF
	hvc #0
halt:
	wfi
	b halt

	.section .note.GNU-stack, "", %progbits
