#include "disks.h"

#include "disk.h"
#include "job.h"
#include "setup.h"
#include "text.h"
#include "uevent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT_AT_MOST (10 * NS_PER_S)

/* Fields of a line of /proc/self/mountinfo, proc(5). */
enum { NUMBER = 2, TARGET = 4, N_FIELDS };

/* Whether a device, given as "major:minor", is the disk or a partition of it. */
static bool belongs_to(const char *number, const char *disk)
{
	char link[64], path[PATH_MAX], folder[64];
	snprintf(link, sizeof link, "/sys/dev/block/%.32s", number);
	snprintf(folder, sizeof folder, "/block/%.32s/", disk);
	ssize_t len = readlink(link, path, sizeof path - 2);
	if (len < 0)
		return false;
	memcpy(path + len, "/", 2);
	return strstr(path, folder) != NULL;
}

/* What would break the line is written as a backslash and three octal digits. */
static void unescape(char *text)
{
	char *to = text;
	for (const char *from = text; *from; to++) {
		unsigned code;
		if (*from == '\\' && sscanf(from + 1, "%3o", &code) == 1) {
			*to = (char)code;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = 0;
}

/* The kernel lists the latest last. */
static void put_mounts(struct buffer *response, char *text, const char *disk)
{
	char *line = text_next_line(&text), *fields[N_FIELDS + 1];
	if (!line)
		return;
	put_mounts(response, text, disk);
	if (text_split(line, ' ', fields, N_FIELDS + 1) <= TARGET || !belongs_to(fields[NUMBER], disk))
		return;
	unescape(fields[TARGET]);
	pb_put_text(response, 2, fields[TARGET]);
}

static void find_work(void *context)
{
	const char *serial = context;
	char id[DISK_ID_MAX], device[PATH_MAX];
	struct buffer response = {0};
	uint64_t until = monotonic_ns() + WAIT_AT_MOST;
	int events = uevent_open();
	disk_id(serial, id);
	while (!disk_find(id, device))
		if (!uevent_wait(events, until))
			job_fail(STATUS_NOT_FOUND, "no disk with the serial number '%s' has come within 10 s", serial);
	pb_put_string(&response, 1, device);
	put_mounts(&response, text_read("/proc/self/mountinfo"), strrchr(device, '/') + 1);
	job_reply(&response);
}

void disks_find(struct call *call, struct bytes request)
{
	struct bytes serial = {0};
	struct pb_reader in = pb_read(request);
	for (struct pb_field field; pb_next(&in, &field);)
		if (field.tag == PB_BYTES(1))
			serial = field.bytes;
	if (!setup_done(call) || !call_decoded(call, &in))
		return;
	char *text = serial.len > 0 && serial.len <= 20 ? bytes_string(serial) : NULL;
	if (text)
		job_start(call, -1, find_work, text);
	else
		call_fail(call, STATUS_INVALID_ARGUMENT, "a serial number has 1 to 20 bytes, none of them NUL");
	free(text);
}
