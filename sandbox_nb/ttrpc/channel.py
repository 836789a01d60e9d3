"""The bytes of a connection to and from asyncio, the same for both ends.

Reads go through one buffer of the channel's own, as a fresh 256 KiB object for each read costs more than all the
rest of a small call. Writes made in one turn of the event loop leave in one system call.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

READ_SIZE: Final = 256 << 10
WRITE_SIZE: Final = 64 << 10
"""Bytes written in one turn of the loop after which the next writer has to wait for the turn's end."""


class Channel(asyncio.BufferedProtocol):
    """A connected transport. A subclass takes what is read, and learns of the end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._incoming = memoryview(bytearray(READ_SIZE))
        self._outgoing: list[bytes] = []
        self._outgoing_size = 0
        self._paused = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._queue = asyncio.Lock()  # whose waiters are served in the order they came
        self._waiting = 0
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
        """Let writers wait: the peer does not keep up (called by asyncio)."""
        self._paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let writers go on (called by asyncio)."""
        self._paused = False
        if self._outgoing_size <= WRITE_SIZE:
            self._writable.set()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Note the end (called by asyncio)."""
        self._transport = None
        self._flush()
        self._writable.set()
        self._lost.set()

    @property
    def is_free(self) -> bool:
        """Whether `wait_turn` would return at once."""
        return not self._waiting and self._writable.is_set()

    async def wait_turn(self) -> None:
        """Wait until there is room for one more message, or the connection has ended.

        Writers wait in the order they came, so that one with much to say does not starve the others; and each turn
        of the loop has room for `WRITE_SIZE` only, so that one whose peer keeps up does not starve the loop.
        """
        if self.is_free:
            return
        self._waiting += 1
        try:
            async with self._queue:
                await self._writable.wait()
        finally:
            self._waiting -= 1

    def write(self, data: bytes) -> None:
        """Write, after what was written before, at the end of this turn of the loop. Never waits."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)
        self._outgoing_size += len(data)
        if self._outgoing_size > WRITE_SIZE:
            self._writable.clear()

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
        if not self._paused:
            self._writable.set()

    def unsent(self) -> int:
        """Return how many bytes were written that the system has not taken."""
        buffered = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._outgoing_size + buffered

    def disconnect(self) -> None:
        """End the connection once the peer has taken what was written."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_lost(self) -> None:
        """Wait until the connection has ended, from whichever side."""
        await self._lost.wait()
