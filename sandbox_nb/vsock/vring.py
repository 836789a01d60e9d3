"""One queue as the front end describes it, message by message, until it can run."""

from __future__ import annotations

import mmap
import os
from _thread import allocate_lock
from typing import TYPE_CHECKING

from .loop import EDGE, READ
from .memory import Region
from .vhost_user import MemoryRegion, ProtocolError, VringAddress
from .virtqueue import Virtqueue, ring_sizes

if TYPE_CHECKING:
    from .loop import Loop
    from .memory import GuestMemory

_fence_lock = allocate_lock()
_fence_lock.acquire()


def fence() -> None:
    """A full memory barrier.

    Python has none of its own. Unlocking is a store-release and locking a load-acquire; in this order, on one
    location, no access moves across both, neither on x86 (where each is a locked instruction) nor on Arm.
    """
    _fence_lock.release()
    _fence_lock.acquire()


class EventFileError(Exception):
    """An event file cannot be written: it is none, or nobody ever reads it."""


class Vring:
    """What the front end has told of a queue so far. Its event files are ours to close."""

    __slots__ = ("_call", "_error", "_kick", "_loop", "address", "base", "enabled", "num")

    def __init__(self, loop: Loop) -> None:
        self.num = 0
        self.base = 0
        self.address: VringAddress | None = None
        self.enabled = False
        self._loop = loop
        self._kick: int | None = None
        self._call: int | None = None
        self._error: int | None = None

    @property
    def complete(self) -> bool:
        """Whether the queue can run."""
        return self._kick is not None and self.address is not None and self.enabled

    def set_kick(self, fd: int | None) -> None:
        """Where the driver notifies us. None stops the queue."""
        if self._kick is not None:
            self._loop.ignore(self._kick)
            os.close(self._kick)
        self._kick = fd
        if fd is not None:
            # Edge-triggered, so the counter need not be read. All a kick does is wake us: the rings tell the rest.
            self._loop.watch(fd, READ | EDGE, lambda _events: None)

    def set_call(self, fd: int | None) -> None:
        """Where we interrupt the driver; None if it polls."""
        if self._call is not None:
            os.close(self._call)
        self._call = fd

    def set_error(self, fd: int | None) -> None:
        """Where we tell the front end that the queue is broken."""
        if self._error is not None:
            os.close(self._error)
        self._error = fd

    def interrupt(self) -> None:
        """Interrupt the driver."""
        _signal(self._call)

    def report_error(self) -> None:
        """Tell the front end that the queue is broken."""
        _signal(self._error)

    def close(self) -> None:
        """Let go of all files."""
        self.set_kick(None)
        self.set_call(None)
        self.set_error(None)

    def queue(self, memory: GuestMemory, *, writable: bool, event_idx: bool) -> Virtqueue:
        """The running queue. MemoryFault or QueueError if it cannot be."""
        assert self.address
        desc, avail, used = ring_sizes(self.num)
        _, desc_address, used_address, avail_address = self.address
        return Virtqueue(
            self.num,
            memory.user_view(desc_address, desc),
            memory.user_view(avail_address, avail),
            memory.user_view(used_address, used),
            memory=memory,
            fence=fence,
            writable=writable,
            base=self.base,
            event_idx=event_idx,
        )


def _signal(fd: int | None) -> None:
    if fd is None:
        return
    try:
        os.eventfd_write(fd, 1)
    except OSError as error:
        raise EventFileError(error.strerror) from error


def map_region(region: MemoryRegion) -> Region:
    """Map from the file's beginning: an offset need not lie on a page of the file's own size (huge pages)."""
    try:
        mapped = mmap.mmap(
            region.fd, region.offset + region.size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE
        )
    except (OSError, ValueError, OverflowError) as error:
        raise ProtocolError(f"memory region of {region.size} bytes at {region.offset}: {error}") from error
    return Region(region.guest, region.user, memoryview(mapped)[region.offset :])
