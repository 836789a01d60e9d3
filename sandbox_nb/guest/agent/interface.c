#include "interface.h"

#include "pb.h"
#include "text.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/route.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* netdevice(7): how IPv6 has an address set. The kernel's header for it does not go with the C library's. */
struct in6_request {
	struct in6_addr address;
	uint32_t prefix;
	int index;
};

/* IFF_LOWER_UP of linux/if.h: there is a carrier. IFF_RUNNING is told as much as a second later. */
#define LOWER_UP 0x10000U

static bool control(int family, unsigned long request, void *argument)
{
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	bool done = ioctl(fd, (int)request, argument) == 0;
	int error = errno;
	close(fd);
	errno = error;
	return done;
}

static struct ifreq request_for(const char *name)
{
	struct ifreq request = {0};
	memcpy(request.ifr_name, name, MIN(strlen(name), IFNAMSIZ - 1));
	return request;
}

static void set_ipv4(struct sockaddr *where, struct in_addr address)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = address};
	memcpy(where, &in, sizeof in);
}

/* A link's own entry, of which each has one. */
static const struct sockaddr_ll *link_of(const struct ifaddrs *entry)
{
	bool is_link = entry->ifa_addr && entry->ifa_addr->sa_family == AF_PACKET;
	return is_link ? (const struct sockaddr_ll *)(const void *)entry->ifa_addr : NULL;
}

bool interface_find(const uint8_t mac[MAC_SIZE], char name[IFNAMSIZ])
{
	struct ifaddrs *all;
	bool found = false;
	if (getifaddrs(&all) < 0)
		return false;
	for (const struct ifaddrs *entry = all; entry && !found; entry = entry->ifa_next) {
		const struct sockaddr_ll *link = link_of(entry);
		found = link && link->sll_halen == MAC_SIZE && memcmp(link->sll_addr, mac, MAC_SIZE) == 0;
		if (found)
			snprintf(name, IFNAMSIZ, "%s", entry->ifa_name);
	}
	freeifaddrs(all);
	errno = ENODEV;
	return found;
}

static bool set_flags(const char *name, short set, short clear)
{
	struct ifreq request = request_for(name);
	if (!control(AF_INET, SIOCGIFFLAGS, &request))
		return false;
	request.ifr_flags = (short)((request.ifr_flags & ~clear) | set);
	return control(AF_INET, SIOCSIFFLAGS, &request);
}

static bool has_ipv4(const char *name)
{
	struct ifreq request = request_for(name);
	return control(AF_INET, SIOCGIFADDR, &request);
}

/* To be down costs it its IPv6 addresses and all routes, not the IPv4 addresses. */
bool interface_clear(const char *name)
{
	struct ifreq request = request_for(name);
	set_ipv4(&request.ifr_addr, (struct in_addr){INADDR_ANY});
	if (!set_flags(name, 0, IFF_UP))
		return false;
	while (has_ipv4(name))
		if (!control(AF_INET, SIOCSIFADDR, &request))
			return false;
	return true;
}

bool interface_rename(const char *name, const char *new_name)
{
	struct ifreq request = request_for(name);
	memcpy(request.ifr_newname, new_name, MIN(strlen(new_name), IFNAMSIZ - 1));
	return control(AF_INET, SIOCSIFNAME, &request);
}

/* An IPv6 address is to be of use at once, not when nobody has claimed it for a second. */
bool interface_set_up(const char *name)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/accept_dad", name);
	text_write(path, "0");
	return set_flags(name, IFF_UP, 0);
}

bool interface_has_carrier(const char *name)
{
	struct ifaddrs *all;
	bool found = false;
	if (getifaddrs(&all) < 0)
		return false;
	for (const struct ifaddrs *entry = all; entry && !found; entry = entry->ifa_next)
		found = link_of(entry) && strcmp(entry->ifa_name, name) == 0 && entry->ifa_flags & LOWER_UP;
	freeifaddrs(all);
	return found;
}

