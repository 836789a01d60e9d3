/* The Disks service. */
#ifndef DISKS_H
#define DISKS_H

#include "rpc.h"

void disks_find(struct call *, struct bytes request);

#endif
