"""Sockets of the host's: to listen, to connect, and to carry bytes between two of them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from typing import Any

from sandbox_nb import streams
from sandbox_nb.errors import AlreadyExists, InvalidArgument
from sandbox_nb.together import together

__all__ = ["accept", "connect", "join", "listen", "reset"]

LOOPBACK = "127.0.0.1"

BACKLOG = 512
"""Connections that wait to be taken."""


async def join(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes between two non-blocking sockets until both directions have ended, and close them."""
    with one, other, contextlib.suppress(OSError):
        await together(_pump(one, other), _pump(other, one))


async def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Carry one direction.

    A source that breaks is raised, and ends the other direction too. A sink that takes no more ends this one: it
    may have something to say yet.
    """
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, streams.READ_SIZE):
        try:
            await loop.sock_sendall(sink, data)
        except OSError:
            with contextlib.suppress(OSError):
                source.shutdown(socket.SHUT_RD)
            return
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def listen(port: int) -> socket.socket:
    """Listen on a port of the loopback, 0 for a free one. Raises InvalidArgument or AlreadyExists."""
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port < 65536:
        raise InvalidArgument(f"host port {port!r}: 0 to 65535 is needed, where 0 picks a free one")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AlreadyExists(f"port {port} of {LOOPBACK} is taken; 0 picks a free one") from error
        raise InvalidArgument(f"port {port} of {LOOPBACK}: {error.strerror}; 0 picks a free one") from error
    return listener


async def accept(listener: socket.socket) -> tuple[socket.socket, Any]:
    """Take a connection of a non-blocking ``listener``: it, non-blocking too, and the address of its other end.

    As the loop's ``sock_accept``, which loses the connection that comes in the moment it is cancelled.
    """
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(BlockingIOError):
            connection, address = listener.accept()
            connection.setblocking(False)
            return connection, address
        ready = asyncio.Event()
        loop.add_reader(listener, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(listener)


async def connect(target: int | str) -> socket.socket:
    """Connect to what listens on the host. Raises OSError."""
    family = socket.AF_INET if isinstance(target, int) else socket.AF_UNIX
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if isinstance(target, int):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = (LOOPBACK, target) if isinstance(target, int) else target
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def reset(connection: socket.socket) -> None:
    """Close it in a way that the other side takes for an error, not for an end."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
