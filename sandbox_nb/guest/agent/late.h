/*
 * Outputs of a process that the host opens streams for only when there is much to hear.
 *
 * Most commands say little and end: what they said goes with the answer to Wait, in the order in which the agent saw it, and
 * no stream is opened for it. When a process goes on for 20 ms after it has spoken, or says much, the host is told what it
 * said until then, opens the streams, and hears the rest there.
 */
#ifndef LATE_H
#define LATE_H

#include "bytes.h"
#include "loop.h"

struct late;

/* Those of one process. */
struct lates {
	struct late *outputs[2]; /* standard output and error; NULL: none, ended, or taken over by its stream */
	struct buffer said;      /* and not told yet: WaitResponse.said */
	unsigned pieces;         /* in it */
	struct timer patience;
	bool overdue; /* it spoke and went on, or said much */
	bool told;    /* so the host was, and what is in the pipes is for its streams */
	void (*speaks)(struct lates *);
};

/* The id in "late://ID"; empty when it is none. */
struct bytes late_id(struct bytes reference);

/* Output `number`, 0 or 1, comes from `pipe`, which is taken whatever happens. False when there is no memory or no room. */
bool late_start(struct lates *, int number, struct bytes id, int pipe);

/* Whether the host is to be told of what was said though the process goes on. */
bool lates_wait(const struct lates *);

/* Adds to the answer of a process that goes on what it said, and which streams are to be opened for what it will say. */
void lates_tell(struct lates *, struct buffer *response);

/* The same for one that has ended: what is in its pipes is all, unless others hold them too or it is too much. */
void lates_finish(struct lates *, struct buffer *response);

/* The process is forgotten. Outputs that the host was told of wait 30 s for their streams, the others go. */
void lates_leave(struct lates *);

#endif
