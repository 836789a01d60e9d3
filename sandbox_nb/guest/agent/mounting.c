#include "mounting.h"

#include "disk.h"
#include "job.h"
#include "superblock.h"
#include "uevent.h"
#include "undo.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_AT_MOST (10 * NS_PER_S)

struct failure {
	int error;
	enum status status;
	const char *reason;
};

static const struct failure failures[] = {
	{ENOENT, STATUS_NOT_FOUND, "there is no such thing"},
	{EACCES, STATUS_FAILED_PRECONDITION, "the disk is read-only; mount it with the option ro"},
	{EBUSY, STATUS_FAILED_PRECONDITION, "it is mounted already, or in use"},
	{EINVAL, STATUS_FAILED_PRECONDITION, "it holds no file system of that type, or an option is wrong"},
	{EMEDIUMTYPE, STATUS_FAILED_PRECONDITION,
	 "it holds none of " SUPERBLOCK_TYPES "; make a file system on it, or name its type"},
	{ENODEV, STATUS_FAILED_PRECONDITION, "the kernel has no file system of that type"},
	{ENOTBLK, STATUS_INVALID_ARGUMENT, "that type of file system needs a block device"},
	{ENOTDIR, STATUS_INVALID_ARGUMENT, "a part of the path is no folder"},
};

/* The reason for which what may still come is given up in the end. NULL: `error` does not mean that it may. */
static const char *may_come(const struct mount_spec *spec, int error)
{
	if (spec->options.flags & MS_BIND)
		return NULL;
	if (strncmp(spec->source, "/dev/", 5) == 0 && (error == ENOENT || error == ENXIO))
		return "no such device has come within 10 s";
	if (strcmp(spec->type, "9p") == 0 && (error == ENOENT || error == EPROTONOSUPPORT))
		return "no share of that tag has come within 10 s";
	if (strcmp(spec->type, "virtiofs") == 0 && error == EINVAL)
		return "no share of that tag has come within 10 s, or an option is wrong";
	return NULL;
}

static _Noreturn void give_up(const struct mount_plan *plan, const struct mount_spec *spec, int error)
{
	struct failure failure = {error, STATUS_UNKNOWN, strerror(error)};
	for (size_t i = 0; i < ARRAY_SIZE(failures); i++)
		if (failures[i].error == error)
			failure = failures[i];
	if (may_come(spec, error)) {
		failure.status = STATUS_NOT_FOUND;
		failure.reason = may_come(spec, error);
	}
	undo_all();
	job_fail(failure.status, "mounts[%zu] (%.128s on %.128s): %s", (size_t)(spec - plan->specs), spec->source,
		 spec->target, failure.reason);
}

/* As mkdir -p; a file can be mounted on a file only. */
static bool make_target(const char *target, bool file)
{
	char path[PATH_MAX];
	struct stat status;
	for (size_t i = 1; i <= strlen(target); i++) {
		if (target[i] && target[i] != '/')
			continue;
		memcpy(path, target, i);
		path[i] = 0;
		if (lstat(path, &status) == 0)
			continue;
		undo_path(path);
		if ((file && !target[i] ? mknod(path, S_IFREG | 0644, 0) : mkdir(path, 0755)) < 0) {
			if (errno == ENOENT)
				errno = ENOTDIR; /* beneath a link that leads nowhere */
			return false;
		}
	}
	return true;
}

/* The kernel takes the other flags of a bind mount only once it is there. */
static bool bind_path(const struct mount_spec *spec)
{
	unsigned long binding = MS_BIND | MS_REC, flags = spec->options.flags & ~binding;
	return mount(spec->source, spec->target, NULL, spec->options.flags & binding, NULL) == 0 &&
	       (!flags || mount(NULL, spec->target, NULL, MS_REMOUNT | MS_BIND | flags, NULL) == 0);
}

/* Not through the link, which the agent makes of the very event that has woken us. */
static const char *find_source(const struct mount_spec *spec, char device[PATH_MAX])
{
	if (strncmp(spec->source, DISK_LINKS, strlen(DISK_LINKS)) != 0)
		return spec->source;
	if (disk_find(spec->source + strlen(DISK_LINKS), device))
		return device;
	errno = ENOENT;
	return NULL;
}

static bool mount_source(const struct mount_spec *spec)
{
	char device[PATH_MAX];
	const char *source = find_source(spec, device), *type = spec->type;
	if (source && (!*type || strcmp(type, "auto") == 0))
		type = superblock_type(source);
	return source && type && mount(source, spec->target, type, spec->options.flags, spec->options.data) == 0;
}

static bool is_file(const char *path)
{
	struct stat status;
	return stat(path, &status) == 0 && !S_ISDIR(status.st_mode);
}

static bool mount_one(const struct mount_spec *spec, int events, uint64_t until)
{
	bool binds = spec->options.flags & MS_BIND;
	if (!make_target(spec->target, binds && is_file(spec->source)))
		return false;
	undo_mount(spec->target);
	while (!(binds ? bind_path(spec) : mount_source(spec))) {
		int error = errno;
		bool again = may_come(spec, error) && uevent_wait(events, until);
		errno = error;
		if (!again)
			return false;
	}
	return !spec->options.propagation || mount(NULL, spec->target, NULL, spec->options.propagation, NULL) == 0;
}

void mounting_work(void *context)
{
	const struct mount_plan *plan = context;
	const struct buffer nothing = {0};
	uint64_t until = monotonic_ns() + WAIT_AT_MOST;
	int events = uevent_open();
	if (!undo_begin())
		job_fail(STATUS_RESOURCE_EXHAUSTED, "no process can be started: %s", strerror(errno));
	for (size_t i = 0; i < plan->n; i++)
		if (!mount_one(&plan->specs[i], events, until))
			give_up(plan, &plan->specs[i], errno);
	undo_forget();
	job_reply(&nothing);
}
