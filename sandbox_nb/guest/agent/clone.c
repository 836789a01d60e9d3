#include "clone.h"

#include <stdint.h>
#include <sys/syscall.h>

/*
 * The child comes out of the system call on an empty stack: there is no frame of C to return to, so the call of `run` has to
 * be made right here. All other registers are as they were.
 */
static long clone_on_stack(struct clone_args *args, void (*run)(const void *), const void *context)
{
#if defined(__x86_64__)
	long result = SYS_clone3;
	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "and $-16, %%rsp\n\t"
			 "mov %[context], %%rdi\n\t"
			 "call *%[run]\n\t"
			 "ud2\n"
			 "1:"
			 : "+a"(result)
			 : "D"(args), "S"(sizeof *args), [run] "r"(run), [context] "r"(context)
			 : "rcx", "r11", "memory", "cc");
	return result;
#elif defined(__aarch64__)
	register long result __asm__("x0") = (long)args;
	register long size __asm__("x1") = sizeof *args;
	register long number __asm__("x8") = SYS_clone3;
	__asm__ volatile("svc #0\n\t"
			 "cbnz x0, 1f\n\t"
			 "mov x29, xzr\n\t"
			 "mov x0, %[context]\n\t"
			 "blr %[run]\n\t"
			 "brk #0\n"
			 "1:"
			 : "+r"(result)
			 : "r"(size), "r"(number), [run] "r"(run), [context] "r"(context)
			 : "memory", "cc");
	return result;
#else
#error "clone3 has to be written for this architecture"
#endif
}

pid_t clone_and_run(struct clone_args *args, void *stack, size_t stack_size, void (*run)(const void *), const void *context)
{
	args->stack = (uintptr_t)stack;
	args->stack_size = stack_size;
#ifdef __SANITIZE_ADDRESS__
	/* It keeps books on the stacks it knows, in memory a child must not share with its parent then. */
	*args = (struct clone_args){
		.flags = args->flags & ~(uint64_t)(CLONE_VM | CLONE_VFORK),
		.exit_signal = args->exit_signal,
		.cgroup = args->cgroup,
	};
#endif
	return (pid_t)clone_on_stack(args, run, context);
}
