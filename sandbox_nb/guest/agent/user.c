#include "user.h"

#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_ID (UINT32_MAX - 1) /* -1 means "unchanged" to the kernel */

static bool is_number(const char *text, uint32_t *id)
{
	uint64_t number;
	if (!text_number(text, MAX_ID, &number))
		return false;
	*id = (uint32_t)number;
	return true;
}

/* name:password:uid:gid:comment:home:shell */
static bool read_passwd_line(char *line, const char *wanted, struct user *user)
{
	char *fields[7];
	uint32_t id = 0;
	if (text_split(line, ':', fields, 7) != 7)
		return false;
	bool by_number = is_number(wanted, &id);
	if (!is_number(fields[2], &user->uid) || !is_number(fields[3], &user->gid))
		return false;
	if (by_number ? user->uid != id : strcmp(fields[0], wanted) != 0)
		return false;
	snprintf(user->name, sizeof user->name, "%s", fields[0]);
	snprintf(user->home, sizeof user->home, "%s", fields[5]);
	snprintf(user->shell, sizeof user->shell, "%s", fields[6]);
	return true;
}

static bool find_user(const char *wanted, struct user *user)
{
	char *text = text_read("/etc/passwd"), *cursor = text;
	bool found = false;
	for (char *line; text && !found && (line = text_next_line(&cursor));)
		found = read_passwd_line(line, wanted, user);
	free(text);
	if (found)
		return true;
	*user = (struct user){.home = "/", .shell = "/bin/sh"};
	if (strcmp(wanted, "root") == 0 || strcmp(wanted, "0") == 0) {
		strcpy(user->name, "root");
		return true;
	}
	return is_number(wanted, &user->uid);
}

static bool lists_member(char *members, const char *name)
{
	for (char *member = strtok(members, ","); member; member = strtok(NULL, ","))
		if (strcmp(member, name) == 0)
			return true;
	return false;
}

/* Calls `each` with the fields of /etc/group (name, password, gid, members), line by line, until it returns true. */
static bool each_group(bool (*each)(char **fields, gid_t, void *), void *context)
{
	char *text = text_read("/etc/group"), *cursor = text;
	bool done = false;
	for (char *line; text && !done && (line = text_next_line(&cursor));) {
		char *fields[4];
		uint32_t gid;
		if (text_split(line, ':', fields, 4) == 4 && is_number(fields[2], &gid))
			done = each(fields, gid, context);
	}
	free(text);
	return done;
}

static bool add_membership(char **fields, gid_t gid, void *context)
{
	struct user *user = context;
	if (gid != user->gid && lists_member(fields[3], user->name))
		user->groups[user->n_groups++] = gid;
	return user->n_groups == MAX_GROUPS;
}

struct group_search {
	const char *name;
	gid_t gid;
};

static bool is_wanted(char **fields, gid_t gid, void *context)
{
	struct group_search *search = context;
	search->gid = gid;
	return strcmp(fields[0], search->name) == 0;
}

static bool find_group(const char *wanted, gid_t *gid)
{
	struct group_search search = {.name = wanted};
	if (is_number(wanted, gid))
		return true;
	if (!each_group(is_wanted, &search))
		return false;
	*gid = search.gid;
	return true;
}

bool user_find(char *spec, struct user *user, const char **missing)
{
	char own[16];
	char *colon = strchr(spec, ':');
	const char *group = colon ? colon + 1 : NULL;
	if (colon)
		*colon = 0;
	*user = (struct user){0};
	*missing = spec;
	snprintf(own, sizeof own, "%u", geteuid());
	if (!find_user(*spec ? spec : own, user))
		return false;
	if (group) {
		*missing = group;
		return find_group(group, &user->gid);
	}
	if (user->uid != 0 && user->name[0])
		each_group(add_membership, user);
	return true;
}
