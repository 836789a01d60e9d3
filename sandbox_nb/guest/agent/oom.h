/* Processes the kernel has ended for want of memory, as its log tells. */
#ifndef OOM_H
#define OOM_H

#include <sys/types.h>

/* Calls `killed` with the pid of each from here on. Does nothing when it watches already, or must not read the log. */
void oom_watch(void (*killed)(pid_t));

/* Takes at once what the loop has not come to yet. */
void oom_catch_up(void);

#endif