/* Without a prefix (a lease may lack it) the kernel takes that of the address's class. */
static bool add_ipv4(const char *name, const struct address *address)
{
	struct ifreq request = request_for(name);
	set_ipv4(&request.ifr_addr, address->v4);
	if (!control(AF_INET, SIOCSIFADDR, &request))
		return false;
	if (!address->prefix)
		return true;
	set_ipv4(&request.ifr_netmask, netmask_of(address->prefix));
	return control(AF_INET, SIOCSIFNETMASK, &request);
}

bool interface_add_address(const char *name, const struct address *address)
{
	if (address->family == AF_INET)
		return add_ipv4(name, address);
	struct in6_request request = {address->v6, address->prefix, (int)if_nametoindex(name)};
	return control(AF_INET6, SIOCSIFADDR, &request);
}

bool interface_add_default_route(const char *name, const struct address *gateway)
{
	char device[IFNAMSIZ];
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = device};
	struct in6_rtmsg route6 = {.rtmsg_flags = RTF_UP | RTF_GATEWAY, .rtmsg_metric = 1};
	if (gateway->family == AF_INET) {
		snprintf(device, sizeof device, "%s", name);
		set_ipv4(&route.rt_dst, (struct in_addr){INADDR_ANY});
		set_ipv4(&route.rt_genmask, (struct in_addr){INADDR_ANY});
		set_ipv4(&route.rt_gateway, gateway->v4);
		return control(AF_INET, SIOCADDRT, &route);
	}
	route6.rtmsg_gateway = gateway->v6;
	route6.rtmsg_ifindex = (int)if_nametoindex(name);
	return control(AF_INET6, SIOCADDRT, &route6);
}

static bool has_address(const struct ifaddrs *entry)
{
	if (!entry->ifa_addr || !entry->ifa_netmask)
		return false;
	return entry->ifa_addr->sa_family == AF_INET || entry->ifa_addr->sa_family == AF_INET6;
}

static void put_address(struct buffer *out, const struct ifaddrs *entry)
{
	char text[ADDRESS_TEXT_MAX];
	const void *has = entry->ifa_addr, *mask = entry->ifa_netmask;
	struct address address = {.family = entry->ifa_addr->sa_family};
	if (address.family == AF_INET) {
		address.v4 = ((const struct sockaddr_in *)has)->sin_addr;
		address.prefix = prefix_of(&((const struct sockaddr_in *)mask)->sin_addr, sizeof(struct in_addr));
	} else {
		address.v6 = ((const struct sockaddr_in6 *)has)->sin6_addr;
		address.prefix = prefix_of(&((const struct sockaddr_in6 *)mask)->sin6_addr, sizeof(struct in6_addr));
	}
	address_text(&address, true, text);
	pb_put_string(out, 5, text);
}

static const char *state_of(unsigned flags)
{
	if (!(flags & IFF_UP))
		return "down";
	return flags & LOWER_UP ? "up" : "no carrier";
}

static void put_link(struct buffer *out, const struct ifaddrs *link, const struct ifaddrs *all)
{
	char mac[MAC_TEXT_MAX] = "";
	struct ifreq request = request_for(link->ifa_name);
	if (link_of(link)->sll_halen == MAC_SIZE && !(link->ifa_flags & IFF_LOOPBACK))
		mac_text(link_of(link)->sll_addr, mac);
	pb_put_text(out, 1, link->ifa_name);
	pb_put_string(out, 2, mac);
	if (control(AF_INET, SIOCGIFMTU, &request))
		pb_put_varint(out, 3, (uint64_t)request.ifr_mtu);
	pb_put_string(out, 4, state_of(link->ifa_flags));
	for (const struct ifaddrs *entry = all; entry; entry = entry->ifa_next)
		if (strcmp(entry->ifa_name, link->ifa_name) == 0 && has_address(entry))
			put_address(out, entry);
}

void interface_put(struct buffer *out, uint32_t number, const char *name)
{
	struct ifaddrs *all;
	if (getifaddrs(&all) < 0)
		return;
	for (const struct ifaddrs *entry = all; entry; entry = entry->ifa_next) {
		struct buffer inner = {0};
		if (!link_of(entry) || (name && strcmp(entry->ifa_name, name) != 0))
			continue;
		put_link(&inner, entry, all);
		pb_put_message(out, number, &inner);
		buffer_free(&inner);
	}
	freeifaddrs(all);
}
