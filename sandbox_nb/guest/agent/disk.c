#include "disk.h"

#include "log.h"
#include "text.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_CLASS "/sys/class/block"

/* A serial may hold anything; of what udev does not let into a name, each becomes a '_'. */
void disk_id(const char *serial, char id[DISK_ID_MAX])
{
	snprintf(id, DISK_ID_MAX, "virtio-%s", serial);
	for (; *id; id++)
		if (!isalnum((unsigned char)*id) && !strchr("#+-.:=@_", *id))
			*id = '_';
}

/* False for what has no serial: a loop device, or one that is just going. */
static bool id_of(const char *name, char id[DISK_ID_MAX])
{
	char path[PATH_MAX], serial[32], part[16];
	snprintf(path, sizeof path, BLOCK_CLASS "/%s/partition", name);
	text_read_line(path, part, sizeof part);
	snprintf(path, sizeof path, BLOCK_CLASS "/%s%s/serial", name, *part ? "/.." : "");
	text_read_line(path, serial, sizeof serial);
	if (!*serial)
		return false;
	disk_id(serial, id);
	if (*part) {
		size_t len = strlen(id);
		snprintf(id + len, DISK_ID_MAX - len, "-part%s", part);
	}
	return true;
}

/* Calls `each` for every block device until it says true. */
static bool any_device(bool (*each)(const char *name, void *context), void *context)
{
	DIR *devices = opendir(BLOCK_CLASS);
	bool found = false;
	for (struct dirent *entry; devices && !found && (entry = readdir(devices));)
		found = entry->d_name[0] != '.' && each(entry->d_name, context);
	if (devices)
		closedir(devices);
	return found;
}

struct search {
	const char *id;
	char *device;
};

static bool is_wanted(const char *name, void *context)
{
	struct search *search = context;
	char id[DISK_ID_MAX];
	if (!id_of(name, id) || strcmp(id, search->id) != 0)
		return false;
	snprintf(search->device, PATH_MAX, "/dev/%s", name);
	return true;
}

bool disk_find(const char *id, char device[PATH_MAX])
{
	struct search search = {id, device};
	return any_device(is_wanted, &search);
}

static bool add_link(const char *name, void *context)
{
	char id[DISK_ID_MAX], path[PATH_MAX], target[PATH_MAX];
	(void)context;
	if (!id_of(name, id))
		return false;
	snprintf(path, sizeof path, DISK_LINKS "%s", id);
	snprintf(target, sizeof target, "../../%s", name);
	unlink(path);
	if (symlink(target, path) < 0)
		say("%s is not linked to: %s", name, strerror(errno));
	return false;
}

/* The serial cannot be asked for any more: the link is the one that points to the device. */
static void remove_links(const char *name)
{
	DIR *links = opendir(DISK_LINKS);
	for (struct dirent *entry; links && (entry = readdir(links));) {
		char path[PATH_MAX], target[PATH_MAX];
		snprintf(path, sizeof path, DISK_LINKS "%s", entry->d_name);
		ssize_t len = readlink(path, target, sizeof target - 1);
		target[len > 0 ? len : 0] = 0;
		if (strncmp(target, "../../", 6) == 0 && strcmp(target + 6, name) == 0)
			unlink(path);
	}
	if (links)
		closedir(links);
}

void disk_init(void)
{
	mkdir("/dev/disk", 0755);
	mkdir("/dev/disk/by-id", 0755);
	any_device(add_link, NULL);
}

void disk_event(const char *action, const char *name)
{
	if (strcmp(action, "add") == 0)
		add_link(name, NULL);
	else if (strcmp(action, "remove") == 0)
		remove_links(name);
}
