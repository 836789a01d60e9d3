/*
 * Calls that came before what they name.
 *
 * The host sends a call and opens the streams it names at once, which saves it waiting for them; the call may come first.
 * Behind a Start it sends the Wait, which saves the process from being interrupted by it.
 */
#ifndef AWAIT_H
#define AWAIT_H

#include "rpc.h"

/*
 * For a call that names a stream which is missing. True when it waits: it begins anew with each stream that comes. False
 * when it has waited for 2 s, or too many do already.
 */
bool await_stream(struct call *, struct bytes request);

/* For a call that names a process which is missing: the same, but only while another call waits, which may start it. */
bool await_process(struct call *, struct bytes request);

/* A stream has come. */
void await_tell(void);

#endif
