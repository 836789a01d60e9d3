#include "bytes.h"

#include <stdlib.h>
#include <string.h>

/* What an emptied buffer may keep, so that steady traffic does not allocate. */
#define KEPT_CAPACITY (64 * 1024)

struct bytes bytes_of(const struct buffer *buffer)
{
	return (struct bytes){buffer->at, buffer->len};
}

struct bytes bytes_of_text(const char *text)
{
	return (struct bytes){(const uint8_t *)text, strlen(text)};
}

bool bytes_equal(struct bytes bytes, const char *text)
{
	return bytes.len == strlen(text) && (bytes.len == 0 || memcmp(bytes.at, text, bytes.len) == 0);
}

struct bytes bytes_behind(struct bytes bytes, const char *prefix)
{
	size_t len = strlen(prefix);
	if (bytes.len < len || memcmp(bytes.at, prefix, len) != 0)
		return (struct bytes){0};
	return (struct bytes){bytes.at + len, bytes.len - len};
}

char *bytes_string(struct bytes bytes)
{
	if (bytes.len > 0 && memchr(bytes.at, 0, bytes.len))
		return NULL;
	char *string = malloc(bytes.len + 1);
	if (!string)
		return NULL;
	if (bytes.len > 0)
		memcpy(string, bytes.at, bytes.len);
	string[bytes.len] = 0;
	return string;
}

bool bytes_printable(struct bytes bytes)
{
	for (size_t i = 0; i < bytes.len; i++)
		if (bytes.at[i] <= ' ' || bytes.at[i] > '~')
			return false;
	return true;
}

static bool buffer_grow(struct buffer *buffer, size_t len)
{
	if (buffer->failed || len > SIZE_MAX / 4 - buffer->len)
		return false;
	size_t needed = buffer->len + len;
	if (needed <= buffer->capacity)
		return true;
	size_t capacity = buffer->capacity ? buffer->capacity : 64;
	while (capacity < needed)
		capacity *= 2;
	uint8_t *at = realloc(buffer->at, capacity);
	if (!at)
		return false;
	buffer->at = at;
	buffer->capacity = capacity;
	return true;
}

void buffer_append(struct buffer *buffer, const void *data, size_t len)
{
	if (len == 0)
		return;
	if (!buffer_grow(buffer, len)) {
		buffer->failed = true;
		return;
	}
	memcpy(buffer->at + buffer->len, data, len);
	buffer->len += len;
}

void buffer_drop(struct buffer *buffer, size_t len)
{
	if (len == 0)
		return;
	buffer->len -= len;
	if (buffer->len > 0)
		memmove(buffer->at, buffer->at + len, buffer->len);
	else if (buffer->capacity > KEPT_CAPACITY)
		buffer_free(buffer);
}

void buffer_free(struct buffer *buffer)
{
	free(buffer->at);
	*buffer = (struct buffer){0};
}
