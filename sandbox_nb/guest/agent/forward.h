/* The Forward service: a stream of the host's, joined to what listens in the guest. */
#ifndef FORWARD_H
#define FORWARD_H

#include "rpc.h"

void forward_dial(struct call *, struct bytes request);

#endif
