/* NULL-terminated lists of strings: argv and the environment. */
#ifndef STRINGS_H
#define STRINGS_H

#include "bytes.h"
#include "user.h"

/* `at` is NULL as long as there are none. */
struct strings {
	char **at;
	size_t len;
	size_t capacity;
};

/* False when the text holds a NUL or memory is short. */
bool strings_add(struct strings *, struct bytes);
void strings_free(struct strings *);

/*
 * Adds the defaults for `user` to the KEY=VALUE `list`, as far as it does not set them itself. Lines and columns are
 * never among them: a program that believes them does not ask its terminal.
 */
bool environment_complete(struct strings *list, const struct user *, bool tty);

#endif
