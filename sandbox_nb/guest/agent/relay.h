/*
 * Copies between a stream of the host's and the pipes or the pty of a process, or a socket; each direction by itself.
 *
 * A process never gets the socket: it could not reopen it as /dev/stdout. A relay holds at most one piece of 64 KiB in
 * each direction and reads no further until that is written, so a slow reader stops its own process and nobody else.
 *
 * What a process says is sent at once, but when it says little again and again: then every 2 ms. What may be the answer to
 * something the host has sent never waits, nor do a process's last words.
 *
 * A relay ends by itself when both directions have, and outlives the process when somebody else holds its pipes.
 */
#ifndef RELAY_H
#define RELAY_H

#include "bytes.h"

struct relay;

/* Why there is none, for people. */
#define NO_RELAY "too many streams are in use, or kept for commands; end some first"

/*
 * `input` is written with what the host sends, `output` is read for it; either may be -1. Takes all three fds, whatever
 * happens. False when there is no memory or no room.
 *
 * `handle`, if not NULL, is set to the relay and to NULL when that ends; relay_detach() breaks the tie before.
 */
bool relay_start(int socket, int input, int output, struct relay **handle);
void relay_detach(struct relay **handle);

/* Keeps room for a relay that may be started later; false when there is none. */
bool relay_reserve(void);
void relay_unreserve(void);

/* The same with a socket of the guest's for both directions. */
bool relay_join(int socket, int other);

/* Ends the direction to the process, without waiting for the host to do so. */
void relay_close_input(struct relay *);

/* Where the process's output is read from: of a terminal's relay, the pty. -1 once that has ended. */
int relay_output(const struct relay *);

#endif
