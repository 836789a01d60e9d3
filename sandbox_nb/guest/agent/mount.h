/* The Mount service: file systems of disks and shares. */
#ifndef MOUNT_H
#define MOUNT_H

#include "rpc.h"

void mount_all(struct call *, struct bytes request);
void mount_unmount(struct call *, struct bytes request);
void mount_unmount_all(struct call *, struct bytes request);

#endif
