/*
 * What a worker has changed, taken back should it not come to its end.
 *
 * It may be killed at any moment: the host gives up waiting, the guest is out of memory. So a process of its own keeps
 * the list, and takes everything back, the latest first, once the worker is gone or says so.
 */
#ifndef UNDO_H
#define UNDO_H

#include <stdbool.h>

/* False with errno. */
bool undo_begin(void);

/* Told before it is done; what then was not done is not taken back. A path is one that is not there yet. */
void undo_mount(const char *target);
void undo_path(const char *path);

/* Either ends it; both return when nothing more is going to happen. */
void undo_forget(void);
void undo_all(void);

#endif
