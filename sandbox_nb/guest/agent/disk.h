/* Disks by their serial numbers: /dev/disk/by-id/virtio-SERIAL, and -partN behind it, as udev names them. */
#ifndef DISK_H
#define DISK_H

#include "bytes.h"

#include <limits.h>

#define DISK_LINKS "/dev/disk/by-id/"
#define DISK_ID_MAX 48

/* What `serial` is called among the links. */
void disk_id(const char *serial, char id[DISK_ID_MAX]);

/* Puts the device of that name into `device`, links or no links; false when there is none. */
bool disk_find(const char *id, char device[PATH_MAX]);

/* Makes the links of all that are there. */
void disk_init(void);

/* The kernel's event about a block device, `name` beneath /dev. */
void disk_event(const char *action, const char *name);

#endif
