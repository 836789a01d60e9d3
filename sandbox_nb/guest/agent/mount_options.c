#include "mount_options.h"

#include <string.h>
#include <sys/mount.h>

struct flag {
	const char *name;
	unsigned long set, clear;
};

/* mount(8), "Filesystem-independent mount options". Of two that contradict each other the last one counts. */
static const struct flag flags[] = {
	{"defaults", 0, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_SYNCHRONOUS},
	{"ro", MS_RDONLY, 0},
	{"rw", 0, MS_RDONLY},
	{"nosuid", MS_NOSUID, 0},
	{"suid", 0, MS_NOSUID},
	{"nodev", MS_NODEV, 0},
	{"dev", 0, MS_NODEV},
	{"noexec", MS_NOEXEC, 0},
	{"exec", 0, MS_NOEXEC},
	{"sync", MS_SYNCHRONOUS, 0},
	{"async", 0, MS_SYNCHRONOUS},
	{"dirsync", MS_DIRSYNC, 0},
	{"noatime", MS_NOATIME, MS_RELATIME | MS_STRICTATIME},
	{"atime", 0, MS_NOATIME},
	{"nodiratime", MS_NODIRATIME, 0},
	{"diratime", 0, MS_NODIRATIME},
	{"relatime", MS_RELATIME, MS_NOATIME | MS_STRICTATIME},
	{"strictatime", MS_STRICTATIME, MS_NOATIME | MS_RELATIME},
	{"lazytime", MS_LAZYTIME, 0},
	{"bind", MS_BIND, MS_REC},
	{"rbind", MS_BIND | MS_REC, 0},
};

static const struct flag propagations[] = {
	{"shared", MS_SHARED, 0},       {"rshared", MS_SHARED | MS_REC, 0},
	{"private", MS_PRIVATE, 0},     {"rprivate", MS_PRIVATE | MS_REC, 0},
	{"slave", MS_SLAVE, 0},         {"rslave", MS_SLAVE | MS_REC, 0},
	{"unbindable", MS_UNBINDABLE, 0}, {"runbindable", MS_UNBINDABLE | MS_REC, 0},
};

static const struct flag *find(const struct flag *table, size_t n, struct bytes name)
{
	for (size_t i = 0; i < n; i++)
		if (bytes_equal(name, table[i].name))
			return &table[i];
	return NULL;
}

static const char *add_data(struct mount_options *options, struct bytes option)
{
	size_t len = strlen(options->data);
	if (len + 1 + option.len >= sizeof options->data)
		return "the options for the file system are longer than the 4095 bytes the kernel takes";
	if (len > 0)
		options->data[len++] = ',';
	memcpy(options->data + len, option.at, option.len);
	options->data[len + option.len] = 0;
	return NULL;
}

static const char *add_option(struct mount_options *options, struct bytes option)
{
	const struct flag *flag = find(flags, ARRAY_SIZE(flags), option);
	const struct flag *propagation = find(propagations, ARRAY_SIZE(propagations), option);
	if (flag)
		options->flags = (options->flags & ~flag->clear) | flag->set;
	else if (propagation)
		options->propagation = propagation->set;
	else if (option.len > 0)
		return add_data(options, option);
	return NULL;
}

const char *mount_options_add(struct mount_options *options, struct bytes element)
{
	const char *problem = NULL;
	if (element.len > 0 && memchr(element.at, 0, element.len))
		return "an option holds a NUL byte";
	while (!problem) {
		const uint8_t *comma = element.len > 0 ? memchr(element.at, ',', element.len) : NULL;
		size_t len = comma ? (size_t)(comma - element.at) : element.len;
		problem = add_option(options, (struct bytes){element.at, len});
		if (!comma)
			break;
		element = (struct bytes){comma + 1, element.len - len - 1};
	}
	return problem;
}
