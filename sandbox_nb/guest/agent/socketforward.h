/*
 * The SocketForward service: UNIX sockets of the guest whose connections are carried to the host, each over a stream.
 *
 * The wire is the reference's. A connection is announced on the Accept call under the id of a stream to be; the host says
 * whether it could connect on its side, and opens that stream. Where nobody has called Accept, connections wait in their
 * socket's backlog.
 */
#ifndef SOCKETFORWARD_H
#define SOCKETFORWARD_H

#include "rpc.h"

void socketforward_bind(struct call *, struct bytes request);
void socketforward_accept(struct call *, struct bytes request);

/* Ours; the reference has no way to take a Bind back. */
void socketforward_unbind(struct call *, struct bytes request);

#endif
