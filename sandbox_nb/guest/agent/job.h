/*
 * Work for a call that may block, done by a child of the agent's: the loop goes on.
 *
 * The child answers through job_reply() or job_fail(), once. A call that is dropped ends its child, by SIGTERM.
 */
#ifndef JOB_H
#define JOB_H

#include "rpc.h"

#include <sys/types.h>

/* Forks. In the child, `work` has `stream` as its standard input, if that is not -1. Closes `stream` in the agent. */
void job_start(struct call *, int stream, void (*work)(void *), void *context);

/* The same; `ended` is called once, in the agent, when the child is gone: `done` if it replied through job_reply(). */
void job_start_told(struct call *, void (*work)(void *), void *context, void (*ended)(void *context, bool done));

/* In the child. */
void job_reply(const struct buffer *payload);
_Noreturn void job_fail(enum status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A child was reaped. Does nothing if it is none of these. */
void job_reaped(pid_t pid);

#endif
