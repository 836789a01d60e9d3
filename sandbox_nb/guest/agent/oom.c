#include "oom.h"

#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS "Killed process "

static struct watch log_watch;
static void (*tell)(pid_t);

/* One record for each read; EPIPE says that some were lost, and the next one is the oldest there is. */
void oom_catch_up(void)
{
	char record[2048];
	ssize_t n;
	if (!log_watch.ready)
		return;
	while ((n = read(log_watch.fd, record, sizeof record - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		if (n < 0)
			continue;
		record[n] = 0;
		const char *found = strstr(record, WORDS);
		if (found)
			tell((pid_t)strtol(found + strlen(WORDS), NULL, 10));
	}
}

static void log_ready(struct watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
	oom_catch_up();
}

void oom_watch(void (*killed)(pid_t))
{
	static bool tried;
	if (tried)
		return;
	tried = true;
	tell = killed;
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return;
	lseek(fd, 0, SEEK_END);
	if (!watch_start(&log_watch, fd, EPOLLIN, log_ready))
		close(fd);
}
