#include "pslist.h"

#include "pb.h"
#include "text.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_COMMAND 256
#define PF_KTHREAD 0x00200000

/* Fields of /proc/PID/stat behind the name, proc(5). */
enum { STATE = 0, PARENT = 1, FLAGS = 6, USER_TIME = 11, SYSTEM_TIME = 12, RESIDENT = 21, N_FIELDS };

/* What it was called with, in one line; false when it has no arguments or is gone. */
static bool read_command(const char *pid, char command[MAX_COMMAND])
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%.20s/cmdline", pid);
	FILE *file = fopen(path, "re");
	size_t len = file ? fread(command, 1, MAX_COMMAND - 1, file) : 0;
	if (file)
		fclose(file);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)command[i] < ' ')
			command[i] = ' ';
	while (len > 0 && command[len - 1] == ' ')
		len--;
	command[len] = 0;
	return len > 0;
}

/* The name is in parentheses and may hold some itself: the last one ends it. */
static void put_process(struct buffer *response, uint32_t number, char *stat, const char *pid)
{
	char *name = strchr(stat, '('), *end = strrchr(stat, ')'), *fields[N_FIELDS + 1], command[MAX_COMMAND];
	if (!name || !end || end[1] != ' ')
		return;
	*end = 0;
	if (text_split(end + 2, ' ', fields, N_FIELDS + 1) <= RESIDENT || strtoul(fields[FLAGS], NULL, 10) & PF_KTHREAD)
		return;
	if (!read_command(pid, command))
		snprintf(command, sizeof command, "%s", name + 1);
	struct buffer process = {0};
	pb_put_varint(&process, 1, strtoull(pid, NULL, 10));
	pb_put_varint(&process, 2, strtoull(fields[PARENT], NULL, 10));
	pb_put_text(&process, 3, fields[STATE]);
	pb_put_text(&process, 4, command);
	pb_put_varint(&process, 5, strtoull(fields[USER_TIME], NULL, 10) + strtoull(fields[SYSTEM_TIME], NULL, 10));
	pb_put_varint(&process, 6, strtoull(fields[RESIDENT], NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE));
	pb_put_message(response, number, &process);
	buffer_free(&process);
}

void pslist_put(struct buffer *response, uint32_t number, pid_t own, size_t room)
{
	DIR *processes = opendir("/proc");
	for (struct dirent *entry; processes && response->len < room && (entry = readdir(processes));) {
		char path[64];
		uint64_t pid;
		if (!text_number(entry->d_name, INT32_MAX, &pid) || (pid_t)pid == own || (pid_t)pid == getpid())
			continue;
		snprintf(path, sizeof path, "/proc/%.20s/stat", entry->d_name);
		char *stat = text_read(path);
		if (stat)
			put_process(response, number, stat, entry->d_name);
		free(stat);
	}
	if (processes)
		closedir(processes);
}
