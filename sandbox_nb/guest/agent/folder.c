#include "folder.h"

#include "failure.h"
#include "trail.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

int folder_of(const char *path, const char **name)
{
	char folder[PATH_MAX];
	size_t len = (size_t)(strrchr(path, '/') - path) + 1;
	*name = path + len;
	if (**name == 0 || is_dots(*name)) {
		errno = EISDIR;
		return -1;
	}
	memcpy(folder, path, len);
	folder[len] = 0;
	return open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

void folder_each(int folder, void (*each)(int folder, const char *name))
{
	DIR *names = fdopendir(folder);
	if (!names)
		fail_with_errno(trail());
	for (const struct dirent *next; (errno = 0, next = readdir(names));)
		if (!is_dots(next->d_name))
			each(folder, next->d_name);
	if (errno)
		fail_with_errno(trail());
	closedir(names);
}
