/* The Setup service: what makes one machine of many that booted alike. No process runs before, but in a rehearsal. */
#ifndef SETUP_H
#define SETUP_H

#include "rpc.h"

/* `machine`: this is one's own to set up. Else (native tests) a request is checked, and the host left alone. */
void setup_init(bool machine);

void setup_configure(struct call *, struct bytes request);
void setup_rehearse(struct call *, struct bytes request);

/* False, and the call failed, before the machine was set up and once it is being powered off. */
bool setup_done(struct call *);

/* The machine is being powered off. */
void setup_leave(void);

#endif
