/* Where a worker is in a tree, by the path from the root. */
#ifndef TRAIL_H
#define TRAIL_H

#include "bytes.h"

void trail_begin(const char *top);

/* The whole path, for messages; and what of it is below the top, "" there. */
const char *trail(void);
const char *trail_below(void);

/* Into what lies there under this name, which is returned with a NUL behind it and valid until the worker leaves. */
const char *trail_enter(struct bytes name);
void trail_leave(void);

#endif
