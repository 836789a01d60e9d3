/*
 * The sockets between guest and host: AF_VSOCK in a machine, UNIX sockets named by port in a folder (-unix=DIR) for the
 * native tests. All are non-blocking and closed on exec.
 */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

/* `folder` NULL: vsock. `cid` is the context id the host gives where it has its ports to itself. */
void transport_init(const char *folder, uint32_t cid);

/*
 * A socket on its way to the host's `port`: writable once connected, or failed. -1 with errno when it cannot be. With
 * another context id than the expected one the host's ports are shared with other guests, and the port that has the
 * number of ours is dialled.
 */
int transport_dial(uint32_t port);

/* What became of it: 0 or an errno. */
int transport_error(int fd);

/* A listening socket; -1 with errno. */
int transport_listen(uint32_t port);

/*
 * A connection of the host's, or -1: those of others are closed. To be called once for each time the listener is ready:
 * where none waits, Linux (6.1) puts a non-blocking accept on a vsock socket to sleep until the next tick, 4 ms.
 */
int transport_accept(int listener);

/* Whether the host reads no more. Its sending end says nothing about that: half-closed streams are normal. */
bool transport_peer_left(int fd);

#endif
