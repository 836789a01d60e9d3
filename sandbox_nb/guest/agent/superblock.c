#include "superblock.h"

#include "bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Where each is: Documentation/filesystems/ of the kernel, and ECMA-119 for iso9660. ext4 mounts ext2 and ext3, too. */
static const struct magic {
	const char *type;
	off_t offset;
	const char *bytes;
} magics[] = {
	{"erofs", 1024, "\xe2\xe1\xf5\xe0"},
	{"squashfs", 0, "hsqs"},
	{"xfs", 0, "XFSB"},
	{"iso9660", 32769, "CD001"},
	{"ext4", 1024 + 56, "\x53\xef"}, /* last: two bytes are soon found by chance */
};

static bool matches(int fd, const struct magic *magic)
{
	char found[8];
	size_t len = strlen(magic->bytes);
	return pread(fd, found, len, magic->offset) == (ssize_t)len && memcmp(found, magic->bytes, len) == 0;
}

const char *superblock_type(const char *device)
{
	const char *type = NULL;
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(magics) && !type; i++)
		if (matches(fd, &magics[i]))
			type = magics[i].type;
	close(fd);
	errno = EMEDIUMTYPE;
	return type;
}
