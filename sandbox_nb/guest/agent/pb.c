#include "pb.h"

#include <string.h>

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct pb_reader pb_read(struct bytes message)
{
	return (struct pb_reader){message.at, message.at + message.len, false};
}

/* At most ten bytes; what lies over 64 bits is dropped, as other readers do. */
static bool read_varint(struct pb_reader *reader, uint64_t *value)
{
	*value = 0;
	for (unsigned shift = 0; shift < 70; shift += 7) {
		if (reader->at == reader->end)
			return false;
		uint8_t byte = *reader->at++;
		if (shift < 64)
			*value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

static bool read_span(struct pb_reader *reader, uint64_t len, struct bytes *span)
{
	if (len > (size_t)(reader->end - reader->at))
		return false;
	*span = (struct bytes){reader->at, len};
	reader->at += len;
	return true;
}

static bool read_value(struct pb_reader *reader, struct pb_field *field)
{
	uint64_t len;
	switch (field->tag & 7) {
	case WIRE_VARINT:
		return read_varint(reader, &field->varint);
	case WIRE_FIXED64:
		return read_span(reader, 8, &field->bytes);
	case WIRE_BYTES:
		return read_varint(reader, &len) && read_span(reader, len, &field->bytes);
	case WIRE_FIXED32:
		return read_span(reader, 4, &field->bytes);
	default: /* groups, which proto3 does not have */
		return false;
	}
}

bool pb_next(struct pb_reader *reader, struct pb_field *field)
{
	if (reader->broken || reader->at == reader->end)
		return false;
	uint64_t tag;
	*field = (struct pb_field){0};
	reader->broken = !read_varint(reader, &tag) || tag > UINT32_MAX || tag >> 3 == 0;
	if (reader->broken)
		return false;
	field->tag = (uint32_t)tag;
	reader->broken = !read_value(reader, field);
	return !reader->broken;
}

void pb_put_packed(struct buffer *out, uint64_t value)
{
	uint8_t bytes[10];
	size_t len = 0;
	do {
		bytes[len] = value & 0x7f;
		value >>= 7;
		if (value)
			bytes[len] |= 0x80;
		len++;
	} while (value);
	buffer_append(out, bytes, len);
}

void pb_put_varint(struct buffer *out, uint32_t number, uint64_t value)
{
	if (value == 0)
		return;
	pb_put_packed(out, PB_VARINT(number));
	pb_put_packed(out, value);
}

static void put_span(struct buffer *out, uint32_t number, const void *data, size_t len)
{
	pb_put_packed(out, PB_BYTES(number));
	pb_put_packed(out, len);
	buffer_append(out, data, len);
}

void pb_put_bytes(struct buffer *out, uint32_t number, const void *data, size_t len)
{
	if (len > 0)
		put_span(out, number, data, len);
}

void pb_put_string(struct buffer *out, uint32_t number, const char *text)
{
	pb_put_bytes(out, number, text, strlen(text));
}

/* The length of the UTF-8 character the text begins with; 0 when it begins with none. RFC 3629, section 4. */
static size_t character(const uint8_t *at)
{
	size_t len = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : at[0] < 0xf5 ? 4 : 0;
	for (size_t i = 1; i < len; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	bool overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
	bool surrogate = at[0] == 0xed && at[1] > 0x9f;
	bool beyond = at[0] == 0xf4 && at[1] > 0x8f;
	return overlong || surrogate || beyond ? 0 : len;
}

void pb_put_text(struct buffer *out, uint32_t number, const char *text)
{
	struct buffer sound = {0};
	for (const uint8_t *at = (const uint8_t *)text; *at;) {
		size_t len = character(at);
		buffer_append(&sound, len ? at : (const uint8_t *)"?", len ? len : 1);
		at += len ? len : 1;
	}
	pb_put_bytes(out, number, sound.at, sound.len);
	out->failed |= sound.failed;
	buffer_free(&sound);
}

void pb_put_message(struct buffer *out, uint32_t number, const struct buffer *message)
{
	put_span(out, number, message->at, message->len);
	out->failed |= message->failed;
}
