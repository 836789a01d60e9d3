/* The Entry message of files.proto: what is known of a file, folder or link without opening it. */
#ifndef ENTRY_H
#define ENTRY_H

#include "bytes.h"

#include <sys/stat.h>

struct entry {
	struct bytes name;
	mode_t mode;
	uint64_t size;
	struct timespec mtime;
	uid_t uid;
	gid_t gid;
	struct bytes target; /* of a symbolic link */
	struct bytes link;   /* of a further name of a file: the path of the first, from the top of the tree */
};

struct entry entry_of(struct bytes name, const struct stat *);

void entry_put(struct buffer *, const struct entry *);

/* False when it is no such message, or one that no file system could hold. */
bool entry_parse(struct bytes message, struct entry *);

#endif
