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

/* A new, empty cgroup: its number, NO_CGROUP when there can be none. Taken from a spare that cgroup_prepare() has made. */
unsigned cgroup_make(void);
void cgroup_prepare(void);

/* An fd to hand to clone3; -1 for NO_CGROUP. */
int cgroup_open(unsigned cgroup);

/* Which of them the process is in; NO_CGROUP when in none, or gone. */
unsigned cgroup_of(pid_t);

/* Sends `signal` to every process in it; false when there is none. */
bool cgroup_signal(unsigned cgroup, int signal);

/* Calls `each` for every process in it. */
void cgroup_each(unsigned cgroup, void (*each)(pid_t, void *context), void *context);

/*
 * It is not needed any more: it is removed once its last process is gone and the agent has had nothing to do for a while.
 * To remove one takes the kernel a millisecond, for which the next process would wait.
 */
void cgroup_release(unsigned cgroup);

/* A child is gone, and so perhaps the last process of a released cgroup. */
void cgroup_child_gone(void);

#endif
