"""ttrpc for Python: containerd's remote procedure calls between processes of one machine, on asyncio.

ttrpc is what gRPC would be without HTTP/2: protobuf messages in frames with a header of ten bytes, over one stream
socket, with no handshake. It suits UNIX sockets and vsock. All four kinds of call are here, unary, client, server
and bidirectional streams, with metadata, deadlines and status details; `PROTOCOL.md` of containerd/ttrpc is the
text this follows, and its library in Go is what it is tested against.

Calling::

    async with await Client.connect("/run/greeter.sock") as client:
        greeter = GreeterClient(client)                      # generated, typed
        reply = await greeter.hello(HelloRequest(name="you"), timeout=2.0)
        async with greeter.watch(WatchRequest()) as stream:  # a server stream
            async for event in stream:
                ...

Serving::

    class Greeter(GreeterBase):                              # generated, typed
        async def hello(self, request, context):
            return HelloReply(text=f"Hello, {request.name}")

    async with Server(Greeter()) as server:
        await server.listen("/run/greeter.sock")
        await stop.wait()
        await server.shutdown(timeout=5.0)

`generator` is the plug-in for protoc that makes the two from a .proto file. Without it, `Client.call` and its
streaming siblings take names and message classes, and a service is any object with ``SERVICE`` and ``METHODS``.

How a call ends
---------------
A call that does not end well raises `StatusError`: a code, a message and details, from the server or from here.

===================  ========================================================================================
DEADLINE_EXCEEDED    ``timeout`` has passed. Both ends hold it; the server cancels the handler
UNAVAILABLE          the connection has ended, or the server is shutting down. Every pending call ends at once
RESOURCE_EXHAUSTED   a message over 4 MiB, on either way; or messages came faster than they were consumed
INTERNAL             the server broke the protocol (`ProtocolError`)
CANCELLED            a stream was left by ``cancel`` or at the end of its block
===================  ========================================================================================

A client made with ``map_error=`` raises what that makes of a `StatusError`. A message over the limit costs its own
call and nothing else: its bytes are dropped as they come.

ttrpc has no frame that cancels. Who leaves a call tells the server that no more messages come, if it was
sending; a handler that does not await one goes on until its deadline or the end of the connection.

Streams and their neighbours
----------------------------
ttrpc has no flow control either: of what is under way on a connection, one stream cannot be held back without
holding back all. So nothing is. Messages wait in their stream until they are consumed, up to 16 MiB; one more, and
this stream ends with RESOURCE_EXHAUSTED, at whichever end it overflows, while its neighbours go on. On the way out
every sender waits until the peer reads, in turn, so that a busy stream does not starve a quiet one.

A server reads no further requests from a client that does not read its answers.

Beneath
-------
`frames` and `connection` are the protocol without I/O: bytes in, events out. `Client` and `Server` are a thin
layer of asyncio around them.
"""

from __future__ import annotations

from .client import Client
from .client_streams import BidiStream, ClientStream, ServerStream
from .connection import Metadata
from .server import Server
from .service import Context, Method, Service
from .status import Code, MapError, ProtocolError, StatusError

__all__ = [
    "BidiStream",
    "Client",
    "ClientStream",
    "Code",
    "Context",
    "MapError",
    "Metadata",
    "Method",
    "ProtocolError",
    "Server",
    "ServerStream",
    "Service",
    "StatusError",
]
