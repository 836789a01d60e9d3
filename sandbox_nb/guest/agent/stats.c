#include "stats.h"

#include "job.h"
#include "pslist.h"
#include "setup.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECTOR 512 /* of /proc/diskstats, whatever the disk has */
#define ROOM (60 * 1024) /* a job's result has 64 KiB, and a process takes less than 1 */

/* Fields of the line "cpu" of /proc/stat, proc(5). The last two, time given to guests, are in the first two already. */
enum { USER, NICE, SYSTEM, IDLE, IOWAIT, N_TIMES = 8 };

static void put_cpu(struct buffer *response)
{
	char line[256], *at = line + strlen("cpu");
	uint64_t times[N_TIMES] = {0}, total = 0;
	text_read_line("/proc/stat", line, sizeof line);
	if (strncmp(line, "cpu ", 4) != 0)
		return;
	for (size_t i = 0; i < N_TIMES; i++)
		total += times[i] = strtoull(at, &at, 10);
	pb_put_varint(response, 2, total - times[IDLE] - times[IOWAIT]);
	pb_put_varint(response, 3, total);
}

static void put_memory(struct buffer *response)
{
	char *text = text_read("/proc/meminfo"), *cursor = text, *line;
	unsigned long long kib;
	while (text && (line = text_next_line(&cursor)))
		if (sscanf(line, "MemTotal: %llu kB", &kib) == 1)
			pb_put_varint(response, 4, kib * 1024);
		else if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			pb_put_varint(response, 5, kib * 1024);
	free(text);
}

static void put_traffic(struct buffer *response, uint32_t number, const char *name, uint64_t in, uint64_t out)
{
	struct buffer traffic = {0};
	pb_put_text(&traffic, 1, name);
	pb_put_varint(&traffic, 2, in);
	pb_put_varint(&traffic, 3, out);
	pb_put_message(response, number, &traffic);
	buffer_free(&traffic);
}

/* Partitions are listed beside the disk they are on, which counts what goes through them. */
static bool is_whole_disk(const char *name)
{
	char path[64];
	snprintf(path, sizeof path, "/sys/block/%.40s", name);
	return strncmp(name, "loop", 4) != 0 && strncmp(name, "ram", 3) != 0 && access(path, F_OK) == 0;
}

static void put_disks(struct buffer *response)
{
	char *text = text_read("/proc/diskstats"), *cursor = text, *line, name[41];
	unsigned long long read_sectors, written_sectors;
	while (text && (line = text_next_line(&cursor)))
		if (sscanf(line, "%*u %*u %40s %*u %*u %llu %*u %*u %*u %llu", name, &read_sectors, &written_sectors) == 3 &&
		    is_whole_disk(name))
			put_traffic(response, 6, name, read_sectors * SECTOR, written_sectors * SECTOR);
	free(text);
}

static void put_networks(struct buffer *response)
{
	char *text = text_read("/proc/net/dev"), *cursor = text, *line, name[41];
	unsigned long long in, out;
	while (text && (line = text_next_line(&cursor)))
		if (sscanf(line, " %40[^:]: %llu %*u %*u %*u %*u %*u %*u %*u %llu", name, &in, &out) == 3 &&
		    strcmp(name, "lo") != 0)
			put_traffic(response, 7, name, in, out);
	free(text);
}

static void get_work(void *context)
{
	struct buffer response = {0};
	pb_put_varint(&response, 1, monotonic_ns());
	put_cpu(&response);
	put_memory(&response);
	put_disks(&response);
	put_networks(&response);
	if (context)
		pslist_put(&response, 8, getppid(), ROOM);
	job_reply(&response);
}

void stats_get(struct call *call, struct bytes request)
{
	static char wanted;
	bool processes = false;
	struct pb_reader in = pb_read(request);
	for (struct pb_field field; pb_next(&in, &field);)
		if (field.tag == PB_VARINT(1))
			processes = field.varint != 0;
	if (setup_done(call) && call_decoded(call, &in))
		job_start(call, -1, get_work, processes ? &wanted : NULL);
}
