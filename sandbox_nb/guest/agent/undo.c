#include "undo.h"

#include "bytes.h"
#include "text.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * The list is text, each entry closed by a NUL: "mount ID TARGET", where ID is the mount that the target was on before;
 * "path 0 PATH"; and "forget" as the last one.
 */
static int list = -1;
static pid_t keeper;

/* A number for the mount that `path` is on: /proc tells it of every open file. -1 when there is nothing. */
static int mount_at(const char *path)
{
	char name[64];
	int mount_id = -1, fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return -1;
	snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fd);
	char *text = text_read(name), *found = text ? strstr(text, "mnt_id:") : NULL;
	if (found)
		mount_id = atoi(found + strlen("mnt_id:"));
	free(text);
	close(fd);
	return mount_id;
}

/* Lazily: what is being undone may hang. */
static void take_back(char *entry)
{
	char *fields[3];
	if (text_split(entry, ' ', fields, 3) < 3)
		return;
	if (strcmp(fields[0], "path") == 0)
		remove(fields[2]);
	else if (mount_at(fields[2]) != atoi(fields[1]))
		umount2(fields[2], MNT_DETACH | UMOUNT_NOFOLLOW);
}

/* An entry that was cut short by the worker's end is of something not done. */
static void keep(int fd)
{
	struct buffer entries = {0};
	uint8_t piece[4096];
	for (ssize_t n; (n = read(fd, piece, sizeof piece)) > 0;)
		buffer_append(&entries, piece, (size_t)n);
	size_t end = entries.len;
	while (end > 0 && entries.at[end - 1])
		end--;
	while (end > 0) {
		size_t start = end - 1;
		while (start > 0 && entries.at[start - 1])
			start--;
		char *entry = (char *)entries.at + start;
		if (strcmp(entry, "forget") == 0)
			break;
		take_back(entry);
		end = start;
	}
}

bool undo_begin(void)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return false;
	keeper = fork();
	if (keeper == 0) {
		/* Of the worker's fds it must hold none: their other ends wait for the worker's end. */
		dup2(fds[0], STDIN_FILENO);
		dup2(STDERR_FILENO, STDOUT_FILENO);
		syscall(SYS_close_range, 3, ~0U, 0);
		keep(STDIN_FILENO);
		_exit(0);
	}
	close(fds[0]);
	list = fds[1];
	return keeper > 0;
}

/* Without its keeper the worker is ended by SIGPIPE: nobody would take back what comes next. */
void undo_mount(const char *target)
{
	dprintf(list, "mount %d %s%c", mount_at(target), target, 0);
}

void undo_path(const char *path)
{
	dprintf(list, "path 0 %s%c", path, 0);
}

void undo_all(void)
{
	close(list);
	waitpid(keeper, NULL, 0);
}

void undo_forget(void)
{
	dprintf(list, "forget%c", 0);
	undo_all();
}
