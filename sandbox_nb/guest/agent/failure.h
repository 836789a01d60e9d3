/* What a system call answered, as an answer of the agent's. */
#ifndef FAILURE_H
#define FAILURE_H

#include "ttrpc.h"

enum status status_of_errno(int error);

/* Ends a worker with errno and the path it is about, which an answer holds up to its 400th byte. */
_Noreturn void fail_with_errno(const char *path);

#endif
