/* Network interfaces of the kernel's, by name. What says bool is false with errno. */
#ifndef INTERFACE_H
#define INTERFACE_H

#include "address.h"

#include <net/if.h>

/* Puts the name of the interface with that MAC address into `name`. */
bool interface_find(const uint8_t mac[MAC_SIZE], char name[IFNAMSIZ]);

/* Down, and without addresses and the routes they gave. */
bool interface_clear(const char *name);

/* It must be down. */
bool interface_rename(const char *name, const char *new_name);

/* A driver may find the carrier only now: until then what is sent is lost. */
bool interface_set_up(const char *name);
bool interface_has_carrier(const char *name);

bool interface_add_address(const char *name, const struct address *);
bool interface_add_default_route(const char *name, const struct address *gateway);

/* Appends a message Interface of network.proto as field `number`, for this one; for all when `name` is NULL. */
void interface_put(struct buffer *, uint32_t number, const char *name);

#endif
