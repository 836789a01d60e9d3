/* The System service: what machine this is. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include "rpc.h"

void system_info(struct call *, struct bytes request);

/* The same and more on the console (-dump-info). */
void system_dump(void);

#endif
