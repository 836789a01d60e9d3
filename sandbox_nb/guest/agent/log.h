/* Lines on the console, of which there are few: the host keeps them and shows them when a start fails. */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>

extern bool log_debug;

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same, only with -debug. */
void debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* For what leaves the agent without a loop to run. `what` failed with errno. */
_Noreturn void die(const char *what);

#endif
