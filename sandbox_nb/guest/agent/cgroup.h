/*
 * A cgroup for each process, so that all it started can be found and ended, whatever session or group it moved to.
 *
 * Needs cgroup v2; where that is not there (native tests on some hosts) there are none, and callers use the process group.
 */
#ifndef CGROUP_H
#define CGROUP_H

#include "bytes.h"

#include <sys/types.h>

#define NO_CGROUP 0

/* Prepares `folder` of a cgroup v2 file system, whose path must stay valid. */
void cgroup_init(const char *folder);

/* A new, empty cgroup: its number, NO_CGROUP when there can be none. */
unsigned cgroup_make(void);

/* An fd to hand to clone3; -1 for NO_CGROUP. */
int cgroup_open(unsigned cgroup);

/* Sends `signal` to every process in it; false when there is none. */
bool cgroup_signal(unsigned cgroup, int signal);

/* Calls `each` for every process in it. */
void cgroup_each(unsigned cgroup, void (*each)(pid_t, void *context), void *context);

/* How many processes of it the kernel has ended for want of memory. */
uint64_t cgroup_oom_kills(unsigned cgroup);

/* Removes it: now, or once cgroup_sweep() finds its last process gone. */
void cgroup_release(unsigned cgroup);
void cgroup_sweep(void);

#endif
