#include "handshake.h"

#include <string.h>

#define LENGTH_SIZE 4

static size_t announced(const struct handshake *handshake)
{
	const uint8_t *in = handshake->in;
	return (size_t)in[0] << 24 | (size_t)in[1] << 16 | (size_t)in[2] << 8 | in[3];
}

static bool in_bounds(size_t len)
{
	return len >= 1 && len <= STREAM_ID_MAX;
}

size_t handshake_wants(const struct handshake *handshake)
{
	if (handshake->len < LENGTH_SIZE)
		return LENGTH_SIZE - handshake->len;
	size_t len = announced(handshake);
	return in_bounds(len) ? LENGTH_SIZE + len - handshake->len : 0;
}

void handshake_feed(struct handshake *handshake, const void *data, size_t len)
{
	memcpy(handshake->in + handshake->len, data, len);
	handshake->len += len;
}

const char *handshake_id(const struct handshake *handshake, struct bytes *id)
{
	size_t len = announced(handshake);
	if (!in_bounds(len))
		return "a stream id has 1 to 128 bytes";
	*id = (struct bytes){handshake->in + LENGTH_SIZE, len};
	if (!bytes_printable(*id))
		return "a stream id has printable ASCII characters only";
	return NULL;
}

size_t handshake_answer(uint8_t out[HANDSHAKE_ANSWER_MAX], struct bytes text)
{
	size_t len = MIN(text.len, HANDSHAKE_ANSWER_MAX - LENGTH_SIZE);
	memcpy(out, (uint8_t[LENGTH_SIZE]){0, 0, (uint8_t)(len >> 8), (uint8_t)len}, LENGTH_SIZE);
	memcpy(out + LENGTH_SIZE, text.at, len);
	return LENGTH_SIZE + len;
}
