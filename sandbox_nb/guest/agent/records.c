#include "records.h"

#include "job.h"
#include "making.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LENGTH_SIZE 4
#define LEAST_ROOM (64 * 1024)

static uint8_t in[2 * (LENGTH_SIZE + RECORD_MAX)];
static size_t in_at, in_len;
static uint8_t out[LENGTH_SIZE + RECORD_MAX];
static size_t out_len;

void stream_prepare(void)
{
	fcntl(STDIN_FILENO, F_SETFL, 0);
	signal(SIGPIPE, SIG_IGN);
}

static _Noreturn void fail_of_stream(void)
{
	making_drop();
	job_fail(STATUS_CANCELLED, "the stream was closed before its end");
}

/* Until `wanted` bytes lie at in_at. */
static void fill(size_t wanted)
{
	if (in_at + wanted > sizeof in) {
		memmove(in, in + in_at, in_len - in_at);
		in_len -= in_at;
		in_at = 0;
	}
	while (in_len - in_at < wanted) {
		ssize_t n = read(STDIN_FILENO, in + in_len, sizeof in - in_len);
		if (n > 0)
			in_len += (size_t)n;
		else if (n == 0 || errno != EINTR)
			fail_of_stream();
	}
}

struct bytes record_take(void)
{
	fill(LENGTH_SIZE);
	const uint8_t *at = in + in_at;
	size_t len = (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
	if (len > RECORD_MAX) {
		making_drop();
		job_fail(STATUS_INVALID_ARGUMENT, "a record of %zu bytes; %d are the most", len, RECORD_MAX);
	}
	fill(LENGTH_SIZE + len);
	struct bytes record = {in + in_at + LENGTH_SIZE, len};
	in_at += LENGTH_SIZE + len;
	return record;
}

static void flush(void)
{
	for (size_t done = 0; done < out_len;) {
		ssize_t n = write(STDIN_FILENO, out + done, out_len - done);
		if (n > 0)
			done += (size_t)n;
		else if (errno != EINTR)
			fail_of_stream();
	}
	out_len = 0;
}

uint8_t *record_room(size_t *room)
{
	if (sizeof out - out_len < LENGTH_SIZE + LEAST_ROOM)
		flush();
	*room = sizeof out - out_len - LENGTH_SIZE;
	return out + out_len + LENGTH_SIZE;
}

void record_done(size_t len)
{
	uint8_t length[LENGTH_SIZE] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
	memcpy(out + out_len, length, LENGTH_SIZE);
	out_len += LENGTH_SIZE + len;
}

void record_put(const void *data, size_t len)
{
	size_t room;
	memcpy(record_room(&room), data, len);
	record_done(len);
}

void record_put_end(void)
{
	record_put("", 0);
}

void records_finish(void)
{
	flush();
	shutdown(STDIN_FILENO, SHUT_WR);
}
