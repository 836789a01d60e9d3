#include "unmounting.h"

#include "job.h"
#include "strings.h"
#include "text.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define MAX_NAMED 5

/* Who keeps a mount busy, as text. */
struct holders {
	const char *target;
	char text[256];
	unsigned n;
};

static void add_holder(struct holders *holders, const char *format, const char *what, const char *name)
{
	size_t len = strlen(holders->text), room = sizeof holders->text - len;
	if (holders->n++ >= MAX_NAMED || room < 64)
		return;
	len += (size_t)snprintf(holders->text + len, room, "%s", len ? ", " : "");
	snprintf(holders->text + len, sizeof holders->text - len, format, what, name);
}

static bool lies_beneath(const char *path, const char *target)
{
	size_t len = strlen(target);
	return strncmp(path, target, len) == 0 && (path[len] == 0 || path[len] == '/');
}

static bool points_beneath(const char *link, const char *target)
{
	char path[PATH_MAX];
	ssize_t len = readlink(link, path, sizeof path - 1);
	path[len > 0 ? len : 0] = 0;
	return lies_beneath(path, target);
}

/* Any of the links in a folder of /proc, such as fd. */
static bool any_beneath(const char *folder, const char *target)
{
	DIR *links = opendir(folder);
	bool found = false;
	for (struct dirent *entry; links && !found && (entry = readdir(links));) {
		char link[PATH_MAX];
		snprintf(link, sizeof link, "%s/%s", folder, entry->d_name);
		found = points_beneath(link, target);
	}
	if (links)
		closedir(links);
	return found;
}

static bool process_uses(const char *pid, const char *target)
{
	static const char *const links[] = {"cwd", "root", "exe"}, *const folders[] = {"fd", "map_files"};
	char path[64];
	bool found = false;
	for (size_t i = 0; i < ARRAY_SIZE(links) && !found; i++) {
		snprintf(path, sizeof path, "/proc/%.16s/%s", pid, links[i]);
		found = points_beneath(path, target);
	}
	for (size_t i = 0; i < ARRAY_SIZE(folders) && !found; i++) {
		snprintf(path, sizeof path, "/proc/%.16s/%s", pid, folders[i]);
		found = any_beneath(path, target);
	}
	return found;
}

static void find_processes(struct holders *holders)
{
	DIR *processes = opendir("/proc");
	for (struct dirent *entry; processes && (entry = readdir(processes));) {
		char path[64], command[32];
		if (!isdigit((unsigned char)entry->d_name[0]) || !process_uses(entry->d_name, holders->target))
			continue;
		snprintf(path, sizeof path, "/proc/%.16s/comm", entry->d_name);
		text_read_line(path, command, sizeof command);
		add_holder(holders, "process %s (%s)", entry->d_name, command);
	}
	if (processes)
		closedir(processes);
}

static void find_mounts(struct holders *holders)
{
	char *text = text_read("/proc/self/mounts"), *cursor = text, *fields[3];
	for (char *line; text && (line = text_next_line(&cursor));)
		if (text_split(line, ' ', fields, 3) == 3 && strcmp(fields[1], holders->target) != 0 &&
		    lies_beneath(fields[1], holders->target))
			add_holder(holders, "%s mounted on %s", fields[0], fields[1]);
	free(text);
}

static _Noreturn void fail_busy(const char *target)
{
	char path[PATH_MAX];
	struct holders holders = {.target = realpath(target, path) ? path : target};
	find_mounts(&holders);
	find_processes(&holders);
	size_t len = strlen(holders.text);
	if (holders.n > MAX_NAMED)
		snprintf(holders.text + len, sizeof holders.text - len, " and %u more", holders.n - MAX_NAMED);
	job_fail(STATUS_FAILED_PRECONDITION, "%.128s is in use by %s", target,
		 holders.n ? holders.text : "something that is no process: a loop device, a swap file");
}

static _Noreturn void fail_unmounted(const char *target, int error)
{
	if (error == EBUSY)
		fail_busy(target);
	if (error == EINVAL || error == ENOENT)
		job_fail(STATUS_NOT_FOUND, "nothing is mounted on %.256s", target);
	job_fail(STATUS_UNKNOWN, "%.256s cannot be unmounted: %s", target, strerror(error));
}

void unmounting_work(void *context)
{
	const char *target = context;
	const struct buffer nothing = {0};
	if (umount2(target, 0) < 0)
		fail_unmounted(target, errno);
	job_reply(&nothing);
}

void unmounting_all_work(void *context)
{
	const struct strings *targets = context;
	const struct buffer nothing = {0};
	const char *stays = NULL;
	int error = 0;
	for (size_t i = targets->len; i > 0; i--)
		if (umount2(targets->at[i - 1], 0) < 0 && errno != EINVAL && errno != ENOENT && !stays) {
			stays = targets->at[i - 1];
			error = errno;
		}
	if (stays)
		fail_unmounted(stays, error);
	job_reply(&nothing);
}
