"""The streams of one guest: who they are, what room they were granted, and what has become of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .connection import Connection
from .handshake import LAST_PORT
from .stream import Stream

if TYPE_CHECKING:
    import socket

    from .loop import Loop

MAX_WINDOW = 1024 * 1024
MIN_WINDOW = 16 * 1024
WINDOW_BUDGET = 16 * 1024 * 1024
"""Room granted to the guest, in bytes: for a connection at most and at least, and the total where it is least.

It is also the most that is kept in memory when hosts do not read: the budget, and the least window for each
connection.
"""

FIRST_PORT = 1 << 30
"""Host ports of connections the host opens count up from here, clear of those the guest may be told to dial."""


class Table:
    """At most `limit` streams, those that only have bytes left to deliver included."""

    def __init__(self, loop: Loop, guest_cid: int, limit: int) -> None:
        self.streams: dict[tuple[int, int], Stream] = {}
        """By host port and guest port."""
        self.limit = limit
        self.counters = dict.fromkeys(
            ("opened_by_host", "opened_by_guest", "over_limit", "reset_by_us", "bytes_to_guest", "bytes_to_host"),
            0,
        )
        """What has happened since the device began; of bytes, those of streams that have ended."""
        self._loop = loop
        self._guest_cid = guest_cid
        self._lingering: set[Stream] = set()
        self._granted = 0
        self._next_port = FIRST_PORT

    def __len__(self) -> int:
        return len(self.streams) + len(self._lingering)

    def open(self, sock: socket.socket, guest_port: int, host_port: int | None = None) -> Stream:
        """A stream on `sock`, between these ports; by default from a host port not in use."""
        if host_port is None:
            host_port = self._free_port(guest_port)
        window = max(MIN_WINDOW, min(MAX_WINDOW, (WINDOW_BUDGET - self._granted) // 4))
        self._granted += window
        stream = Stream(sock, self._loop, Connection(self._guest_cid, host_port, guest_port, window))
        self.streams[host_port, guest_port] = stream
        return stream

    def _free_port(self, guest_port: int) -> int:
        while (self._next_port, guest_port) in self.streams:
            self._advance_port()
        port = self._next_port
        self._advance_port()
        return port

    def _advance_port(self) -> None:
        self._next_port = self._next_port + 1 if self._next_port < LAST_PORT else FIRST_PORT

    def release(self, stream: Stream) -> None:
        """The guest is done with a stream: its ports are free, its bytes may still have to be delivered.

        Until they are, they take the room it was granted: who comes again and again gets no more in all.
        """
        connection = stream.connection
        del self.streams[connection.host_port, connection.guest_port]
        self._lingering.add(stream)

    def forget(self, stream: Stream) -> None:
        """All is delivered that can be."""
        self._lingering.remove(stream)
        self._granted -= stream.connection.credit.buf_alloc
        self._loop.discard(stream.socket)
        self.counters["bytes_to_guest"] += stream.sent
        self.counters["bytes_to_host"] += stream.received

    def statistics(self) -> dict[str, Any]:
        """Counters, with the bytes of present streams included, and how each of these stands."""
        streams = [*self.streams.values(), *self._lingering]
        bytes_now = {
            "bytes_to_guest": self.counters["bytes_to_guest"] + sum(stream.sent for stream in streams),
            "bytes_to_host": self.counters["bytes_to_host"] + sum(stream.received for stream in streams),
        }
        standing = {"granted": self._granted, "limit": self.limit}
        return self.counters | bytes_now | standing | {"streams": [stream.statistics() for stream in streams]}
