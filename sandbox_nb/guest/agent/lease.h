/*
 * A lease by DHCP, asked for by busybox's udhcpc.
 *
 * What udhcpc learns it tells a program, in environment variables. That program is the agent once more, which hands
 * them to the worker that waits.
 */
#ifndef LEASE_H
#define LEASE_H

#include "address.h"

#define MAX_DNS 3 /* as many as resolv.conf(5) has a use for */

struct lease {
	struct address address;
	struct address gateway;
	struct address dns[MAX_DNS];
	size_t n_dns;
	uint32_t seconds;
};

/* For a worker: asks on an interface that is up, until that monotonic time. False with errno, ETIMEDOUT for one. */
bool lease_ask(const char *interface, uint64_t until, struct lease *);

/* True when this process was started by udhcpc; then lease_hand_over() is all it is to do. */
bool lease_called(void);
void lease_hand_over(const char *event);

#endif
