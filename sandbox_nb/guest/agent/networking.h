/* The work of the Network service, done by a child of the agent's (see job.h): devices and leases take their time. */
#ifndef NETWORKING_H
#define NETWORKING_H

#include "lease.h"

#include <net/if.h>

/* What a ConfigureRequest comes to. */
struct network_plan {
	uint8_t mac[MAC_SIZE];
	char name[IFNAMSIZ]; /* "": the kernel's stays */
	bool dhcp;
	struct address address; /* these three: of family 0, or none, where they are not given */
	struct address gateway;
	struct address dns[MAX_DNS];
	size_t n_dns;
	uint32_t timeout_ms;
};

/* Carries out a struct network_plan and answers with a ConfigureResponse. */
void networking_work(void *plan);

#endif
