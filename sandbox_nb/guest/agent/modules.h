/* Kernel modules in the order of a list. */
#ifndef MODULES_H
#define MODULES_H

/* Loads the modules whose absolute paths `list` has, one a line. One that fails is told and skipped. */
void modules_load(const char *list);

#endif
