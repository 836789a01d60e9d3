/* The processes of the guest, from /proc. */
#ifndef PSLIST_H
#define PSLIST_H

#include "bytes.h"

#include <sys/types.h>

/*
 * Puts a message for each as a field `number`, the oldest first, until `response` has more than `room` bytes. Left out are
 * `own`, the caller, and what the kernel runs for itself.
 */
void pslist_put(struct buffer *response, uint32_t number, pid_t own, size_t room);

#endif
