/* Devices that come: the kernel tells of each, and modprobe is asked for the driver of those without one. */
#ifndef UEVENT_H
#define UEVENT_H

#include <stdbool.h>
#include <sys/types.h>

/* Starts to listen. `tell` is called for every event there is. */
void uevent_init(void (*tell)(void));

/* Asks the kernel to tell again of the virtio devices that came before. */
void uevent_replay(void);

/* A child was reaped. Does nothing if it is not modprobe. */
void uevent_reaped(pid_t pid);

#endif
