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

/* The worker's stream carries the bytes of a file, what is known of all that is in a folder, or a tree. */
void read_work(void *);
void write_work(void *);
void list_work(void *);
void pack_work(void *);
void unpack_work(void *);

/* Without a stream. */
void stat_work(void *);
void mkdir_work(void *);
void remove_work(void *);

#endif
