#include "networking.h"

#include "interface.h"
#include "job.h"
#include "text.h"
#include "uevent.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define RESOLV_CONF "/etc/resolv.conf"
#define CARRIER_WAIT NS_PER_S
#define CARRIER_PAUSE (5 * NS_PER_MS)

static void find_interface(const struct network_plan *plan, uint64_t until, char name[IFNAMSIZ])
{
	char mac[MAC_TEXT_MAX];
	int events = uevent_open();
	mac_text(plan->mac, mac);
	while (!interface_find(plan->mac, name))
		if (!uevent_wait(events, until))
			job_fail(STATUS_NOT_FOUND, "no interface with the address %s has come within %u ms", mac,
				 plan->timeout_ms);
}

static _Noreturn void give_up(const char *name, const char *what)
{
	int error = errno;
	interface_clear(name);
	job_fail(STATUS_FAILED_PRECONDITION, "interface %s: %s: %s", name, what, strerror(error));
}

/* Down, without addresses, and called as it is to be. */
static void prepare(const struct network_plan *plan, char name[IFNAMSIZ])
{
	bool renames = *plan->name && strcmp(plan->name, name) != 0;
	if (renames && if_nametoindex(plan->name))
		job_fail(STATUS_ALREADY_EXISTS, "interface %s cannot be called %s: another one is", name, plan->name);
	if (!interface_clear(name))
		give_up(name, "it cannot be taken down");
	if (renames && !interface_rename(name, plan->name))
		give_up(name, "its name cannot be changed");
	if (renames)
		strcpy(name, plan->name);
}

/* A cable that is not plugged in is not waited for: it may be meant so. */
static void set_up(const char *name)
{
	const struct timespec pause = {.tv_nsec = CARRIER_PAUSE};
	if (!interface_set_up(name))
		give_up(name, "it cannot be brought up");
	for (uint64_t waited = 0; waited < CARRIER_WAIT && !interface_has_carrier(name); waited += CARRIER_PAUSE)
		nanosleep(&pause, NULL);
}

static void ask_for_lease(const struct network_plan *plan, const char *name, uint64_t until, struct lease *lease)
{
	if (lease_ask(name, until, lease))
		return;
	if (errno != ETIMEDOUT)
		give_up(name, "busybox's udhcpc has ended without a lease");
	interface_clear(name);
	job_fail(STATUS_DEADLINE_EXCEEDED, "interface %s: nobody has answered by DHCP within %u ms", name,
		 plan->timeout_ms);
}

/* A new file renamed into place: the old one may be a link to somewhere, or being read. */
static bool write_resolv_conf(const struct lease *lease)
{
	char text[MAX_DNS * (ADDRESS_TEXT_MAX + sizeof "nameserver \n")] = "";
	for (size_t i = 0; i < lease->n_dns; i++) {
		char server[ADDRESS_TEXT_MAX];
		size_t len = strlen(text);
		address_text(&lease->dns[i], false, server);
		snprintf(text + len, sizeof text - len, "nameserver %s\n", server);
	}
	if (lease->n_dns == 0)
		return true;
	return text_write(RESOLV_CONF ".new", text) && rename(RESOLV_CONF ".new", RESOLV_CONF) == 0;
}

/* What is told goes before what the lease says. */
static void merge(const struct network_plan *plan, struct lease *lease)
{
	if (plan->address.family)
		lease->address = plan->address;
	if (plan->gateway.family)
		lease->gateway = plan->gateway;
	if (plan->n_dns == 0)
		return;
	memcpy(lease->dns, plan->dns, sizeof plan->dns);
	lease->n_dns = plan->n_dns;
}

static void apply(const char *name, const struct lease *lease)
{
	if (lease->address.family && !interface_add_address(name, &lease->address))
		give_up(name, "it does not take the address");
	if (lease->gateway.family && !interface_add_default_route(name, &lease->gateway))
		give_up(name, "the gateway cannot be reached from the address");
	if (!write_resolv_conf(lease))
		give_up(name, RESOLV_CONF " cannot be written");
}

static void reply(const char *name, const struct lease *lease)
{
	char text[ADDRESS_TEXT_MAX];
	struct buffer response = {0};
	interface_put(&response, 1, name);
	address_text(&lease->gateway, false, text);
	pb_put_string(&response, 2, text);
	for (size_t i = 0; i < lease->n_dns; i++) {
		address_text(&lease->dns[i], false, text);
		pb_put_string(&response, 3, text);
	}
	pb_put_varint(&response, 4, lease->seconds);
	job_reply(&response);
}

void networking_work(void *context)
{
	const struct network_plan *plan = context;
	uint64_t until = monotonic_ns() + plan->timeout_ms * NS_PER_MS;
	char name[IFNAMSIZ];
	struct lease lease = {0};
	find_interface(plan, until, name);
	prepare(plan, name);
	set_up(name);
	if (plan->dhcp)
		ask_for_lease(plan, name, until, &lease);
	merge(plan, &lease);
	apply(name, &lease);
	reply(name, &lease);
}
