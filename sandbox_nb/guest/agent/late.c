#include "late.h"

#include "pb.h"
#include "relay.h"
#include "stream.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE_SIZE (64 * 1024)         /* what a pipe holds */
#define MAX_SAID (64 * 1024)           /* of one process, after which its pipes fill */
#define MAX_PIECES 1000                /* the same */
#define MAX_FINISH (256 * 1024)        /* with what they hold at its end */
#define MAX_ALL_SAID (8 * 1024 * 1024) /* of all processes */
#define PATIENCE (20 * NS_PER_MS)
#define EXPIRY (30 * NS_PER_S)

struct late {
	struct late *next;
	struct lates *all; /* of its process; NULL once that is forgotten */
	int number;
	struct watch pipe;
	struct timer expiry;
	size_t id_len;
	uint8_t id[];
};

static struct late *unheard;
static size_t all_said;

struct bytes late_id(struct bytes reference)
{
	return bytes_behind(reference, "late://");
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
	relay_unreserve();
	if (late->all)
		late->all->outputs[late->number] = NULL;
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

/* A Piece of WaitResponse.said. */
static void put_piece(struct lates *all, int number, const uint8_t *data, size_t len)
{
	struct buffer message = {0};
	size_t before = all->said.len;
	pb_put_varint(&message, 1, (uint64_t)number + 1);
	pb_put_bytes(&message, 2, data, len);
	pb_put_message(&all->said, 7, &message);
	all->said.failed |= message.failed;
	buffer_free(&message);
	all->pieces++;
	all_said += all->said.len - before;
}

static void forget_said(struct lates *all)
{
	all_said -= all->said.len;
	all->pieces = 0;
	buffer_free(&all->said);
}

static bool said_much(const struct lates *all)
{
	return all->said.len >= MAX_SAID || all->pieces >= MAX_PIECES || all_said >= MAX_ALL_SAID;
}

/* One piece of what was said; at its end the output is gone. To be called when there is something, or nobody to add to it. */
static bool hear(struct late *late)
{
	static uint8_t piece[PIECE_SIZE];
	ssize_t n = read(late->pipe.fd, piece, sizeof piece);
	if (n > 0)
		put_piece(late->all, late->number, piece, (size_t)n);
	else
		close(late_release(late));
	return n > 0;
}

static void watch_for(struct lates *all, uint32_t events)
{
	for (int i = 0; i < 2; i++)
		if (all->outputs[i])
			watch_set(&all->outputs[i]->pipe, events);
}

static void patience_over(struct timer *timer)
{
	struct lates *all = CONTAINER_OF(timer, struct lates, patience);
	all->overdue = true;
	all->speaks(all);
}

static void pipe_ready(struct watch *watch, uint32_t events)
{
	struct late *late = CONTAINER_OF(watch, struct late, pipe);
	struct lates *all = late->all;
	(void)events;
	if (!hear(late))
		return;
	bool much = said_much(all);
	if (much)
		watch_for(all, 0);
	if (!all->overdue && (much || !all->patience.fire))
		timer_start(&all->patience, much ? 0 : PATIENCE, patience_over);
}

bool late_start(struct lates *all, int number, struct bytes id, int pipe)
{
	struct late *late = calloc(1, sizeof *late + id.len);
	bool room = relay_reserve();
	if (!late || !room || !watch_start(&late->pipe, pipe, EPOLLIN, pipe_ready)) {
		if (room)
			relay_unreserve();
		free(late);
		close(pipe);
		return false;
	}
	late->all = all;
	late->number = number;
	late->id_len = id.len;
	memcpy(late->id, id.at, id.len);
	late->next = unheard;
	unheard = late;
	all->outputs[number] = late;
	streams_tell(stream_opened);
	return true;
}

bool lates_wait(const struct lates *all)
{
	return all->overdue && all->said.len > 0;
}

static void tell(struct lates *all, struct buffer *response)
{
	pb_put_varint(response, 6, (all->outputs[0] ? 1 : 0) | (all->outputs[1] ? 2 : 0));
	buffer_append(response, all->said.at, all->said.len);
	response->failed |= all->said.failed;
	forget_said(all);
	all->told = true;
}

void lates_tell(struct lates *all, struct buffer *response)
{
	watch_for(all, 0);
	tell(all, response);
}

/* POLLIN: there is something in the pipe; POLLHUP: and nobody to add to it. */
static short state(const struct late *late)
{
	struct pollfd pipe = {.fd = late->pipe.fd, .events = POLLIN};
	return poll(&pipe, 1, 0) > 0 ? pipe.revents : 0;
}

/* Whether an output can be heard to its end, or a step further. */
static bool can_finish(const struct lates *all, const struct late *late)
{
	short pipe = state(late);
	return pipe & POLLHUP && (!(pipe & POLLIN) || all->said.len < MAX_FINISH);
}

void lates_finish(struct lates *all, struct buffer *response)
{
	for (int i = 0; i < 2 && !all->told; i++)
		while (all->outputs[i] && can_finish(all, all->outputs[i]))
			hear(all->outputs[i]);
	tell(all, response);
}

void lates_leave(struct lates *all)
{
	timer_stop(&all->patience);
	forget_said(all);
	for (int i = 0; i < 2; i++) {
		struct late *late = all->outputs[i];
		if (late && all->told) {
			late->all = NULL;
			watch_stop(&late->pipe);
			timer_start(&late->expiry, EXPIRY, late_expired);
		} else if (late) {
			close(late_release(late));
		}
	}
}
