/*
 * What a worker is making: under a name nobody else uses, in the folder where it belongs, and renamed into place when it
 * is whole. So a file is there as it was or as it shall be, whenever somebody looks.
 *
 * A worker makes one thing at a time.
 */
#ifndef MAKING_H
#define MAKING_H

#include <stdbool.h>

/* From here on SIGTERM ends the worker and takes with it what is half-made. */
void making_init(void);

/* Each false, or -1, with errno. `folder` stays open until making_place() or making_drop(). */
int making_file(int folder);
bool making_symlink(int folder, const char *target);
bool making_link(int folder, int old_folder, const char *old_name);

/* Takes the place of whatever has the name, but a folder. Drops it when that cannot be. */
bool making_place(const char *name);

/* Keeps errno. Does nothing when nothing is in the making. */
void making_drop(void);

#endif
