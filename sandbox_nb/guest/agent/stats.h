/* The Stats service: how busy the guest is, from /proc. */
#ifndef STATS_H
#define STATS_H

#include "rpc.h"

void stats_get(struct call *, struct bytes request);

#endif
