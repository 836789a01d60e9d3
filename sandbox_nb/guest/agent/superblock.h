/* Which file system a device holds, told by the magic number in its superblock. */
#ifndef SUPERBLOCK_H
#define SUPERBLOCK_H

#define SUPERBLOCK_TYPES "ext4, erofs, squashfs, xfs or iso9660"

/* NULL with errno: EMEDIUMTYPE when it holds none of SUPERBLOCK_TYPES. */
const char *superblock_type(const char *device);

#endif
