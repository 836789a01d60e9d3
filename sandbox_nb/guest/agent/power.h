/* The end of the machine: processes, file systems, power. */
#ifndef POWER_H
#define POWER_H

#include "rpc.h"

/* `machine`: this is one's own to switch off. Else (native tests) the agent ends its processes and itself. */
void power_init(bool machine);

void power_off(struct call *, struct bytes request);

/* The same without a call: the power button. */
void power_go(void);

/* The last child is gone. */
void power_no_children(void);

#endif
