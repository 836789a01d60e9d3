#include "modules.h"

#include "log.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
		say("module %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

void modules_load(const char *list)
{
	char *text = text_read(list), *cursor = text;
	for (char *line; text && (line = text_next_line(&cursor));)
		if (*line)
			load(line);
	free(text);
}
