/* The end of children: the agent's own and, as it is process 1, all that were orphaned. */
#ifndef REAP_H
#define REAP_H

/* Takes signals from here on; all of them are blocked. */
void reap_init(void);

void reap_children(void);

#endif
