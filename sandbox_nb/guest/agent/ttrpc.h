/*
 * ttrpc frames, the server's side: bytes in, frames out. No file descriptors here.
 *
 * containerd/ttrpc, PROTOCOL.md. A frame is a 10-byte big-endian header (length u32, stream u32, type u8, flags u8) and
 * its payload. The first byte is reserved and zero.
 */
#ifndef TTRPC_H
#define TTRPC_H

#include "bytes.h"

#define FRAME_HEADER 10
#define FRAME_MAX_PAYLOAD (4 * 1024 * 1024)

enum frame_type { FRAME_REQUEST = 1, FRAME_RESPONSE = 2, FRAME_DATA = 3 };

/* A request without flags is unary. */
#define FLAG_REMOTE_CLOSED 0x1
#define FLAG_REMOTE_OPEN 0x2
#define FLAG_NO_DATA 0x4

/* google.rpc.Code: what a call can end with. */
enum status {
	STATUS_OK = 0,
	STATUS_CANCELLED = 1,
	STATUS_UNKNOWN = 2,
	STATUS_INVALID_ARGUMENT = 3,
	STATUS_DEADLINE_EXCEEDED = 4,
	STATUS_NOT_FOUND = 5,
	STATUS_ALREADY_EXISTS = 6,
	STATUS_PERMISSION_DENIED = 7,
	STATUS_RESOURCE_EXHAUSTED = 8,
	STATUS_FAILED_PRECONDITION = 9,
	STATUS_UNIMPLEMENTED = 12,
	STATUS_INTERNAL = 13,
};

struct frame {
	uint32_t stream;
	uint8_t type;
	uint8_t flags;
	struct bytes payload; /* valid until the reader is fed again */
};

struct frame_reader {
	struct buffer in;
	size_t used; /* bytes of `in` already handed out */
	size_t skip; /* bytes still to come of a payload that was too large */
};

enum frame_result {
	FRAME_NONE,      /* feed more */
	FRAME_READY,     /* the frame is whole */
	FRAME_TOO_LARGE, /* its header is, its payload is skipped; the next frame is sound */
	FRAME_BROKEN,    /* no frame can begin like this: the connection is of no more use */
};

void frame_feed(struct frame_reader *, const void *data, size_t len);
enum frame_result frame_next(struct frame_reader *, struct frame *);
void frame_reader_free(struct frame_reader *);

struct request {
	struct bytes service;
	struct bytes method;
	struct bytes payload;
	int64_t timeout_ns; /* 0: none */
};

/* Reads ttrpc's Request message; false when it is not one. */
bool request_parse(struct bytes payload, struct request *);

/* Appends a Response frame. `status` OK has no message, every other no payload. */
void frame_put_response(struct buffer *, uint32_t stream, enum status, const char *message, struct bytes payload);

/* Appends a Data frame: one message of the stream. */
void frame_put_data(struct buffer *, uint32_t stream, uint8_t flags, struct bytes payload);

#endif
