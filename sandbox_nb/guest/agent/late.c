#include "late.h"

#include "relay.h"
#include "stream.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SCHEME "late://"
#define MAX_LATE 1024
#define MAX_COLLECTED (256 * 1024) /* a pipe of Linux's usual size holds 64 KiB */
#define PATIENCE (20 * NS_PER_MS)
#define EXPIRY (30 * NS_PER_S)

struct late {
	struct late *next;
	struct late **owner; /* where its process knows it; NULL once that is forgotten */
	struct lates *all;   /* of its process */
	struct watch pipe;
	struct timer expiry;
	size_t id_len;
	uint8_t id[];
};

static struct late *unheard;
static unsigned n_unheard;

struct bytes late_id(struct bytes reference)
{
	size_t prefix = strlen(SCHEME);
	if (reference.len <= prefix || memcmp(reference.at, SCHEME, prefix) != 0)
		return (struct bytes){0};
	return (struct bytes){reference.at + prefix, reference.len - prefix};
}

/* Forgets an output and leaves its pipe to the caller. */
static int late_release(struct late *late)
{
	int fd = late->pipe.fd;
	for (struct late **link = &unheard; *link; link = &(*link)->next)
		if (*link == late) {
			*link = late->next;
			break;
		}
	n_unheard--;
	if (late->owner)
		*late->owner = NULL;
	watch_stop(&late->pipe);
	timer_stop(&late->expiry);
	free(late);
	return fd;
}

static void late_expired(struct timer *timer)
{
	close(late_release(CONTAINER_OF(timer, struct late, expiry)));
}

static bool stream_opened(struct stream *stream, struct bytes id)
{
	for (struct late *late = unheard; late; late = late->next)
		if (late->id_len == id.len && memcmp(late->id, id.at, id.len) == 0) {
			relay_start(stream_claim(stream), -1, late_release(late), NULL);
			return true;
		}
	return false;
}

static void look(struct timer *);

/* The process has spoken, or will not any more. */
static void pipe_ready(struct watch *watch, uint32_t events)
{
	struct late *late = CONTAINER_OF(watch, struct late, pipe);
	watch_set(watch, 0);
	if (events & EPOLLIN)
		timer_start(&late->all->patience, PATIENCE, look);
}

/*
 * Only now, that the process is none of the quick ones, its pipes are watched: each of theirs would else wake the agent once
 * more by its end.
 */
static void look(struct timer *timer)
{
	struct lates *all = CONTAINER_OF(timer, struct lates, patience);
	for (int i = 0; i < 2; i++) {
		struct pollfd pipe = {.fd = all->outputs[i] ? all->outputs[i]->pipe.fd : -1, .events = POLLIN};
		if (poll(&pipe, 1, 0) > 0 && pipe.revents & POLLIN) {
			all->spoke = true;
			all->speaks(all);
			return;
		}
	}
	for (int i = 0; i < 2; i++)
		if (all->outputs[i])
			watch_set(&all->outputs[i]->pipe, EPOLLIN);
}

bool late_start(struct lates *all, int number, struct bytes id, int pipe)
{
	struct late *late = n_unheard < MAX_LATE ? calloc(1, sizeof *late + id.len) : NULL;
	if (!late) {
		close(pipe);
		return false;
	}
	late->owner = &all->outputs[number];
	late->all = all;
	late->pipe = (struct watch){.fd = pipe, .ready = pipe_ready};
	late->id_len = id.len;
	memcpy(late->id, id.at, id.len);
	late->next = unheard;
	unheard = late;
	n_unheard++;
	all->outputs[number] = late;
	streams_tell(stream_opened);
	if (!all->patience.fire)
		timer_start(&all->patience, PATIENCE, look);
	return true;
}

bool lates_wait(const struct lates *all)
{
	return all->spoke && (all->outputs[0] || all->outputs[1]);
}

/* How much waits in a pipe that nobody can write to any more; -1 when somebody can. */
static int final_size(int fd)
{
	struct pollfd pipe = {.fd = fd, .events = POLLIN};
	int size = 0;
	if (poll(&pipe, 1, 0) < 0 || !(pipe.revents & POLLHUP))
		return -1;
	return pipe.revents & POLLIN && ioctl(fd, FIONREAD, &size) < 0 ? -1 : size;
}

static bool read_all(int fd, int size, struct buffer *said)
{
	uint8_t piece[4096];
	while (size > 0) {
		ssize_t n = read(fd, piece, MIN((size_t)size, sizeof piece));
		if (n <= 0)
			return false;
		buffer_append(said, piece, (size_t)n);
		size -= (int)n;
	}
	return !said->failed;
}

bool lates_collect(struct lates *all, struct buffer said[2])
{
	int sizes[2] = {0};
	for (int i = 0; i < 2; i++)
		if (all->outputs[i]) {
			sizes[i] = final_size(all->outputs[i]->pipe.fd);
			if (sizes[i] < 0 || sizes[i] > MAX_COLLECTED)
				return false;
		}
	for (int i = 0; i < 2; i++)
		if (all->outputs[i]) {
			int fd = late_release(all->outputs[i]);
			said[i].failed |= !read_all(fd, sizes[i], &said[i]);
			close(fd);
		}
	return true;
}

void lates_leave(struct lates *all)
{
	timer_stop(&all->patience);
	for (int i = 0; i < 2; i++) {
		struct late *late = all->outputs[i];
		if (!late)
			continue;
		if (final_size(late->pipe.fd) == 0) {
			close(late_release(late));
			continue;
		}
		late->owner = NULL;
		watch_stop(&late->pipe);
		timer_start(&late->expiry, EXPIRY, late_expired);
	}
}
