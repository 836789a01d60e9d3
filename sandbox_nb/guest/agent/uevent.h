/*
 * Devices that come: the kernel tells of each, disks get their names, and modprobe is asked for the driver of those
 * without one.
 */
#ifndef UEVENT_H
#define UEVENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Starts to listen. `tell` is called for every event there is. With no driver `missing`, modprobe is left alone. */
void uevent_init(void (*tell)(void), bool missing);

/* Asks the kernel to tell again of the virtio devices that came before. */
void uevent_replay(void);

/*
 * For a worker that looks for a device until it is there: opens a socket of its own, before it looks first; and waits
 * for the kernel's next event, whatever it is. False when none comes until that monotonic time.
 */
int uevent_open(void);
bool uevent_wait(int fd, uint64_t until);

/* A child was reaped. Does nothing if it is not modprobe. */
void uevent_reaped(pid_t pid);

#endif
