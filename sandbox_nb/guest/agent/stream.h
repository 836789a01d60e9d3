/*
 * Streams the host has opened and nobody has claimed yet.
 *
 * Every stream is a connection of its own under a one-time id. At most 64 wait at once, each at most 30 s; then, or when
 * the host leaves before it sent anything, it is closed.
 */
#ifndef STREAM_H
#define STREAM_H

#include "bytes.h"

/* Starts to listen on `port`; false with errno. */
bool streams_listen(uint32_t port);

struct stream;

/* Who is to hear of each stream, with its id, when it is acknowledged: true when it has claimed it. Twice is as once. */
void streams_tell(bool (*opened)(struct stream *, struct bytes id));

/*
 * The stream named by `reference` ("stream://ID"). NULL with the reason in `problem` when there is none: a text with one
 * %.*s for the reference.
 */
struct stream *stream_find(struct bytes reference, const char **problem);

/* The stream of an id; NULL when none waits. */
struct stream *stream_waiting(struct bytes id);

/* Whether it names a stream that is not there, but may come. */
bool stream_missing(struct bytes reference);

/* Makes it the caller's: returns its fd, the stream is gone. */
int stream_claim(struct stream *);

#endif
