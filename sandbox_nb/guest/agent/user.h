/* Users and groups as /etc/passwd and /etc/group of the current root have them. */
#ifndef USER_H
#define USER_H

#include <stdbool.h>
#include <sys/types.h>

#define MAX_GROUPS 64

struct user {
	uid_t uid;
	gid_t gid;
	gid_t groups[MAX_GROUPS]; /* the supplementary ones */
	size_t n_groups;
	char name[64]; /* "" for a uid without an entry */
	char home[256];
	char shell[256];
};

/*
 * Finds `spec`: name, uid, name:group or uid:gid; "" is the agent's own, root in a machine. A uid needs no entry; its group is then 0, its home /.
 * A group that is named takes the place of the user's own ones. False when the user or the group is not there; `missing`
 * then points to its name within `spec`, which may be altered.
 */
bool user_find(char *spec, struct user *, const char **missing);

#endif
