/* Folders, for workers. */
#ifndef FOLDER_H
#define FOLDER_H

/*
 * Opens the folder that holds what `path` names, and finds the last name in it. -1 with errno, which is EISDIR when that is
 * no name: empty, "." or "..".
 */
int folder_of(const char *path, const char **name);

/* Calls `each` for all that is in an open folder, and closes it. Ends the worker when it cannot be read. */
void folder_each(int folder, void (*each)(int folder, const char *name));

#endif
