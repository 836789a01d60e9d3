/* Spans of bytes, and the one growing buffer everything is built in. */
#ifndef BYTES_H
#define BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

/* Bytes that somebody else owns. */
struct bytes {
	const uint8_t *at;
	size_t len;
};

/* Bytes of our own. Once an allocation failed the buffer stays `failed` and takes no more. */
struct buffer {
	uint8_t *at;
	size_t len;
	size_t capacity;
	bool failed;
};

struct bytes bytes_of(const struct buffer *);
struct bytes bytes_of_text(const char *);
bool bytes_equal(struct bytes, const char *);

/* What stands behind `prefix`; empty when they do not begin so. */
struct bytes bytes_behind(struct bytes, const char *prefix);

/* A copy with a NUL behind it, to be freed; NULL when memory is short or a NUL is inside. */
char *bytes_string(struct bytes);

/* True when every byte is a printable ASCII character other than space. */
bool bytes_printable(struct bytes);

void buffer_append(struct buffer *, const void *data, size_t len);
void buffer_drop(struct buffer *, size_t len);
void buffer_free(struct buffer *);

#endif
