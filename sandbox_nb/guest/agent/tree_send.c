/* Trees, and lists of what is in a folder, as records to the host: files.proto, "A tree as a stream". */
#include "entry.h"
#include "failure.h"
#include "file_work.h"
#include "folder.h"
#include "job.h"
#include "records.h"
#include "trail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUCKETS 4096

/* The first path of a file that has further names. */
struct known {
	struct known *next;
	dev_t device;
	ino_t inode;
	char path[];
};

static struct known *known[BUCKETS];

static void send_node(int folder, const char *name, struct bytes shown);

/* The path under which the file was sent before, or NULL; it is remembered from here on. */
static const char *sent_before(const struct stat *status)
{
	struct known **bucket = &known[(status->st_ino ^ status->st_dev) % BUCKETS];
	const char *path = trail_below();
	size_t size = strlen(path) + 1;
	for (struct known *one = *bucket; one; one = one->next)
		if (one->device == status->st_dev && one->inode == status->st_ino)
			return one->path;
	struct known *added = size <= PATH_MAX ? malloc(sizeof *added + size) : NULL;
	if (added) {
		*added = (struct known){*bucket, status->st_dev, status->st_ino};
		memcpy(added->path, path, size);
		*bucket = added;
	}
	return NULL;
}

static void put_entry(const struct entry *entry)
{
	struct buffer message = {0};
	entry_put(&message, entry);
	record_put(message.at, message.len);
	buffer_free(&message);
}

static void send_inner(int folder, const char *name)
{
	struct bytes shown = bytes_of_text(name);
	send_node(folder, trail_enter(shown), shown);
	trail_leave();
}

static void send_folder(int folder, const struct entry *entry)
{
	put_entry(entry);
	folder_each(folder, send_inner);
	record_put_end();
}

/* However long it has become meanwhile, and whatever size it claims: files of /proc have none. */
static void send_file(int fd, const struct entry *entry)
{
	ssize_t n;
	put_entry(entry);
	do {
		size_t room;
		uint8_t *at = record_room(&room);
		n = read(fd, at, room);
		if (n < 0)
			fail_with_errno(trail());
		record_done((size_t)n);
	} while (n > 0);
	close(fd);
}

/* -1 when it is gone meanwhile. */
static int open_node(int folder, const char *name, int flags)
{
	int fd = openat(folder, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | flags);
	if (fd < 0 && errno != ENOENT)
		fail_with_errno(trail());
	return fd;
}

static void send_regular(int folder, const char *name, struct entry *entry, const struct stat *status)
{
	const char *first = status->st_nlink > 1 ? sent_before(status) : NULL;
	int fd;
	if (first) {
		entry->link = bytes_of_text(first);
		put_entry(entry);
	} else if ((fd = open_node(folder, name, 0)) >= 0) {
		send_file(fd, entry);
	}
}

static bool read_target(int folder, const char *name, char target[PATH_MAX], struct entry *entry)
{
	ssize_t len = readlinkat(folder, name, target, PATH_MAX);
	entry->target = (struct bytes){(const uint8_t *)target, len > 0 ? (size_t)len : 0};
	return len >= 0;
}

static void send_symlink(int folder, const char *name, struct entry *entry)
{
	char target[PATH_MAX];
	if (read_target(folder, name, target, entry))
		put_entry(entry);
	else if (errno != ENOENT)
		fail_with_errno(trail());
}

/* What is neither file, folder nor link is told, and has no content. */
static void send_node(int folder, const char *name, struct bytes shown)
{
	struct stat status;
	if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT)
			fail_with_errno(trail());
		return;
	}
	struct entry entry = entry_of(shown, &status);
	int fd;
	if (S_ISREG(status.st_mode))
		send_regular(folder, name, &entry, &status);
	else if (S_ISLNK(status.st_mode))
		send_symlink(folder, name, &entry);
	else if (!S_ISDIR(status.st_mode))
		put_entry(&entry);
	else if ((fd = open_node(folder, name, O_DIRECTORY)) >= 0)
		send_folder(fd, &entry);
}

/* A tree is called by the last name of its path; one whose path has none is called nothing. */
static struct bytes name_of(const char *path)
{
	const char *name = strrchr(path, '/') + 1;
	return bytes_of_text(strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ? "" : name);
}

/* At the top a symbolic link is followed. */
void pack_work(void *context)
{
	const struct file_request *request = context;
	struct stat status;
	trail_begin(request->path);
	int fd = open(request->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status) < 0)
		fail_with_errno(trail());
	struct entry entry = entry_of(name_of(trail()), &status);
	stream_prepare();
	if (S_ISDIR(status.st_mode))
		send_folder(fd, &entry);
	else if (S_ISREG(status.st_mode))
		send_file(fd, &entry);
	else
		job_fail(STATUS_INVALID_ARGUMENT, "%.400s is neither a file nor a folder", trail());
	records_finish();
	job_reply(&(struct buffer){0});
}

static void list_one(int folder, const char *name)
{
	struct stat status;
	char target[PATH_MAX];
	if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	struct entry entry = entry_of(bytes_of_text(name), &status);
	if (S_ISLNK(status.st_mode))
		read_target(folder, name, target, &entry);
	put_entry(&entry);
}

void list_work(void *context)
{
	const struct file_request *request = context;
	trail_begin(request->path);
	int folder = open(request->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		fail_with_errno(trail());
	stream_prepare();
	folder_each(folder, list_one);
	record_put_end();
	records_finish();
	job_reply(&(struct buffer){0});
}
