#include "making.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char temporary[32];
static volatile sig_atomic_t where = -1; /* the folder; -1 when nothing is in the making */

void making_drop(void)
{
	int error = errno;
	if (where >= 0)
		unlinkat(where, temporary, 0);
	where = -1;
	errno = error;
}

static void terminated(int number)
{
	(void)number;
	making_drop();
	_exit(1);
}

void making_init(void)
{
	struct sigaction action = {.sa_handler = terminated};
	snprintf(temporary, sizeof temporary, ".sandbox.%d", getpid());
	sigaction(SIGTERM, &action, NULL);
}

/* A machine that lost its power may have left the name on a disk. */
static void begin(int folder)
{
	unlinkat(folder, temporary, 0);
	where = folder;
}

int making_file(int folder)
{
	begin(folder);
	return openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

bool making_symlink(int folder, const char *target)
{
	begin(folder);
	return symlinkat(target, folder, temporary) == 0;
}

bool making_link(int folder, int old_folder, const char *old_name)
{
	begin(folder);
	return linkat(old_folder, old_name, folder, temporary, 0) == 0;
}

bool making_place(const char *name)
{
	bool placed = renameat(where, temporary, where, name) == 0;
	/* Dropped in either case: between two names of one file a rename does nothing, and says that it went well. */
	making_drop();
	return placed;
}
