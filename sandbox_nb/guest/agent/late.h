/*
 * Outputs of a process that the host opens streams for only when there is something to hear.
 *
 * Most commands say little and end: what they said has waited in its pipes, goes with the answer to Wait, and no stream was
 * opened for it. When a process goes on for 20 ms after it has spoken, the host is told, opens the streams, and hears all.
 */
#ifndef LATE_H
#define LATE_H

#include "bytes.h"
#include "loop.h"

struct late;

/* Those of one process. A stream that comes takes its output over, from its first byte. */
struct lates {
	struct late *outputs[2]; /* standard output and error; NULL: none, or taken over */
	struct timer patience;
	bool spoke; /* and the process went on */
	void (*speaks)(struct lates *);
};

/* The id in "late://ID"; empty when it is none. */
struct bytes late_id(struct bytes reference);

/* Output `number`, 0 or 1, comes from `pipe`, which is taken whatever happens. False when there is no memory or no room. */
bool late_start(struct lates *, int number, struct bytes id, int pipe);

/* Whether what the process has said waits to be heard. */
bool lates_wait(const struct lates *);

/*
 * All that was said, and its end; false, with nothing read, when somebody the process has started may still say more, or
 * it is too much for a message.
 */
bool lates_collect(struct lates *, struct buffer said[2]);

/* The process is forgotten. What was not collected waits 30 s for its stream. */
void lates_leave(struct lates *);

#endif
