/* Whole files as the bytes of a stream. */
#include "failure.h"
#include "file_work.h"
#include "folder.h"
#include "job.h"
#include "making.h"
#include "records.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_SIZE (256 * 1024)
#define DEFAULT_MODE 0644

static uint8_t piece[PIECE_SIZE];

/* What is no regular file has no end to wait for, or no bytes. */
static int open_source(const char *path, struct stat *status)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, status) < 0)
		fail_with_errno(path);
	if (S_ISDIR(status->st_mode))
		job_fail(STATUS_INVALID_ARGUMENT, "%.400s is a folder", path);
	if (!S_ISREG(status->st_mode))
		job_fail(STATUS_INVALID_ARGUMENT, "%.400s is not a regular file", path);
	return fd;
}

static bool write_all(int fd, const uint8_t *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, data + done, len - done);
		if (n < 0 && errno != EINTR)
			return false;
		done += n > 0 ? (size_t)n : 0;
	}
	return true;
}

void read_work(void *context)
{
	const struct file_request *request = context;
	struct stat status;
	struct buffer response = {0};
	uint64_t size = 0;
	ssize_t n;
	int fd = open_source(request->path, &status);
	stream_prepare();
	while ((n = read(fd, piece, sizeof piece)) > 0) {
		if (!write_all(STDIN_FILENO, piece, (size_t)n))
			job_fail(STATUS_CANCELLED, "the stream of %.400s was closed before its end", request->path);
		size += (uint64_t)n;
	}
	if (n < 0)
		fail_with_errno(request->path);
	shutdown(STDIN_FILENO, SHUT_WR);
	pb_put_varint(&response, 1, size);
	pb_put_varint(&response, 2, status.st_mode);
	job_reply(&response);
}

static _Noreturn void give_up(const char *path)
{
	making_drop();
	fail_with_errno(path);
}

static uint64_t receive(int fd, const struct file_request *request)
{
	uint64_t size = 0;
	ssize_t n;
	while ((n = read(STDIN_FILENO, piece, sizeof piece)) > 0) {
		if (!write_all(fd, piece, (size_t)n))
			give_up(request->path);
		size += (uint64_t)n;
	}
	if (n == 0 && size >= request->size)
		return size;
	making_drop();
	job_fail(STATUS_CANCELLED, "the stream for %.400s was closed before its end", request->path);
}

/* A file that is there keeps mode and owner. */
static bool set_attributes(int fd, const struct file_request *request, const struct stat *old)
{
	if (!old)
		return fchmod(fd, request->mode ? request->mode : DEFAULT_MODE) == 0;
	return fchown(fd, old->st_uid, old->st_gid) == 0 && fchmod(fd, old->st_mode & 07777) == 0;
}

void write_work(void *context)
{
	const struct file_request *request = context;
	char path[PATH_MAX];
	const char *name;
	struct stat old;
	struct buffer response = {0};
	/* Through a symbolic link, the file it points to is replaced. */
	bool exists = realpath(request->path, path) != NULL;
	if (!exists)
		strcpy(path, request->path);
	if (exists && (stat(path, &old) < 0 || !S_ISREG(old.st_mode)))
		job_fail(STATUS_INVALID_ARGUMENT, "%.400s is there and is not a regular file", request->path);
	making_init();
	int folder = folder_of(path, &name);
	int fd = folder < 0 ? -1 : making_file(folder);
	if (fd < 0)
		fail_with_errno(request->path);
	stream_prepare();
	uint64_t size = receive(fd, request);
	if (!set_attributes(fd, request, exists ? &old : NULL) || !making_place(name))
		give_up(request->path);
	pb_put_varint(&response, 1, size);
	job_reply(&response);
}
