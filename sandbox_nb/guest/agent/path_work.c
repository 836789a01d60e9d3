/* What is done to a path without a stream. */
#include "entry.h"
#include "failure.h"
#include "file_work.h"
#include "folder.h"
#include "job.h"
#include "trail.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_MODE 0755

void stat_work(void *context)
{
	const struct file_request *request = context;
	struct buffer response = {0};
	struct stat status;
	char target[PATH_MAX];
	if (fstatat(AT_FDCWD, request->path, &status, request->no_follow ? AT_SYMLINK_NOFOLLOW : 0) < 0)
		fail_with_errno(request->path);
	struct entry entry = entry_of(bytes_of_text(strrchr(request->path, '/') + 1), &status);
	if (S_ISLNK(status.st_mode)) {
		ssize_t len = readlink(request->path, target, sizeof target);
		entry.target = (struct bytes){(const uint8_t *)target, len > 0 ? (size_t)len : 0};
	}
	entry_put(&response, &entry);
	job_reply(&response);
}

static void strip_slashes(char *path)
{
	for (size_t len = strlen(path); len > 1 && path[len - 1] == '/';)
		path[--len] = 0;
}

/* Whether the folder is there now. `made`: and was not before. */
static bool make_folder(const char *path, bool *made)
{
	struct stat status;
	*made = mkdir(path, DEFAULT_MODE) == 0;
	if (*made)
		return true;
	return errno == EEXIST && stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static void make_parents(char *path)
{
	bool made;
	for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		if (!make_folder(path, &made))
			fail_with_errno(path);
		*slash = '/';
	}
}

/* The mode is set once more, for the bits that the umask has taken. */
void mkdir_work(void *context)
{
	struct file_request *request = context;
	char *path = request->path;
	bool made;
	strip_slashes(path);
	if (request->parents)
		make_parents(path);
	if (!make_folder(path, &made))
		fail_with_errno(path);
	if (!made && !request->exist_ok)
		job_fail(STATUS_ALREADY_EXISTS, "%.400s is there already", path);
	if (made && chmod(path, request->mode ? request->mode : DEFAULT_MODE) < 0)
		fail_with_errno(path);
	job_reply(&(struct buffer){0});
}

static void remove_node(int parent, const char *name, bool recursive);

static void remove_inner(int folder, const char *name)
{
	remove_node(folder, trail_enter(bytes_of_text(name)), true);
	trail_leave();
}

static void empty_folder(int parent, const char *name)
{
	int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder < 0)
		fail_with_errno(trail());
	folder_each(folder, remove_inner);
}

/* Links are removed, not followed. EISDIR is Linux's answer to unlinking a folder. */
static void remove_node(int parent, const char *name, bool recursive)
{
	if (unlinkat(parent, name, 0) == 0)
		return;
	if (errno != EISDIR)
		fail_with_errno(trail());
	if (recursive)
		empty_folder(parent, name);
	if (unlinkat(parent, name, AT_REMOVEDIR) < 0)
		fail_with_errno(trail());
}

void remove_work(void *context)
{
	struct file_request *request = context;
	const char *name;
	strip_slashes(request->path);
	int parent = folder_of(request->path, &name);
	if (parent < 0)
		fail_with_errno(request->path);
	trail_begin(request->path);
	remove_node(parent, name, request->recursive);
	job_reply(&(struct buffer){0});
}
