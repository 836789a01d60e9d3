/*
 * As much of protobuf's wire format as the agent speaks: varints and length-delimited fields.
 *
 * https://protobuf.dev/programming-guides/encoding/. A field is told by its whole tag (number and wire type), so one
 * that comes in another encoding counts as unknown and is skipped, as the format demands.
 */
#ifndef PB_H
#define PB_H

#include "bytes.h"

#define PB_VARINT(number) ((number) << 3 | 0)
#define PB_BYTES(number) ((number) << 3 | 2)

struct pb_reader {
	const uint8_t *at;
	const uint8_t *end;
	bool broken;
};

struct pb_field {
	uint32_t tag;
	uint64_t varint;
	struct bytes bytes;
};

struct pb_reader pb_read(struct bytes message);

/* The next field, of whatever kind; false at the end, and for good once the message is `broken`. */
bool pb_next(struct pb_reader *, struct pb_field *);

/* A zero or an empty value is left out, as proto3 has it. */
void pb_put_varint(struct buffer *, uint32_t number, uint64_t value);
void pb_put_bytes(struct buffer *, uint32_t number, const void *data, size_t len);
void pb_put_string(struct buffer *, uint32_t number, const char *);

/* A proto3 string is UTF-8: what of the text is not becomes '?'. */
void pb_put_text(struct buffer *, uint32_t number, const char *);

/* A message within a message, which is written even when it is empty. */
void pb_put_message(struct buffer *, uint32_t number, const struct buffer *message);

/* A varint without a tag: an element of a packed field. */
void pb_put_packed(struct buffer *, uint64_t value);

#endif
