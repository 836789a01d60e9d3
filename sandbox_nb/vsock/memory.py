"""Guest memory as the front end describes it: regions with two addresses each. Sans-IO: the bytes are injected."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class MemoryFault(Exception):
    """An address range that does not lie inside one region."""


class Region(NamedTuple):
    """`len(view)` bytes of memory at `guest` (guest-physical) and `user` (the front end's own virtual address)."""

    guest: int
    user: int
    view: memoryview


class GuestMemory:
    """Looks ranges up: of buffers by guest-physical address, of rings by the front end's virtual address.

    A range across two regions is a fault even where they touch: a guest's allocator hands out no such buffer.
    """

    __slots__ = ("_guest", "_user")

    def __init__(self, regions: Iterable[Region] = ()) -> None:
        # The largest first: nearly every lookup ends at the first comparison.
        ordered = sorted(regions, key=lambda region: -len(region.view))
        self._guest = [(r.guest, r.guest + len(r.view), r.view) for r in ordered]
        self._user = [(r.user, r.user + len(r.view), r.view) for r in ordered]

    def view(self, address: int, size: int) -> memoryview:
        """The `size` bytes at guest-physical `address`."""
        end = address + size
        for first, last, view in self._guest:
            if first <= address and end <= last:
                return view[address - first : end - first]
        raise MemoryFault(f"guest-physical range {address:#x}+{size:#x} is not in one memory region")

    def user_view(self, address: int, size: int) -> memoryview:
        """The `size` bytes at the front end's virtual `address`."""
        end = address + size
        for first, last, view in self._user:
            if first <= address and end <= last:
                return view[address - first : end - first]
        raise MemoryFault(f"ring address {address:#x}+{size:#x} is not in one memory region")
