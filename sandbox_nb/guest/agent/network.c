#include "network.h"

#include "interface.h"
#include "job.h"
#include "networking.h"
#include "setup.h"

#include <ctype.h>
#include <string.h>

#define DEFAULT_TIMEOUT_MS 10000
#define MAX_TIMEOUT_MS 600000

/* As the kernel has it; a % would make it number the name. */
static bool is_interface_name(struct bytes name)
{
	if (name.len >= IFNAMSIZ || !bytes_printable(name) || bytes_equal(name, ".") || bytes_equal(name, ".."))
		return false;
	return !memchr(name.at, '/', name.len) && !memchr(name.at, ':', name.len) && !memchr(name.at, '%', name.len);
}

static const char *take_addr(struct network_plan *plan, struct bytes addr)
{
	plan->dhcp = bytes_equal(addr, "dhcp");
	plan->address = (struct address){0};
	if (plan->dhcp || addr.len == 0 || bytes_equal(addr, "none") || address_parse(addr, true, &plan->address))
		return NULL;
	return "addr is \"dhcp\", \"none\", or an address with its prefix, such as 10.0.0.2/24";
}

static const char *take_gateway(struct network_plan *plan, struct bytes gateway)
{
	plan->gateway = (struct address){0};
	return gateway.len == 0 || address_parse(gateway, false, &plan->gateway) ? NULL : "gateway is no IP address";
}

static const char *take_name(struct network_plan *plan, struct bytes name)
{
	memset(plan->name, 0, sizeof plan->name);
	if (name.len > 0 && !is_interface_name(name))
		return "the name of an interface has at most 15 printable ASCII characters, and no / : or %";
	if (name.len > 0)
		memcpy(plan->name, name.at, name.len);
	return NULL;
}

static const char *take_timeout(struct network_plan *plan, uint64_t timeout_ms)
{
	if (timeout_ms > MAX_TIMEOUT_MS)
		return "timeout_ms is at most 600000, which is ten minutes";
	plan->timeout_ms = timeout_ms ? (uint32_t)timeout_ms : DEFAULT_TIMEOUT_MS;
	return NULL;
}

static const char *take_dns(struct network_plan *plan, struct bytes server)
{
	if (plan->n_dns == MAX_DNS)
		return "more than 3 servers in dns: nobody would ask the others";
	return address_parse(server, false, &plan->dns[plan->n_dns++]) ? NULL : "an element of dns is no IP address";
}

/* NULL, or what is wrong. */
static const char *take_field(struct network_plan *plan, const struct pb_field *field)
{
	switch (field->tag) {
	case PB_BYTES(1):
		return mac_parse(field->bytes, plan->mac) ? NULL : "mac is no address of one interface";
	case PB_BYTES(2):
		return take_addr(plan, field->bytes);
	case PB_BYTES(3):
		return take_gateway(plan, field->bytes);
	case PB_BYTES(4):
		return take_dns(plan, field->bytes);
	case PB_BYTES(5):
		return take_name(plan, field->bytes);
	case PB_VARINT(6):
		return take_timeout(plan, field->varint);
	}
	return NULL;
}

/* What is wrong with the whole. */
static const char *check(const struct network_plan *plan)
{
	int family = plan->dhcp ? AF_INET : plan->address.family;
	if (!memcmp(plan->mac, (uint8_t[MAC_SIZE]){0}, MAC_SIZE))
		return "mac is missing: interfaces are told apart by it";
	if (plan->gateway.family && plan->gateway.family != family)
		return "gateway needs an addr of its own family";
	return NULL;
}

void network_configure(struct call *call, struct bytes request)
{
	struct network_plan plan = {.timeout_ms = DEFAULT_TIMEOUT_MS};
	const char *problem = NULL;
	struct pb_reader in = pb_read(request);
	for (struct pb_field field; !problem && pb_next(&in, &field);)
		problem = take_field(&plan, &field);
	if (!setup_done(call) || !call_decoded(call, &in))
		return;
	if (!problem)
		problem = check(&plan);
	if (problem)
		call_fail(call, STATUS_INVALID_ARGUMENT, "%s", problem);
	else
		job_start(call, -1, networking_work, &plan);
}

void network_list(struct call *call, struct bytes request)
{
	struct buffer response = {0};
	(void)request;
	interface_put(&response, 1, NULL);
	call_reply(call, &response);
	buffer_free(&response);
}
