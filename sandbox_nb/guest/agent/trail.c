#include "trail.h"

#include "job.h"

#include <limits.h>
#include <string.h>

/* A folder is open for each level, on either side, and a process may have no more than 1024 files open. */
#define MAX_DEPTH 256

static char path[PATH_MAX + MAX_DEPTH * (NAME_MAX + 1)];
static size_t len, top_len;
static unsigned depth;

void trail_begin(const char *top)
{
	len = strlen(top);
	while (len > 0 && top[len - 1] == '/')
		len--;
	memcpy(path, top, len);
	path[len] = 0;
	top_len = len;
	depth = 0;
}

const char *trail(void)
{
	return len > 0 ? path : "/";
}

const char *trail_below(void)
{
	return len > top_len ? path + top_len + 1 : "";
}

const char *trail_enter(struct bytes name)
{
	if (++depth > MAX_DEPTH)
		job_fail(STATUS_RESOURCE_EXHAUSTED, "%.400s: more than %d folders lie in each other", trail(), MAX_DEPTH);
	char *at = path + len;
	*at = '/';
	memcpy(at + 1, name.at, name.len);
	len += 1 + name.len;
	path[len] = 0;
	return at + 1;
}

void trail_leave(void)
{
	depth--;
	do
		len--;
	while (path[len] != '/');
	path[len] = 0;
}
