"""The device's side of a split virtqueue, over injected memory.

Virtio 1.2, section 2.7. The other side is the guest, so nothing here is trusted: whatever the rings hold, the
answer is buffers inside guest memory or a QueueError, in time bounded by the queue's size. Sans-IO.

Both vsock queues carry buffers of one direction, so a queue is created `writable` (the device fills its
buffers) or not, and a chain that holds the other kind is an error. Every chain taken is put back, in the
order taken.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from .memory import GuestMemory

NEXT = 1
WRITE = 2
INDIRECT = 4
"""Descriptor flags (2.7.5)."""

NO_INTERRUPT = 1
"""Flag of the available ring, set by the driver (2.7.7)."""
NO_NOTIFY = 1
"""Flag of the used ring, set by the device (2.7.10)."""

MAX_SIZE = 32768
"""Largest split queue (2.7)."""

DESCRIPTOR_SIZE = 16
_DESCRIPTOR = struct.Struct("<QIHH")
_unpack_descriptor = _DESCRIPTOR.unpack_from


class QueueError(Exception):
    """The driver broke a rule of the queue: the device must stop using it until it is reset."""


class Chain(NamedTuple):
    """One descriptor chain: the index to put back, and its buffers (each at least one byte) in order."""

    head: int
    buffers: list[memoryview]


def ring_sizes(size: int) -> tuple[int, int, int]:
    """Bytes of descriptor table, available ring and used ring for `size` entries, event words included."""
    return DESCRIPTOR_SIZE * size, 6 + 2 * size, 6 + 8 * size


class Virtqueue:
    """One split virtqueue. `desc`, `avail` and `used` are views of the sizes `ring_sizes` gives.

    `fence` is a full memory barrier: the driver runs on another processor at the same time.
    """

    __slots__ = (
        "_avail", "_avail_event", "_desc", "_event_idx", "_fence", "_mask", "_memory", "_next",
        "_signalled", "_used", "_used_elements", "_used_idx", "_wanted", "size",
    )  # fmt: skip

    def __init__(
        self,
        size: int,
        desc: memoryview,
        avail: memoryview,
        used: memoryview,
        *,
        memory: GuestMemory,
        fence: Callable[[], object],
        writable: bool,
        base: int = 0,
        event_idx: bool = False,
    ) -> None:
        if not 0 < size <= MAX_SIZE or size & (size - 1):
            raise QueueError(f"queue size {size} is not a power of two up to {MAX_SIZE}")
        self.size = size
        self._mask = size - 1
        self._desc = desc
        self._avail = avail.cast("H")
        self._used = used[:4].cast("H")
        self._used_elements = used[4 : 4 + 8 * size].cast("Q")
        self._avail_event = used[4 + 8 * size :].cast("H")
        self._memory = memory
        self._fence = fence
        self._wanted = WRITE if writable else 0
        self._event_idx = event_idx
        # Whoever served the queue before put back all it took, so one number places both rings.
        self._next = self._used_idx = self._signalled = base & 0xFFFF

    @property
    def base(self) -> int:
        """Where the next one to serve this queue begins: chains taken but not put back are taken again."""
        return self._used_idx

    def take(self, limit: int) -> list[Chain]:
        """Up to `limit` chains the driver has made available."""
        avail, mask, position = self._avail, self._mask, self._next
        pending = (avail[1] - position) & 0xFFFF
        if pending > self.size:
            raise QueueError(f"available index runs {pending} ahead in a queue of {self.size}")
        if not pending:
            return []
        self._fence()  # the index is read before the entries it announces
        if (
            not self._event_idx
        ):  # with EVENT_IDX, the wish of the last `want_kick` lies behind us and is none any more
            self._used[0] = NO_NOTIFY
        chains = []
        for position in range(position, position + min(limit, pending)):  # noqa: B020 (begins where it stands)
            head = avail[2 + (position & mask)]
            chains.append(Chain(head, self._buffers(head)))
        self._next = (position + 1) & 0xFFFF
        return chains

    def _buffers(self, index: int) -> list[memoryview]:
        table, count = self._desc, self.size
        if index >= count:
            raise QueueError(f"descriptor {index} in a queue of {count}")
        address, length, flags, _ = _unpack_descriptor(table, DESCRIPTOR_SIZE * index)
        if flags & INDIRECT:
            if flags & NEXT or length % DESCRIPTOR_SIZE or not length:
                raise QueueError(f"malformed indirect descriptor {index}: flags {flags:#x}, length {length}")
            count = length // DESCRIPTOR_SIZE
            if count > self.size:  # 2.7.5: no chain is longer than the queue
                raise QueueError(f"indirect table of {count} descriptors in a queue of {self.size}")
            table, index = self._memory.view(address, length), 0
        return self._walk(table, count, index)

    def _walk(self, table: memoryview, count: int, index: int) -> list[memoryview]:
        view, wanted, buffers = self._memory.view, self._wanted, []
        for _ in range(count):  # a longer walk has come round in a circle
            address, length, flags, follow = _unpack_descriptor(table, DESCRIPTOR_SIZE * index)
            if flags & (WRITE | INDIRECT) != wanted:
                kind = "writable" if wanted else "readable"
                raise QueueError(f"descriptor flags {flags:#x} where a {kind} buffer belongs")
            if length:
                buffers.append(view(address, length))
            if not flags & NEXT:
                return buffers
            index = follow
            if index >= count:
                raise QueueError(f"descriptor {index} in a table of {count}")
        raise QueueError(f"descriptor chain longer than its table of {count}")

    def put(self, head: int, written: int) -> None:
        """Put a chain back, `written` bytes of it filled. The driver sees it after `publish`."""
        self._used_elements[self._used_idx & self._mask] = head | written << 32
        self._used_idx = (self._used_idx + 1) & 0xFFFF

    def publish(self) -> None:
        """Show the driver all chains put back so far."""
        self._fence()  # the entries are written before the index that announces them
        self._used[1] = self._used_idx

    @property
    def unannounced(self) -> int:
        """Chains put back since `interrupt_due` was last asked."""
        return (self._used_idx - self._signalled) & 0xFFFF

    def interrupt_due(self) -> bool:
        """Whether the driver asked to be interrupted for what was published since the last call."""
        new, old = self._used_idx, self._signalled
        if new == old:
            return False
        self._signalled = new
        self._fence()  # the index is written before the driver's wish is read (2.7.10.1)
        if not self._event_idx:
            return not self._avail[0] & NO_INTERRUPT
        event = self._avail[2 + self.size]
        return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF

    def want_kick(self) -> bool:
        """Ask the driver to notify us of its next chain; True if one came before it could know: take it first.

        A wish holds for one chain: from then on we are looking anyway.
        """
        if self._event_idx:
            self._avail_event[0] = self._next
        else:
            self._used[0] = 0
        self._fence()  # the wish is written before the index is read (2.7.13.4.1)
        return self._avail[1] != self._next
