#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool log_debug;

/* One write for each line, so that lines of the kernel and of processes do not cut it in two. */
static void write_line(const char *format, va_list args)
{
	char line[512] = "sandbox: ";
	size_t len = strlen(line);
	int n = vsnprintf(line + len, sizeof line - len - 1, format, args);
	if (n < 0)
		return;
	len += (size_t)n < sizeof line - len - 1 ? (size_t)n : sizeof line - len - 2;
	line[len++] = '\n';
	if (write(STDERR_FILENO, line, len) < 0)
		return; /* a console that is gone is nobody's to report to */
}

void say(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	write_line(format, args);
	va_end(args);
}

void debug(const char *format, ...)
{
	if (!log_debug)
		return;
	va_list args;
	va_start(args, format);
	write_line(format, args);
	va_end(args);
}

void die(const char *what)
{
	say("cannot go on: %s: %s", what, strerror(errno));
	_exit(1);
}
