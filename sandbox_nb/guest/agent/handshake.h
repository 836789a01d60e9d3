/*
 * How a stream begins: the host writes its id behind the id's length (uint32, big-endian), the guest answers with the
 * same, the acknowledgement, or with another text, the reason it refuses. No file descriptors here.
 */
#ifndef HANDSHAKE_H
#define HANDSHAKE_H

#include "bytes.h"

#define STREAM_ID_MAX 128

struct handshake {
	uint8_t in[4 + STREAM_ID_MAX];
	size_t len;
};

/*
 * How many bytes to read next, and not one more: what follows the id is the stream's own. 0 when the id is whole, or
 * when its length is out of bounds.
 */
size_t handshake_wants(const struct handshake *);
void handshake_feed(struct handshake *, const void *data, size_t len);

/* The id, once nothing more is wanted. NULL for a sound one, else the reason for refusal. */
const char *handshake_id(const struct handshake *, struct bytes *id);

/* The guest's answer: `text` behind its length. Returns the length of `out`. */
#define HANDSHAKE_ANSWER_MAX 256
size_t handshake_answer(uint8_t out[HANDSHAKE_ANSWER_MAX], struct bytes text);

#endif
