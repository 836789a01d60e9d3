/*
 * A worker's stream as records, each behind its length (uint32, big-endian); a length of 0 ends whatever it stands in.
 * What goes wrong with the stream itself ends the worker.
 */
#ifndef RECORDS_H
#define RECORDS_H

#include "bytes.h"

#define RECORD_MAX (256 * 1024)

/* The worker may wait for the host, and is told by an error that it has left. */
void stream_prepare(void);

/* The next record; valid until the one after it is taken. */
struct bytes record_take(void);

/* Collected, so that small records share a packet. */
void record_put(const void *data, size_t len);
void record_put_end(void);

/*
 * Where the content of the next record can be written to, and how much of it, which is 64 KiB at least; then record_done()
 * with how much was.
 */
uint8_t *record_room(size_t *room);
void record_done(size_t len);

/* Sends what was collected, and that nothing more comes. */
void records_finish(void);

#endif
