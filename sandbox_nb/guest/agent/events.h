/* The Events service: tells every subscriber what happens to processes. */
#ifndef EVENTS_H
#define EVENTS_H

#include "rpc.h"

#include <sys/types.h>

void events_stream(struct call *, struct bytes request);

void events_started(const char *id, pid_t pid);
void events_exited(const char *id, pid_t pid, int exit_code, int signal);
void events_out_of_memory(const char *id);

#endif
