#include "cgroup.h"

#include "log.h"
#include "loop.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_RELEASED 512
#define QUIET (200 * NS_PER_MS)

static const char *root;
static unsigned last_number;
static unsigned spare;

/* One that finds no room here stays, which costs little. */
static unsigned released[MAX_RELEASED];
static size_t n_released;
static struct timer quiet;

static void make_path(char path[PATH_MAX], unsigned cgroup, const char *file)
{
	snprintf(path, PATH_MAX, "%s/%u/%s", root, cgroup, file);
}

static unsigned make_new(void)
{
	char path[PATH_MAX];
	make_path(path, ++last_number, "");
	if (mkdir(path, 0755) == 0)
		return last_number;
	say("a process gets no cgroup: %s: %s", path, strerror(errno));
	return NO_CGROUP;
}

unsigned cgroup_make(void)
{
	unsigned made = spare;
	spare = NO_CGROUP;
	if (!root || made != NO_CGROUP)
		return made;
	return make_new();
}

void cgroup_prepare(void)
{
	if (root && spare == NO_CGROUP)
		spare = make_new();
}

/*
 * No controller is handed down: with the one for memory every process starts a millisecond later, since the kernel then
 * accounts for each page and builds a dozen more files for each cgroup.
 */
void cgroup_init(const char *folder)
{
	if (mkdir(folder, 0755) < 0 && errno != EEXIST) {
		debug("no cgroups: %s: %s", folder, strerror(errno));
		return;
	}
	root = folder;
	cgroup_prepare();
}

int cgroup_open(unsigned cgroup)
{
	char path[PATH_MAX];
	if (cgroup == NO_CGROUP)
		return -1;
	make_path(path, cgroup, "");
	return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* /proc/PID/cgroup has the path as "0::/FOLDER/NUMBER", with more behind it if the process has moved further down. */
unsigned cgroup_of(pid_t pid)
{
	char path[64], folder[NAME_MAX + 3];
	const char *name = root ? strrchr(root, '/') : NULL;
	if (!name)
		return NO_CGROUP;
	snprintf(path, sizeof path, "/proc/%d/cgroup", pid);
	snprintf(folder, sizeof folder, "%s/", name);
	char *text = text_read(path), *found = text ? strstr(text, folder) : NULL;
	unsigned cgroup = found ? (unsigned)strtoul(found + strlen(folder), NULL, 10) : NO_CGROUP;
	free(text);
	return cgroup;
}

void cgroup_each(unsigned cgroup, void (*each)(pid_t, void *), void *context)
{
	char path[PATH_MAX];
	make_path(path, cgroup, "cgroup.procs");
	char *text = text_read(path), *cursor = text;
	for (char *line; text && (line = text_next_line(&cursor));)
		each((pid_t)atoi(line), context);
	free(text);
}

struct signalling {
	int signal;
	bool found;
};

static void signal_one(pid_t pid, void *context)
{
	struct signalling *signalling = context;
	signalling->found |= kill(pid, signalling->signal) == 0;
}

/* The kernel ends all at once, also those being forked; other signals go to one after the other. */
bool cgroup_signal(unsigned cgroup, int signal)
{
	char path[PATH_MAX];
	struct signalling signalling = {signal == SIGKILL ? 0 : signal, false};
	cgroup_each(cgroup, signal_one, &signalling);
	make_path(path, cgroup, "cgroup.kill");
	if (signal == SIGKILL && !text_write(path, "1")) {
		signalling.signal = SIGKILL;
		cgroup_each(cgroup, signal_one, &signalling);
	}
	return signalling.found;
}

static bool remove_if_empty(unsigned cgroup)
{
	char path[PATH_MAX];
	make_path(path, cgroup, "");
	return rmdir(path) == 0 || errno != EBUSY;
}

static void sweep(struct timer *timer)
{
	size_t kept = 0;
	(void)timer;
	for (size_t i = 0; i < n_released; i++)
		if (!remove_if_empty(released[i]))
			released[kept++] = released[i];
	n_released = kept;
}

void cgroup_release(unsigned cgroup)
{
	if (cgroup == NO_CGROUP)
		return;
	if (n_released == MAX_RELEASED)
		sweep(NULL);
	if (n_released < MAX_RELEASED)
		released[n_released++] = cgroup;
	timer_start(&quiet, QUIET, sweep);
}

void cgroup_child_gone(void)
{
	if (n_released > 0)
		timer_start(&quiet, QUIET, sweep);
}
