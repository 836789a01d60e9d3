/* Small text files, whole: those of /proc and /sys, /etc/passwd and its like. */
#ifndef TEXT_H
#define TEXT_H

#include "bytes.h"

/* The file with a NUL behind it, to be freed; at most 1 MiB. NULL with errno. */
char *text_read(const char *path);

/* The first line of a short file, without its end; "" when it cannot be read. */
void text_read_line(const char *path, char *line, size_t size);

/* False with errno. The file is made when it is not there. */
bool text_write(const char *path, const char *text);

/* The next line of `*cursor`, ended with a NUL in place; NULL at the end. */
char *text_next_line(char **cursor);

/* Splits at `separator` in place into at most `max` fields; the last keeps the rest. Returns how many there are. */
size_t text_split(char *line, char separator, char **fields, size_t max);

/* A decimal number that is the whole text; false when it is not one or exceeds `max`. */
bool text_number(const char *text, uint64_t max, uint64_t *number);

#endif
