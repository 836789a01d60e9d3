/* The work of the Mount service, done by a child of the agent's (see job.h): a server of files may keep it waiting. */
#ifndef MOUNTING_H
#define MOUNTING_H

#include "mount_options.h"

#define MAX_MOUNTS 64

struct mount_spec {
	char *type; /* "" or "auto": look */
	char *source;
	char *target;
	struct mount_options options;
};

struct mount_plan {
	struct mount_spec specs[MAX_MOUNTS];
	size_t n;
};

/* Carries out a struct mount_plan: all of it or nothing. */
void mounting_work(void *plan);

#endif
