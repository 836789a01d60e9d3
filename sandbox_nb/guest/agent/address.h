/* IPv4 and IPv6 addresses, as text and as bytes. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include "bytes.h"

#include <netinet/in.h>

#define MAC_SIZE 6
#define MAC_TEXT_MAX sizeof("00:00:00:00:00:00")
#define ADDRESS_TEXT_MAX (INET6_ADDRSTRLEN + sizeof("/128"))

/* `family` 0 is none at all. */
struct address {
	int family; /* AF_INET, AF_INET6 */
	unsigned prefix;
	union {
		struct in_addr v4;
		struct in6_addr v6;
	};
};

/*
 * False for what is no address, which leaves `address` as it was. With `prefix` its length stands behind a slash, else
 * there is none.
 */
bool address_parse(struct bytes text, bool prefix, struct address *);
void address_text(const struct address *, bool prefix, char text[ADDRESS_TEXT_MAX]);

/* What /24 is written out: 255.255.255.0; and back. */
struct in_addr netmask_of(unsigned prefix);
unsigned prefix_of(const void *netmask, size_t size);

/* False for what is no address of one interface: too short, that of a group, nobody's. */
bool mac_parse(struct bytes text, uint8_t mac[MAC_SIZE]);
void mac_text(const uint8_t mac[MAC_SIZE], char text[MAC_TEXT_MAX]);

#endif
