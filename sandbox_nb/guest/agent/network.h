/* The Network service: interfaces and their addresses. */
#ifndef NETWORK_H
#define NETWORK_H

#include "rpc.h"

void network_configure(struct call *, struct bytes request);
void network_list(struct call *, struct bytes request);

#endif
