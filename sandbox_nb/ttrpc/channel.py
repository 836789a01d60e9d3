"""The bytes of a connection to and from asyncio, the same for both ends.

Reads go through one buffer of the channel's own, as a fresh 256 KiB object for each read costs more than all the
rest of a small call. Writes made in one turn of the event loop leave in one system call.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

READ_SIZE: Final = 256 << 10
WRITE_SIZE: Final = 64 << 10
"""Bytes collected before they are handed on without waiting for the end of the turn."""


class Channel(asyncio.BufferedProtocol):
    """A connected transport. A subclass takes what is read, and learns of the end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._incoming = memoryview(bytearray(READ_SIZE))
        self._outgoing: list[bytes] = []
        self._outgoing_size = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()

    def receive_data(self, data: memoryview) -> None:
        """Take what was read. The memory is used again after this returns."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (called by asyncio)."""
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return the memory to read into (called by asyncio)."""
        return self._incoming

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read (called by asyncio)."""
        self.receive_data(self._incoming[:nbytes])

    def pause_writing(self) -> None:
        """Make `drain` wait: the peer does not keep up (called by asyncio)."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let `drain` go on (called by asyncio)."""
        self._writable.set()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Note the end (called by asyncio)."""
        self._outgoing.clear()
        self._transport = None
        self._writable.set()
        self._lost.set()

    @property
    def is_writable(self) -> bool:
        """Whether `drain` would return at once."""
        return self._writable.is_set()

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was written, or is gone."""
        await self._writable.wait()

    def write(self, data: bytes) -> None:
        """Write, after what was written before, by the end of this turn of the loop. Never waits."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)
        self._outgoing_size += len(data)
        if self._outgoing_size > WRITE_SIZE:
            self._flush()

    def write_now(self, data: bytes) -> None:
        """Write as `write` does, without waiting for others that could go along."""
        if self._outgoing or self._transport is None:
            self.write(data)
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        if self._transport is not None and self._outgoing:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()
        self._outgoing_size = 0

    def disconnect(self) -> None:
        """Hand on what was written, then end the connection, without waiting for a peer that does not read."""
        self._flush()
        if self._transport is not None:
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self._transport.abort()

    async def wait_lost(self) -> None:
        """Wait until the connection has ended, from whichever side."""
        await self._lost.wait()
