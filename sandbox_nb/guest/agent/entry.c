#include "entry.h"

#include "pb.h"

#include <limits.h>
#include <string.h>

struct entry entry_of(struct bytes name, const struct stat *status)
{
	return (struct entry){
		.name = name,
		.mode = status->st_mode,
		.size = (uint64_t)status->st_size,
		.mtime = status->st_mtim,
		.uid = status->st_uid,
		.gid = status->st_gid,
	};
}

void entry_put(struct buffer *out, const struct entry *entry)
{
	pb_put_bytes(out, 1, entry->name.at, entry->name.len);
	pb_put_varint(out, 2, entry->mode);
	pb_put_varint(out, 3, entry->size);
	pb_put_varint(out, 4, (uint64_t)entry->mtime.tv_sec);
	pb_put_varint(out, 5, (uint64_t)entry->mtime.tv_nsec);
	pb_put_varint(out, 6, entry->uid);
	pb_put_varint(out, 7, entry->gid);
	pb_put_bytes(out, 8, entry->target.at, entry->target.len);
	pb_put_bytes(out, 9, entry->link.at, entry->link.len);
}

static void take_number(struct entry *entry, uint32_t number, uint64_t value)
{
	switch (number) {
	case 2:
		entry->mode = (mode_t)value;
		break;
	case 3:
		entry->size = value;
		break;
	case 4:
		entry->mtime.tv_sec = (time_t)value;
		break;
	case 5:
		entry->mtime.tv_nsec = (long)MIN(value, 999999999);
		break;
	case 6:
		entry->uid = (uid_t)value;
		break;
	case 7:
		entry->gid = (gid_t)value;
		break;
	}
}

static bool has_nul(struct bytes bytes)
{
	return bytes.len > 0 && memchr(bytes.at, 0, bytes.len);
}

static bool is_sound(const struct entry *entry)
{
	struct bytes name = entry->name;
	return name.len <= NAME_MAX && !has_nul(name) && !(name.len > 0 && memchr(name.at, '/', name.len)) &&
	       !bytes_equal(name, ".") && !bytes_equal(name, "..") && entry->target.len < PATH_MAX &&
	       !has_nul(entry->target) && !has_nul(entry->link);
}

bool entry_parse(struct bytes message, struct entry *entry)
{
	*entry = (struct entry){0};
	struct pb_reader in = pb_read(message);
	for (struct pb_field field; pb_next(&in, &field);)
		switch (field.tag) {
		case PB_BYTES(1):
			entry->name = field.bytes;
			break;
		case PB_BYTES(8):
			entry->target = field.bytes;
			break;
		case PB_BYTES(9):
			entry->link = field.bytes;
			break;
		default:
			if ((field.tag & 7) == 0)
				take_number(entry, field.tag >> 3, field.varint);
		}
	return !in.broken && is_sound(entry);
}
