/* The options of a mount, as /etc/fstab has them, taken apart for mount(2). */
#ifndef MOUNT_OPTIONS_H
#define MOUNT_OPTIONS_H

#include "bytes.h"

struct mount_options {
	unsigned long flags;
	unsigned long propagation; /* MS_PRIVATE and its like, for a call of its own; 0: as the parent's */
	char data[4096];           /* what the file system is handed; the kernel takes a page, with its NUL */
};

/* Adds an element of the list, one option or several with commas between. NULL, or what is wrong with it. */
const char *mount_options_add(struct mount_options *, struct bytes element);

#endif
