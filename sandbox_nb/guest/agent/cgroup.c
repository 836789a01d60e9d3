#include "cgroup.h"

#include "log.h"
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

static const char *root;
static unsigned last_number;

/* Released cgroups in which processes still run. */
static unsigned *lingering;
static size_t n_lingering, lingering_capacity;

static void make_path(char path[PATH_MAX], unsigned cgroup, const char *file)
{
	snprintf(path, PATH_MAX, "%s/%u/%s", root, cgroup, file);
}

void cgroup_init(const char *folder)
{
	char path[PATH_MAX];
	if (mkdir(folder, 0755) < 0 && errno != EEXIST) {
		debug("no cgroups: %s: %s", folder, strerror(errno));
		return;
	}
	root = folder;
	/* The memory controller is what counts processes ended for want of memory. Both levels must hand it down. */
	snprintf(path, sizeof path, "%s/../cgroup.subtree_control", folder);
	if (text_write(path, "+memory")) {
		snprintf(path, sizeof path, "%s/cgroup.subtree_control", folder);
		text_write(path, "+memory");
	}
}

unsigned cgroup_make(void)
{
	char path[PATH_MAX];
	if (!root)
		return NO_CGROUP;
	make_path(path, ++last_number, "");
	if (mkdir(path, 0755) == 0)
		return last_number;
	say("a process gets no cgroup: %s: %s", path, strerror(errno));
	return NO_CGROUP;
}

int cgroup_open(unsigned cgroup)
{
	char path[PATH_MAX];
	if (cgroup == NO_CGROUP)
		return -1;
	make_path(path, cgroup, "");
	return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
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

uint64_t cgroup_oom_kills(unsigned cgroup)
{
	char path[PATH_MAX];
	uint64_t kills = 0;
	make_path(path, cgroup, "memory.events");
	char *text = text_read(path), *cursor = text;
	for (char *line; text && (line = text_next_line(&cursor));)
		if (strncmp(line, "oom_kill ", 9) == 0)
			kills = strtoull(line + 9, NULL, 10);
	free(text);
	return kills;
}

static bool remove_now(unsigned cgroup)
{
	char path[PATH_MAX];
	make_path(path, cgroup, "");
	return rmdir(path) == 0 || errno != EBUSY;
}

void cgroup_release(unsigned cgroup)
{
	if (cgroup == NO_CGROUP || remove_now(cgroup))
		return;
	if (n_lingering == lingering_capacity) {
		size_t capacity = lingering_capacity ? 2 * lingering_capacity : 16;
		unsigned *grown = realloc(lingering, capacity * sizeof *grown);
		if (!grown)
			return; /* an empty cgroup that stays costs little */
		lingering = grown;
		lingering_capacity = capacity;
	}
	lingering[n_lingering++] = cgroup;
}

void cgroup_sweep(void)
{
	size_t kept = 0;
	for (size_t i = 0; i < n_lingering; i++)
		if (!remove_now(lingering[i]))
			lingering[kept++] = lingering[i];
	n_lingering = kept;
}
