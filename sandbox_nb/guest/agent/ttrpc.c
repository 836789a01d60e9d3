#include "ttrpc.h"

#include "pb.h"

static uint32_t get_u32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put_header(struct buffer *out, size_t len, uint32_t stream, enum frame_type type, uint8_t flags)
{
	uint8_t header[FRAME_HEADER] = {
		(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len,
		(uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream,
		(uint8_t)type, flags,
	};
	buffer_append(out, header, sizeof header);
}

void frame_feed(struct frame_reader *reader, const void *data, size_t len)
{
	size_t skipped = MIN(reader->skip, len);
	reader->skip -= skipped;
	buffer_drop(&reader->in, reader->used);
	reader->used = 0;
	buffer_append(&reader->in, (const uint8_t *)data + skipped, len - skipped);
}

static void skip_payload(struct frame_reader *reader, size_t len)
{
	size_t here = MIN(len, reader->in.len - reader->used);
	reader->used += here;
	reader->skip = len - here;
}

enum frame_result frame_next(struct frame_reader *reader, struct frame *frame)
{
	if (reader->in.failed)
		return FRAME_BROKEN;
	size_t have = reader->in.len - reader->used;
	if (have == 0)
		return FRAME_NONE;
	const uint8_t *header = reader->in.at + reader->used;
	if (header[0] != 0)
		return FRAME_BROKEN;
	if (have < FRAME_HEADER)
		return FRAME_NONE;
	size_t len = get_u32(header);
	*frame = (struct frame){get_u32(header + 4), header[8], header[9], {header + FRAME_HEADER, len}};
	if (len > FRAME_MAX_PAYLOAD) {
		reader->used += FRAME_HEADER;
		skip_payload(reader, len);
		frame->payload = (struct bytes){0};
		return FRAME_TOO_LARGE;
	}
	if (have - FRAME_HEADER < len)
		return FRAME_NONE;
	reader->used += FRAME_HEADER + len;
	return FRAME_READY;
}

void frame_reader_free(struct frame_reader *reader)
{
	buffer_free(&reader->in);
	*reader = (struct frame_reader){0};
}

bool request_parse(struct bytes payload, struct request *request)
{
	*request = (struct request){0};
	struct pb_reader in = pb_read(payload);
	for (struct pb_field field; pb_next(&in, &field);)
		switch (field.tag) {
		case PB_BYTES(1):
			request->service = field.bytes;
			break;
		case PB_BYTES(2):
			request->method = field.bytes;
			break;
		case PB_BYTES(3):
			request->payload = field.bytes;
			break;
		case PB_VARINT(4):
			request->timeout_ns = (int64_t)field.varint;
			break;
		}
	return !in.broken;
}

void frame_put_response(struct buffer *out, uint32_t stream, enum status status, const char *message,
			struct bytes payload)
{
	struct buffer response = {0};
	if (status != STATUS_OK) {
		struct buffer inner = {0}; /* google.rpc.Status */
		pb_put_varint(&inner, 1, status);
		pb_put_text(&inner, 2, message);
		pb_put_message(&response, 1, &inner);
		buffer_free(&inner);
	} else {
		pb_put_bytes(&response, 2, payload.at, payload.len);
	}
	put_header(out, response.len, stream, FRAME_RESPONSE, 0);
	buffer_append(out, response.at, response.len);
	out->failed |= response.failed;
	buffer_free(&response);
}

void frame_put_data(struct buffer *out, uint32_t stream, uint8_t flags, struct bytes payload)
{
	put_header(out, payload.len, stream, FRAME_DATA, flags);
	buffer_append(out, payload.at, payload.len);
}
