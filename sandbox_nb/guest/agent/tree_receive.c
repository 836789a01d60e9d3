/* A tree from the host as records: files.proto, "A tree as a stream". No step of it follows a symbolic link. */
#include "entry.h"
#include "failure.h"
#include "file_work.h"
#include "folder.h"
#include "job.h"
#include "making.h"
#include "records.h"
#include "trail.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define PERMISSIONS 07777
#define HERE "." /* instead of a name */

/* Where paths of links count from. -1 as long as it is not there: a tree that is one file. */
static int top = -1;

static void receive_node(int parent, const struct entry *entry, const char *name);

static struct entry take_entry(struct bytes record)
{
	struct entry entry;
	if (!entry_parse(record, &entry))
		job_fail(STATUS_INVALID_ARGUMENT, "the stream holds what is no entry of a tree, in %.400s", trail());
	return entry;
}

static _Noreturn void give_up(void)
{
	making_drop();
	fail_with_errno(trail());
}

static void set_times(int fd, struct timespec mtime)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, mtime};
	if (futimens(fd, times) < 0)
		give_up();
}

/*
 * Mode and time come last: a folder that may not be written to must be filled, and filling it changes its time. The one that
 * was there, and gets the content alone, keeps its own.
 */
static void receive_folder(int parent, const struct entry *entry, const char *name)
{
	mode_t mode = entry->mode & PERMISSIONS;
	struct timespec mtime = entry->mtime;
	if (mkdirat(parent, name, 0700) < 0 && errno != EEXIST)
		give_up();
	int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder < 0)
		give_up();
	if (top < 0)
		top = folder;
	for (struct bytes record; (record = record_take()).len > 0; trail_leave()) {
		struct entry inner = take_entry(record);
		if (inner.name.len == 0)
			job_fail(STATUS_INVALID_ARGUMENT, "the stream holds an entry without a name, in %.400s", trail());
		receive_node(folder, &inner, trail_enter(inner.name));
	}
	if (strcmp(name, HERE) != 0) {
		if (fchmod(folder, mode) < 0)
			give_up();
		set_times(folder, mtime);
	}
	close(folder);
}

static void write_all(int fd, struct bytes data)
{
	while (data.len > 0) {
		ssize_t n = write(fd, data.at, data.len);
		if (n < 0 && errno != EINTR)
			give_up();
		data.at += n > 0 ? n : 0;
		data.len -= n > 0 ? (size_t)n : 0;
	}
}

static void place(const char *name)
{
	if (!making_place(name))
		give_up();
}

static void receive_file(int parent, const struct entry *entry, const char *name)
{
	mode_t mode = entry->mode & PERMISSIONS;
	struct timespec mtime = entry->mtime;
	int fd = making_file(parent);
	if (fd < 0)
		give_up();
	for (struct bytes piece; (piece = record_take()).len > 0;)
		write_all(fd, piece);
	if (fchmod(fd, mode) < 0)
		give_up();
	set_times(fd, mtime);
	close(fd);
	place(name);
}

/* Opens the folder that holds the path, one name after the other from the top on, and finds its last name. */
static int open_beneath(char *path, const char **name)
{
	int folder = fcntl(top, F_DUPFD_CLOEXEC, 0);
	for (char *slash; folder >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
		*slash = 0;
		/* Nothing is called "": where the host sends a way up, there is none. */
		const char *step = strcmp(path, "..") == 0 ? "" : path;
		int next = openat(folder, step, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(folder);
		folder = next;
	}
	*name = path;
	return folder;
}

static void receive_link(int parent, const struct entry *entry, const char *name)
{
	char path[PATH_MAX];
	const char *first;
	if (top < 0 || entry->link.len >= sizeof path)
		job_fail(STATUS_INVALID_ARGUMENT, "%.400s is a further name of what is not in the tree", trail());
	memcpy(path, entry->link.at, entry->link.len);
	path[entry->link.len] = 0;
	int folder = open_beneath(path, &first);
	if (folder < 0 || !making_link(parent, folder, first))
		give_up();
	close(folder);
	place(name);
}

static void receive_symlink(int parent, const struct entry *entry, const char *name)
{
	char target[PATH_MAX];
	const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, entry->mtime};
	memcpy(target, entry->target.at, entry->target.len);
	target[entry->target.len] = 0;
	if (!making_symlink(parent, target))
		give_up();
	place(name);
	if (utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		give_up();
}

static void receive_node(int parent, const struct entry *entry, const char *name)
{
	if (S_ISDIR(entry->mode))
		receive_folder(parent, entry, name);
	else if (S_ISLNK(entry->mode))
		receive_symlink(parent, entry, name);
	else if (S_ISREG(entry->mode) && entry->link.len > 0)
		receive_link(parent, entry, name);
	else if (S_ISREG(entry->mode))
		receive_file(parent, entry, name);
}

/* As cp does: into a folder that is there, under the name the tree came with; else it is what the path names. */
static int open_place(const char *path, const struct entry *entry, const char **name)
{
	int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder >= 0) {
		trail_begin(path);
		*name = entry->name.len > 0 ? trail_enter(entry->name) : HERE;
		return folder;
	}
	folder = folder_of(path, name);
	if (folder < 0) {
		errno = errno == EISDIR ? ENOENT : errno; /* it is to be a folder, and none is there */
		fail_with_errno(path);
	}
	trail_begin(path);
	return folder;
}

void unpack_work(void *context)
{
	const struct file_request *request = context;
	struct buffer response = {0};
	const char *name;
	making_init();
	stream_prepare();
	trail_begin(request->path);
	struct entry entry = take_entry(record_take());
	int folder = open_place(request->path, &entry, &name);
	receive_node(folder, &entry, name);
	pb_put_string(&response, 1, trail());
	job_reply(&response);
}
