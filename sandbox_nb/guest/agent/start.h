/* Process/Start: from the request to a running process. */
#ifndef START_H
#define START_H

#include "rpc.h"

void process_start(struct call *, struct bytes request);

#endif
