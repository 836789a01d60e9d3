#include "files.h"

#include "job.h"
#include "setup.h"
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_SIZE (256 * 1024)
#define DEFAULT_MODE 0644

/* What either request comes to. */
struct transfer {
	char path[PATH_MAX];
	mode_t mode;
};

static uint8_t piece[PIECE_SIZE];

/* ---- in the child: the stream is its standard input, and blocking ---- */

static enum status status_of(int error)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
		return STATUS_NOT_FOUND;
	case EACCES:
	case EPERM:
	case EROFS:
		return STATUS_PERMISSION_DENIED;
	case EISDIR:
	case ENAMETOOLONG:
	case ELOOP:
		return STATUS_INVALID_ARGUMENT;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
	case EMFILE:
	case ENFILE:
		return STATUS_RESOURCE_EXHAUSTED;
	default:
		return STATUS_UNKNOWN;
	}
}

static _Noreturn void fail_with_errno(const char *path)
{
	job_fail(status_of(errno), "%.400s: %s", path, strerror(errno));
}

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

/* The worker may wait for the host, and is told by an error that it has left. */
static void prepare_stream(void)
{
	fcntl(STDIN_FILENO, F_SETFL, 0);
	signal(SIGPIPE, SIG_IGN);
}

static void read_work(void *context)
{
	const struct transfer *transfer = context;
	struct stat status;
	struct buffer response = {0};
	uint64_t size = 0;
	ssize_t n;
	int fd = open_source(transfer->path, &status);
	prepare_stream();
	while ((n = read(fd, piece, sizeof piece)) > 0) {
		if (!write_all(STDIN_FILENO, piece, (size_t)n))
			job_fail(STATUS_CANCELLED, "the stream of %.400s was closed before its end", transfer->path);
		size += (uint64_t)n;
	}
	if (n < 0)
		fail_with_errno(transfer->path);
	shutdown(STDIN_FILENO, SHUT_WR);
	pb_put_varint(&response, 1, size);
	pb_put_varint(&response, 2, status.st_mode);
	job_reply(&response);
}

/* A neighbour that nobody else has, to be renamed over the file. Removed by whatever ends the work before that. */
static int open_neighbour(const char *path, char neighbour[PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	int len = snprintf(neighbour, PATH_MAX, "%.*s/.sandbox.%d", (int)(slash - path), path, getpid());
	if (len >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	unlink(neighbour);
	return open(neighbour, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

static _Noreturn void give_up(const char *path, const char *neighbour)
{
	int error = errno;
	unlink(neighbour);
	errno = error;
	fail_with_errno(path);
}

static uint64_t receive(int fd, const char *path, const char *neighbour)
{
	uint64_t size = 0;
	ssize_t n;
	while ((n = read(STDIN_FILENO, piece, sizeof piece)) > 0) {
		if (!write_all(fd, piece, (size_t)n))
			give_up(path, neighbour);
		size += (uint64_t)n;
	}
	if (n < 0)
		give_up(path, neighbour);
	return size;
}

/* A file that is there keeps mode and owner. */
static bool set_attributes(int fd, const struct transfer *transfer, const struct stat *old)
{
	if (!old)
		return fchmod(fd, transfer->mode) == 0;
	return fchown(fd, old->st_uid, old->st_gid) == 0 && fchmod(fd, old->st_mode & 07777) == 0;
}

static void write_work(void *context)
{
	struct transfer *transfer = context;
	char path[PATH_MAX], neighbour[PATH_MAX];
	struct stat old;
	struct buffer response = {0};
	/* Through a symbolic link, the file it points to is replaced. */
	bool exists = realpath(transfer->path, path) != NULL;
	if (!exists)
		strcpy(path, transfer->path);
	if (exists && (stat(path, &old) < 0 || !S_ISREG(old.st_mode)))
		job_fail(STATUS_INVALID_ARGUMENT, "%.400s is there and is not a regular file", path);
	int fd = open_neighbour(path, neighbour);
	if (fd < 0)
		fail_with_errno(path);
	prepare_stream();
	uint64_t size = receive(fd, path, neighbour);
	if (!set_attributes(fd, transfer, exists ? &old : NULL) || rename(neighbour, path) < 0)
		give_up(path, neighbour);
	pb_put_varint(&response, 1, size);
	job_reply(&response);
}

/* ---- in the agent ---- */

static bool take_path(struct transfer *transfer, struct bytes path)
{
	if (path.len < 2 || path.len >= PATH_MAX || path.at[0] != '/' || memchr(path.at, 0, path.len))
		return false;
	memcpy(transfer->path, path.at, path.len);
	transfer->path[path.len] = 0;
	return path.at[path.len - 1] != '/';
}

/* Both requests: {1 path, 2 stream, 3 mode}. */
static void begin_transfer(struct call *call, struct bytes request, void (*work)(void *))
{
	struct transfer transfer = {.mode = DEFAULT_MODE};
	struct bytes path = {0}, name = {0};
	const char *problem;
	struct pb_reader in = pb_read(request);
	for (struct pb_field field; pb_next(&in, &field);)
		switch (field.tag) {
		case PB_BYTES(1):
			path = field.bytes;
			break;
		case PB_BYTES(2):
			name = field.bytes;
			break;
		case PB_VARINT(3):
			transfer.mode = field.varint & 07777;
			break;
		}
	if (!setup_done(call) || !call_decoded(call, &in))
		return;
	if (!take_path(&transfer, path)) {
		call_fail(call, STATUS_INVALID_ARGUMENT, "'%.*s' is not the absolute path of a file",
			  (int)MIN(path.len, 256), (const char *)path.at);
		return;
	}
	struct stream *stream = stream_find(name, &problem);
	if (stream)
		job_start(call, stream_claim(stream), work, &transfer);
	else
		call_fail(call, STATUS_NOT_FOUND, problem, (int)MIN(name.len, 160), (const char *)name.at);
}

void files_read(struct call *call, struct bytes request)
{
	begin_transfer(call, request, read_work);
}

void files_write(struct call *call, struct bytes request)
{
	begin_transfer(call, request, write_work);
}
