/* A root file system on a disk of its own, beneath a writable overlay in memory. */
#ifndef ROOT_H
#define ROOT_H

#include "rpc.h"

#define SERIAL_MAX 20 /* what virtio-blk has room for */

struct root_disk {
	char serial[SERIAL_MAX + 1];
	char type[16];
};

/* Reads RootDisk; false when a value is wrong. */
bool root_disk_parse(struct bytes message, struct root_disk *);

/*
 * Waits for the disk, at most 10 s, and makes it the root of the agent and all that it starts from then on. `settled` is
 * called once, with STATUS_OK or with what was wrong; then the root is as it was.
 */
void root_switch(const struct root_disk *, void (*settled)(enum status, const char *problem));

/* A device may have come. */
void root_nudge(void);

#endif
