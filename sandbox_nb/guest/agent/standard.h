/* The three standard files of a process to be: /dev/null, pipes, or a terminal, relayed to streams of the host's. */
#ifndef STANDARD_H
#define STANDARD_H

#include "late.h"
#include "relay.h"
#include "rpc.h"
#include "user.h"

#include <sys/ioctl.h>

struct stdio_request {
	struct bytes streams[3]; /* "", "stream://ID", or of an output "late://ID" */
	bool tty;
	struct winsize size;
};

/* The process's ends, to be closed once it has been forked. */
struct stdio {
	int child[3];
	int owned[3];
	size_t n_owned;
};

/* Whether none of the streams it names is still to come. */
bool stdio_ready(const struct stdio_request *);

/*
 * Claims the streams and starts their relays; `handle` is set to the relay of standard input or the terminal, `lates` to
 * the outputs whose stream is not there yet. False when the call was failed; streams that were not there to claim leave the
 * others as they are.
 */
bool stdio_open(struct stdio *, struct call *, const struct stdio_request *, const struct user *, struct relay **handle,
		struct lates *lates);
void stdio_close(struct stdio *);

/* Reads WindowSize; false when a side exceeds 65535. */
bool window_size_parse(struct bytes message, struct winsize *);

#endif
