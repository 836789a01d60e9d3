#include "address.h"

#include "text.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

bool address_parse(struct bytes text, bool prefix, struct address *address)
{
	char copy[ADDRESS_TEXT_MAX], *fields[2] = {copy, ""};
	uint64_t length = 0;
	if (text.len == 0 || text.len >= sizeof copy || !bytes_printable(text))
		return false;
	memcpy(copy, text.at, text.len);
	copy[text.len] = 0;
	if ((text_split(copy, '/', fields, 2) == 2) != prefix)
		return false;
	struct address found = {.family = strchr(copy, ':') ? AF_INET6 : AF_INET};
	if (prefix && (!text_number(fields[1], found.family == AF_INET ? 32 : 128, &length) || length == 0))
		return false;
	found.prefix = (unsigned)length;
	if (inet_pton(found.family, copy, &found.v6) != 1)
		return false;
	*address = found;
	return true;
}

void address_text(const struct address *address, bool prefix, char text[ADDRESS_TEXT_MAX])
{
	*text = 0;
	if (!address->family || !inet_ntop(address->family, &address->v6, text, INET6_ADDRSTRLEN) || !prefix)
		return;
	size_t len = strlen(text);
	snprintf(text + len, ADDRESS_TEXT_MAX - len, "/%u", address->prefix);
}

struct in_addr netmask_of(unsigned prefix)
{
	return (struct in_addr){.s_addr = htonl(prefix ? UINT32_MAX << (32 - prefix) : 0)};
}

unsigned prefix_of(const void *netmask, size_t size)
{
	const uint8_t *bytes = netmask;
	unsigned prefix = 0;
	while (prefix < 8 * size && bytes[prefix / 8] & (0x80 >> prefix % 8))
		prefix++;
	return prefix;
}

static int digit_of(uint8_t character)
{
	const char *digits = "0123456789abcdef", *found = strchr(digits, tolower(character));
	return found && character ? (int)(found - digits) : -1;
}

bool mac_parse(struct bytes text, uint8_t mac[MAC_SIZE])
{
	if (text.len != MAC_TEXT_MAX - 1)
		return false;
	for (size_t i = 0; i < MAC_SIZE; i++) {
		const uint8_t *at = text.at + 3 * i;
		int high = digit_of(at[0]), low = digit_of(at[1]);
		if (high < 0 || low < 0 || (i + 1 < MAC_SIZE && at[2] != ':'))
			return false;
		mac[i] = (uint8_t)(high << 4 | low);
	}
	return !(mac[0] & 1) && memcmp(mac, (uint8_t[MAC_SIZE]){0}, MAC_SIZE) != 0;
}

void mac_text(const uint8_t mac[MAC_SIZE], char text[MAC_TEXT_MAX])
{
	snprintf(text, MAC_TEXT_MAX, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}
