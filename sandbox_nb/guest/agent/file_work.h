/* What workers do for the Files service. Each answers through job_reply() or job_fail(). */
#ifndef FILE_WORK_H
#define FILE_WORK_H

#include "bytes.h"

#include <limits.h>
#include <sys/types.h>

/* What any request of the service comes to. */
struct file_request {
	char path[PATH_MAX]; /* absolute */
	mode_t mode;         /* permission bits of what is made; 0: the default of each verb */
	uint64_t size;
	bool no_follow;
	bool parents;
	bool exist_ok;
	bool recursive;
};

/* Between the worker's stream and ... */
void read_work(void *);   /* ... a file */
void write_work(void *);  /* ... a file */
void list_work(void *);   /* ... what is known of all that is in a folder */
void pack_work(void *);   /* ... a tree */
void unpack_work(void *); /* ... a tree */

/* Without a stream. */
void stat_work(void *);
void mkdir_work(void *);
void remove_work(void *);

/*
 * Opens the folder that holds what `path` names, and finds the last name in it. -1 with errno, which is EISDIR when that is
 * no name: empty, "." or "..".
 */
int open_parent(const char *path, const char **name);

#endif
