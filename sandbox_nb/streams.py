"""Raw byte streams between host and guest, each its own connection under a one-time id.

The handshake is small: the host writes the id behind its length (uint32, big-endian), the guest answers with the
same as acknowledgement, or with another text, the reason it refuses, and closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable

from sandbox_nb.errors import (
    AlreadyExists,
    InvalidArgument,
    ProtocolError,
    ResourceExhausted,
    Unavailable,
    from_os_error,
)
from sandbox_nb.vm.command import STREAM_PORT

MAX_ID = 128
"""Bytes of an id, at most."""

MAX_REFUSAL = 4096
"""Bytes of a refusal we are willing to read."""

READ_SIZE = 256 * 1024

Dial = Callable[[int, bytes], Awaitable[socket.socket]]
"""Connects to a port of the guest and sends what it is given; OSError when it cannot."""

OpenStream = Callable[[str], Awaitable[socket.socket]]
"""Opens the stream of an id and returns its connected, non-blocking socket."""

Taker = Callable[[bytes], Awaitable[None] | None]
"""Takes a piece of a stream; what it returns, unless None, is awaited before more is read."""

_LENGTH = struct.Struct(">I")


def new_id() -> str:
    """An id nobody else uses."""
    return f"s-{secrets.token_hex(8)}"


def name(identity: str) -> str:
    """How an id is named in a request to the agent."""
    return f"stream://{identity}"


def late_name(identity: str) -> str:
    """How an id is named whose stream may be opened later, or never."""
    return f"late://{identity}"


def hello(identity: str) -> bytes:
    """What the host writes first. Raises InvalidArgument for an id that cannot be one."""
    printable = isinstance(identity, str) and identity.isprintable()  # no surrogate is
    encoded = identity.encode() if printable else b""
    if not 0 < len(encoded) <= MAX_ID:
        raise InvalidArgument(f"stream id {identity!r}: 1 to {MAX_ID} printable bytes are needed")
    return _LENGTH.pack(len(encoded)) + encoded


async def open_stream(dial: Dial, identity: str) -> socket.socket:
    """Open the stream ``identity`` and return its connected, non-blocking socket.

    Raises AlreadyExists when the guest refuses the id, Unavailable when it does not answer.
    """
    greeting = hello(identity)
    try:
        sock = await dial(STREAM_PORT, greeting)
    except ConnectionError as error:
        raise Unavailable(f"the guest takes no streams: {error}") from error
    except OSError as error:
        raise from_os_error(error, "no stream to the guest") from error
    try:
        answer = await _receive_answer(sock)
        if answer != identity:
            raise AlreadyExists(f"the guest refused stream {identity!r}: {answer}")
    except ConnectionError as error:
        sock.close()
        raise Unavailable(f"the guest left while stream {identity!r} was opened") from error
    except BaseException:
        sock.close()
        raise
    return sock


async def drain(sock: socket.socket, take: Taker) -> None:
    """Read a stream to its end, handing each piece to ``take``. A reset is an end too."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionResetError):
        while data := await loop.sock_recv(sock, READ_SIZE):
            if (taken := take(data)) is not None:
                await taken


async def collect(sock: socket.socket, limit: int) -> bytearray:
    """All that comes until the end of a stream. Raises ResourceExhausted for more than ``limit`` bytes."""
    received = bytearray()

    def take(data: bytes) -> None:
        if len(received) + len(data) > limit:
            raise ResourceExhausted(f"the guest sent more than the {limit >> 20} MiB that are kept of this")
        received.extend(data)

    await drain(sock, take)
    return received


async def feed(sock: socket.socket, data: bytes) -> None:
    """Write ``data`` and end our direction. A reader that leaves early is no error: it had enough."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await asyncio.get_running_loop().sock_sendall(sock, data)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)


async def _receive_answer(sock: socket.socket) -> str:
    (length,) = _LENGTH.unpack(await _receive_exactly(sock, _LENGTH.size))
    if length > MAX_REFUSAL:
        raise ProtocolError(f"the guest announced an answer of {length} bytes; {MAX_REFUSAL} are the most")
    return (await _receive_exactly(sock, length)).decode(errors="replace")


async def _receive_exactly(sock: socket.socket, length: int) -> bytes:
    """Read no byte more than asked: what follows belongs to the stream's user."""
    received = b""
    while len(received) < length:
        data = await asyncio.get_running_loop().sock_recv(sock, length - len(received))
        if not data:
            raise ConnectionResetError("the stream ended in its handshake")
        received += data
    return received
