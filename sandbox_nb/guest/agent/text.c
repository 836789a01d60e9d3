#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_TEXT (1024 * 1024)

char *text_read(const char *path)
{
	struct buffer text = {0};
	uint8_t piece[4096];
	ssize_t n = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	while (text.len < MAX_TEXT && (n = read(fd, piece, sizeof piece)) > 0)
		buffer_append(&text, piece, (size_t)n);
	close(fd);
	buffer_append(&text, "", 1);
	if (n < 0 || text.failed) {
		buffer_free(&text);
		return NULL;
	}
	return (char *)text.at;
}

void text_read_line(const char *path, char *line, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, size - 1);
	if (fd >= 0)
		close(fd);
	line[n > 0 ? n : 0] = 0;
	line[strcspn(line, "\n")] = 0;
}

bool text_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return false;
	ssize_t len = (ssize_t)strlen(text);
	bool done = write(fd, text, (size_t)len) == len;
	int saved = errno;
	close(fd);
	errno = saved;
	return done;
}

char *text_next_line(char **cursor)
{
	char *line = *cursor;
	if (!*line)
		return NULL;
	size_t len = strcspn(line, "\n");
	*cursor = line + len + (line[len] != 0);
	line[len] = 0;
	return line;
}

size_t text_split(char *line, char separator, char **fields, size_t max)
{
	size_t n = 0;
	while (n < max) {
		fields[n++] = line;
		char *end = n < max ? strchr(line, separator) : NULL;
		if (!end)
			break;
		*end = 0;
		line = end + 1;
	}
	return n;
}

bool text_number(const char *text, uint64_t max, uint64_t *number)
{
	if (!*text)
		return false;
	*number = 0;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		*number = *number * 10 + (uint64_t)(*text - '0');
		if (*number > max)
			return false;
	}
	return true;
}
