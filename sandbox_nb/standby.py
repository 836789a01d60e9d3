"""Machines that stand by: brought to where their agent waits, and paused, for the next starts just like theirs.

They cost their memory and no processor time. A running sandbox that asked for them keeps them; they go with the
last such sandbox, with the process, and when memory gets short.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from sandbox_nb.errors import SandboxError

logger = logging.getLogger(__name__)

QUIET = 0.5
"""Seconds between a start and the making of the next machine: first commands need the processors."""

LOOK_AGAIN = 5.0
"""Seconds between two looks at the memory."""

RESERVE = 0.1
"""The share of the memory that machines standing by leave free."""


class Machine(Protocol):
    """What can stand by."""

    @property
    def alive(self) -> bool:
        """Whether it can be used."""

    async def close(self) -> None:
        """End it and all it stands on."""


M = TypeVar("M", bound=Machine)


class Shelf(Generic[M]):
    """Machines of one kind in one event loop. ``make`` makes one, which takes ``memory`` MiB."""

    def __init__(self, make: Callable[[], Awaitable[M]], memory: int) -> None:
        self._make = make
        self._memory = memory
        self._ready: deque[M] = deque()
        self._wanted: list[int] = []
        self._woken = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._ready)

    async def take(self) -> M | None:
        """A machine that stood by, which is the caller's now; None when there is none."""
        while self._ready:
            machine = self._ready.popleft()
            if machine.alive:
                return machine
            await machine.close()
        return None

    def want(self, number: int) -> None:
        """A sandbox is running that wants ``number`` machines to stand by. The largest number counts."""
        self._wanted.append(number)
        self._woken.set()
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name="standby")

    async def leave(self, number: int) -> None:
        """A sandbox that wanted ``number`` is no more. With the last all machines standing by end."""
        self._wanted.remove(number)
        if not self._wanted and self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None

    async def _keep(self) -> None:
        try:
            while True:
                self._woken.clear()
                await asyncio.sleep(QUIET)
                await self._fill()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN):
                        await self._woken.wait()
        except (SandboxError, OSError) as error:
            # The next start will meet the same, and tell.
            logger.warning("no machine stands by: %s", error)
        finally:
            await self._release()

    async def _fill(self) -> None:
        available, whole = memory_mib()
        if available < whole * RESERVE:
            await self._release()
        while len(self._ready) < max(self._wanted) and memory_mib()[0] - self._memory >= whole * RESERVE:
            self._ready.append(await self._make())

    async def _release(self) -> None:
        while self._ready:
            await self._ready.popleft().close()


_SHELVES: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Shelf[Any]]] = weakref.WeakKeyDictionary()


def shelf(kind: str, make: Callable[[], Awaitable[M]], memory: int) -> Shelf[M]:
    """The shelf for machines of this kind in the running event loop, to which machines belong."""
    shelves = _SHELVES.setdefault(asyncio.get_running_loop(), {})
    return shelves.setdefault(kind, Shelf(make, memory))


def ready() -> int:
    """How many machines stand by in this process."""
    return sum(len(one) for shelves in list(_SHELVES.values()) for one in list(shelves.values()))


def memory_mib(root: Path = Path("/")) -> tuple[int, int]:
    """The memory that is available, and the whole, in MiB: of the host, or of the control group that has less."""
    found = dict(line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
    host = [int(found[name].split()[0]) << 10 for name in ("MemAvailable", "MemTotal")]
    pairs = [(host[0], host[1])]
    for folder, limit, usage, cached in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        group = root / "sys/fs/cgroup" / folder
        try:
            whole, used = (int((group / name).read_text()) for name in (limit, usage))
            # What of it is a cache of files goes when memory is needed.
            cache = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            pairs.append((whole - used + int(cache[cached]), whole))
        except (OSError, ValueError, KeyError):  # no such controller, or no limit ("max")
            continue
    available, whole = min(pairs)
    return available >> 20, whole >> 20
