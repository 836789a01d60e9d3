"""The last of a byte stream, every byte known by its number.

A byte's number is the count of the bytes before it since the stream began. Whoever has seen all bytes below
``n`` says ``n``, and gets the rest once, whatever was lost, doubled or sent to somebody else in between.
"""

from __future__ import annotations

LINE_SEARCH = 4096
"""Bytes in which the first line's start is looked for, once the true beginning is forgotten."""


class Ring:
    """Keeps the last ``limit`` bytes of a stream.

    ``start`` and ``end`` number the first byte kept and the byte that will come next.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.end = 0
        self._bytes = bytearray()

    @property
    def start(self) -> int:
        return self.end - len(self._bytes)

    def append(self, data: bytes) -> None:
        """Add ``data``, forgetting the oldest bytes beyond the limit."""
        self._bytes += data
        self.end += len(data)
        if len(self._bytes) > self.limit:
            del self._bytes[: -self.limit]

    def read(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from number ``at`` on. Bytes that are forgotten cannot be read: ``at >= start``."""
        begin = at - self.start
        return bytes(self._bytes[begin : begin + size])

    def resume(self, at: int) -> int:
        """Where a reader who has seen everything below ``at`` goes on.

        ``at`` itself when it is still kept. Else the first line that is kept whole, lest reading begin in the
        middle of a character or an escape sequence.
        """
        if at >= self.start:
            return min(at, self.end)
        newline = self._bytes.find(b"\n", 0, LINE_SEARCH)
        return self.start + newline + 1
