#include "strings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Room for one more string and the NULL. */
static bool strings_grow(struct strings *strings)
{
	if (strings->len + 2 <= strings->capacity)
		return true;
	size_t capacity = strings->capacity ? 2 * strings->capacity : 16;
	char **at = realloc(strings->at, capacity * sizeof *at);
	if (!at)
		return false;
	strings->at = at;
	strings->capacity = capacity;
	return true;
}

bool strings_add(struct strings *strings, struct bytes text)
{
	char *copy = bytes_string(text);
	if (!copy || !strings_grow(strings)) {
		free(copy);
		return false;
	}
	strings->at[strings->len++] = copy;
	strings->at[strings->len] = NULL;
	return true;
}

void strings_free(struct strings *strings)
{
	for (size_t i = 0; i < strings->len; i++)
		free(strings->at[i]);
	free(strings->at);
	*strings = (struct strings){0};
}

static bool is_set(const struct strings *list, const char *key)
{
	size_t len = strlen(key);
	for (size_t i = 0; i < list->len; i++)
		if (strncmp(list->at[i], key, len) == 0 && list->at[i][len] == '=')
			return true;
	return false;
}

static bool add_default(struct strings *list, const char *key, const char *value)
{
	char text[512];
	if (!*value || is_set(list, key))
		return true;
	int len = snprintf(text, sizeof text, "%s=%s", key, value);
	return strings_add(list, (struct bytes){(uint8_t *)text, (size_t)len});
}

bool environment_complete(struct strings *list, const struct user *user, bool tty)
{
	return add_default(list, "PATH", DEFAULT_PATH) && add_default(list, "HOME", user->home) &&
	       add_default(list, "USER", user->name) && add_default(list, "LOGNAME", user->name) &&
	       add_default(list, "SHELL", user->shell) && add_default(list, "LANG", "C.UTF-8") &&
	       add_default(list, "TERM", tty ? "xterm-256color" : "");
}
