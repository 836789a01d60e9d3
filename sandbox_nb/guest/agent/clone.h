/* clone3 with a stack of the child's own, which C libraries do not offer. */
#ifndef CLONE_H
#define CLONE_H

#include <linux/sched.h>
#include <sys/types.h>

/*
 * Forks, and calls run(context) in the child, on `stack`, which it must not leave. Returns the child's pid in the parent,
 * or minus an errno.
 */
pid_t clone_and_run(struct clone_args *, void *stack, size_t stack_size, void (*run)(const void *), const void *context);

#endif
