"""Packets in descriptor chains: the receive queue as places to put them, the transmit queue as packets. Sans-IO.

Virtio leaves the framing to the driver (2.7.4.1): Linux put a packet's header into a buffer of its own until
6.2 and in front of the payload since. Payload is not copied here: it is handed on as views of guest memory.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from .packet import HEADER_SIZE, Header, unpack
from .virtqueue import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .trace import Tap
    from .virtqueue import Chain, Virtqueue

BATCH = 64
"""Chains taken from a queue at once: many enough to share the costs, few enough to share the guest's processor."""

MAX_VIEWS = 1024
"""Buffers one system call takes (Linux's IOV_MAX)."""


class Slot(NamedTuple):
    """One receive buffer: where a header goes, and where up to `room` bytes of payload go after it."""

    head: int
    header: list[memoryview]
    payload: list[memoryview]
    room: int


def split(buffers: list[memoryview], size: int) -> tuple[list[memoryview], list[memoryview]]:
    """The first `size` bytes of `buffers`, and the rest; QueueError if there are fewer."""
    if buffers and len(buffers[0]) == size:
        return buffers[:1], buffers[1:]
    first: list[memoryview] = []
    for position, buffer in enumerate(buffers):
        if size <= len(buffer):
            rest = buffers[position + 1 :]
            if size < len(buffer):
                rest.insert(0, buffer[size:])
            first.append(buffer[:size])
            return first, rest
        first.append(buffer)
        size -= len(buffer)
    raise QueueError(f"descriptor chain {size} bytes short")


def scatter(data: bytes, views: list[memoryview]) -> None:
    """Copy `data` into `views`, which together are as long."""
    if len(views) == 1:
        views[0][:] = data
        return
    position = 0
    for view in views:
        view[:] = data[position : position + len(view)]
        position += len(view)


def parse(chain: Chain) -> tuple[Header, list[memoryview]]:
    """The packet in a chain of the transmit queue: its header, read once, and its payload, exactly `len` bytes."""
    first, payload = split(chain.buffers, HEADER_SIZE)
    header = unpack(first[0] if len(first) == 1 else b"".join(first))
    size = sum(map(len, payload))
    if size != header.len:
        if size < header.len:
            raise QueueError(f"packet of {header.len} bytes in a chain with room for {size}")
        payload, _ = split(payload, header.len)
    return header, payload


class Inbox:
    """The guest's receive queue: packets go in, in order, as long as the guest has given buffers for them."""

    def __init__(self, queue: Virtqueue, tap: Tap) -> None:
        self.queue = queue
        self._tap = tap
        self._slots: deque[Slot] = deque()

    def _refill(self) -> bool:
        for head, buffers in self.queue.take(BATCH - len(self._slots)):
            header, payload = split(buffers, HEADER_SIZE)
            if not payload:
                raise QueueError("receive buffer with no room for payload")
            self._slots.append(Slot(head, header, payload, sum(map(len, payload))))
        return bool(self._slots)

    def ready(self) -> bool:
        """Whether there is a buffer now."""
        return bool(self._slots) or self._refill()

    def put(self, header: Header) -> bool:
        """Send a packet without payload; False if there is no buffer for it now."""
        if not self.ready():
            return False
        slot = self._slots.popleft()
        packed = header.pack()
        scatter(packed, slot.header)
        self.queue.put(slot.head, HEADER_SIZE)
        if self._tap.on_packet:
            self._tap.on_packet(packed, [])
        return True

    def offer(self, limit: int) -> list[memoryview]:
        """Room for up to `limit` bytes of payload, in the guest's next buffers; empty if there are none now."""
        if len(self._slots) < BATCH // 2:
            self._refill()
        views: list[memoryview] = []
        for slot in self._slots:
            if slot.room >= limit:
                views += slot.payload if slot.room == limit else split(slot.payload, limit)[0]
                break
            views += slot.payload
            limit -= slot.room
        return views[:MAX_VIEWS]

    def commit(self, size: int, header: Callable[[int], bytes]) -> int:
        """Send the first `size` bytes of the room offered, now filled; how many packets they are.

        `header` packs a header for a length.
        """
        slots, put = self._slots, self.queue.put
        packed, length, packets = b"", -1, 0
        while size > 0:
            head, place, payload, room = slots.popleft()
            if room > size:
                room = size
            if room != length:
                packed, length = header(room), room
            scatter(packed, place)
            put(head, HEADER_SIZE + room)
            size -= room
            packets += 1
            if self._tap.on_packet:
                self._tap.on_packet(packed, split(payload, room)[0])
        return packets
