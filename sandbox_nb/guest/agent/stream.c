#include "stream.h"

#include "await.h"
#include "handshake.h"
#include "log.h"
#include "loop.h"
#include "transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_WAITING 64
#define MAX_GREETING 64 /* connections still in their handshake */
#define BUCKETS 64
#define BUCKET_SIZE 16
#define EXPIRY (30 * NS_PER_S)

struct stream {
	struct stream *next;
	struct watch socket;
	struct timer expiry;
	struct handshake handshake;
	struct bytes id; /* set once it is acknowledged: from then on it waits */
};

static struct watch listener;
static struct stream *streams;
static unsigned waiting, greeting;
static bool (*listeners[2])(struct stream *, struct bytes id); /* as many as there are in the agent */

/*
 * Hashes of the last ids seen, about a thousand: an id is good for one stream, also after that has been claimed or has ended.
 * In buckets, since each stream would go through all of them.
 */
static struct bucket {
	uint64_t hashes[BUCKET_SIZE];
	unsigned next;
} buckets[BUCKETS];

static uint64_t hash(struct bytes id)
{
	uint64_t value = UINT64_C(14695981039346656037); /* FNV-1a */
	for (size_t i = 0; i < id.len; i++)
		value = (value ^ id.at[i]) * UINT64_C(1099511628211);
	return value;
}

static bool seen_before(struct bytes id)
{
	uint64_t value = hash(id);
	const struct bucket *bucket = &buckets[value % BUCKETS];
	for (unsigned i = 0; i < BUCKET_SIZE; i++)
		if (bucket->hashes[i] == value)
			return true;
	return false;
}

static void remember(struct bytes id)
{
	uint64_t value = hash(id);
	struct bucket *bucket = &buckets[value % BUCKETS];
	bucket->hashes[bucket->next] = value;
	bucket->next = (bucket->next + 1) % BUCKET_SIZE;
}

/* Takes the stream out of the list and frees it, leaving its fd to the caller. */
static int stream_release(struct stream *stream)
{
	int fd = stream->socket.fd;
	for (struct stream **link = &streams; *link; link = &(*link)->next)
		if (*link == stream) {
			*link = stream->next;
			break;
		}
	if (stream->id.len > 0)
		waiting--;
	else
		greeting--;
	watch_stop(&stream->socket);
	timer_stop(&stream->expiry);
	free(stream);
	return fd;
}

static void stream_expired(struct timer *timer)
{
	close(stream_release(CONTAINER_OF(timer, struct stream, expiry)));
}

/*
 * The host has closed its sending end or both. The stream can still be claimed for what was sent before, so it goes now only
 * when that is nothing; there is no more to watch for in any case.
 */
static void waiting_ready(struct watch *watch, uint32_t events)
{
	struct stream *stream = CONTAINER_OF(watch, struct stream, socket);
	uint8_t byte;
	(void)events;
	bool empty = recv(watch->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
	watch_stop(watch);
	if (empty && transport_peer_left(watch->fd))
		close(stream_release(stream));
}

static bool answer(int fd, struct bytes text)
{
	uint8_t out[HANDSHAKE_ANSWER_MAX];
	size_t len = handshake_answer(out, text);
	return send(fd, out, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static void finish_handshake(struct stream *stream)
{
	struct bytes id;
	const char *refusal = handshake_id(&stream->handshake, &id);
	if (!refusal && seen_before(id))
		refusal = "this stream id was used before; ids are one-time";
	if (!refusal && waiting == MAX_WAITING)
		refusal = "64 streams wait to be claimed already; claim or close some first";
	if (refusal) {
		answer(stream->socket.fd, (struct bytes){(const uint8_t *)refusal, strlen(refusal)});
		close(stream_release(stream));
		return;
	}
	remember(id);
	if (!answer(stream->socket.fd, id)) {
		close(stream_release(stream));
		return;
	}
	greeting--;
	waiting++;
	stream->id = id;
	watch_stop(&stream->socket);
	watch_start(&stream->socket, stream->socket.fd, EPOLLRDHUP, waiting_ready);
	for (size_t i = 0; i < ARRAY_SIZE(listeners) && listeners[i]; i++)
		if (listeners[i](stream, id))
			return;
	await_tell();
}

static void greeting_ready(struct watch *watch, uint32_t events)
{
	struct stream *stream = CONTAINER_OF(watch, struct stream, socket);
	uint8_t data[sizeof stream->handshake.in];
	(void)events;
	for (size_t wanted; (wanted = handshake_wants(&stream->handshake)) > 0;) {
		ssize_t n = read(watch->fd, data, wanted);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			close(stream_release(stream));
			return;
		}
		handshake_feed(&stream->handshake, data, (size_t)n);
	}
	finish_handshake(stream);
}

static void stream_accept(int fd)
{
	struct stream *stream = greeting < MAX_GREETING ? calloc(1, sizeof *stream) : NULL;
	if (!stream || !watch_start(&stream->socket, fd, EPOLLIN, greeting_ready)) {
		free(stream);
		close(fd);
		return;
	}
	stream->next = streams;
	streams = stream;
	greeting++;
	timer_start(&stream->expiry, EXPIRY, stream_expired);
	greeting_ready(&stream->socket, EPOLLIN);
}

static void listener_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	int fd = transport_accept(watch->fd);
	if (fd >= 0)
		stream_accept(fd);
}

bool streams_listen(uint32_t port)
{
	int fd = transport_listen(port);
	return fd >= 0 && watch_start(&listener, fd, EPOLLIN, listener_ready);
}

void streams_tell(bool (*opened)(struct stream *, struct bytes id))
{
	size_t i = 0;
	while (listeners[i] && listeners[i] != opened)
		i++;
	listeners[i] = opened;
}

/* The id in "stream://ID"; empty when it is none. */
static struct bytes id_of(struct bytes reference)
{
	return bytes_behind(reference, "stream://");
}

struct stream *stream_waiting(struct bytes id)
{
	for (struct stream *stream = streams; stream; stream = stream->next)
		if (id.len > 0 && stream->id.len == id.len && memcmp(stream->id.at, id.at, id.len) == 0)
			return stream;
	return NULL;
}

struct stream *stream_find(struct bytes reference, const char **problem)
{
	struct bytes id = id_of(reference);
	*problem = id.len > 0 ? "%.*s is not there: open a stream when it is used; unclaimed ones close after 30 s"
			      : "'%.*s' is not the name of a stream: stream://ID is needed";
	return stream_waiting(id);
}

bool stream_missing(struct bytes reference)
{
	struct bytes id = id_of(reference);
	return id.len > 0 && !stream_waiting(id);
}

int stream_claim(struct stream *stream)
{
	return stream_release(stream);
}
