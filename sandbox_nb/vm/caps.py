"""What a machine may take of its host, and who holds it to that.

A guest has the memory and the processors it was given, but QEMU and what works beside it take more than that: code
translated for the guest, queues, threads. Three can hold all of it to a limit, and the first that is there does:

1. a **control group** of the machine's own, where we may make one. It costs a millisecond, so a machine is in one
   also when nobody asked for a cap, with room for what was ever seen to be needed.
2. **systemd**, where only it may: a slice, in it a scope for each process. It costs a few hundredths of a second,
   so it is asked only when the user asked for a cap.
3. **limits of each process** (getrlimit(2), sched_setaffinity(2)). The guest's memory is a file of a fixed size,
   and RLIMIT_DATA holds what each process has beside it. RLIMIT_AS would count address space that nobody uses,
   64 MiB for every thread that allocates. Processors are held by number; parts of one cannot be.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandbox_nb.errors import FailedPrecondition
from sandbox_nb.options import HOST_OVERHEAD
from sandbox_nb.vm import cgroup, systemd

logger = logging.getLogger(__name__)

SPARE_TASKS = 512
"""Threads a machine may have beside one for each processor. QEMU works on disks and shares with 64 each."""

MIB = 1 << 20

_SHORT_OF_MEMORY = re.compile(
    "cannot allocate memory|failed to allocate|out of memory|MemoryError|failed to map segment"
    "|Resource temporarily unavailable",
    re.IGNORECASE,
)
"""What programs say that the limit of a process keeps from memory, or from a thread's stack."""


@dataclass(frozen=True)
class Caps:
    """What a machine may take of its host. ``guest`` is the memory it has, ``processors`` how many.

    ``memory`` is the most that it and all that works for it may take, in MiB, and ``cpus`` the processors they may
    keep busy, as 1.5; None: the user did not say.
    """

    guest: int
    processors: int = 1
    memory: int | None = None
    cpus: float | None = None

    @property
    def asked(self) -> bool:
        """Whether the user wants any."""
        return self.memory is not None or self.cpus is not None

    @property
    def memory_mib(self) -> int:
        """The most memory in MiB, also when the user did not say."""
        return self.guest + HOST_OVERHEAD if self.memory is None else self.memory

    @property
    def tasks(self) -> int:
        """The most threads."""
        return self.processors + SPARE_TASKS

    def __str__(self) -> str:
        """As the user says it, without what he did not."""
        said = {"host_memory": self.memory, "host_cpus": self.cpus}
        return ", ".join(f"{name}={value:g}" for name, value in said.items() if value is not None)


class Confinement(Protocol):
    """Who holds a machine to its caps. ``close`` it when all processes have ended."""

    @property
    def how(self) -> str:
        """What is held, and by what, in words; empty when nothing is."""

    @property
    def prefix(self) -> Sequence[str]:
        """What stands before the guard in a command."""

    @property
    def guard_flags(self) -> Sequence[str]:
        """What the guard is told."""

    async def limit_memory(self, elsewhere: int) -> None:
        """Let the memory be limited from now on; ``elsewhere`` bytes of the guest's are somebody else's already.

        Memory is counted where it is first touched, and a saved machine's is filled by us.
        """

    async def reached(self, log: str) -> str:
        """The cap that ended a process whose last words are ``log``, in words; empty when none did."""

    async def close(self) -> None:
        """Let go of it. Idempotent."""


class Unconfined:
    """Nobody holds it to anything."""

    how = ""
    prefix: Sequence[str] = ()
    guard_flags: Sequence[str] = ()

    async def limit_memory(self, elsewhere: int) -> None:
        """See Confinement."""

    async def reached(self, log: str) -> str:
        """See Confinement."""
        return ""

    async def close(self) -> None:
        """See Confinement."""


UNCONFINED = Unconfined()


class ByGroup:
    """By a control group of its own."""

    prefix: Sequence[str] = ()

    def __init__(self, caps: Caps, group: cgroup.Group) -> None:
        """Raises OSError."""
        self._caps = caps
        self._group = group
        group.limit_tasks(caps.tasks)
        if caps.cpus is not None:
            group.limit_cpus(caps.cpus)

    @property
    def how(self) -> str:
        """See Confinement."""
        return f"{_words(self._caps)}, by a control group (version {self._group.version})"

    @property
    def guard_flags(self) -> Sequence[str]:
        """See Confinement."""
        return self._group.guard_flags

    async def limit_memory(self, elsewhere: int) -> None:
        """See Confinement."""
        self._group.limit_memory(self._caps.memory_mib * MIB - elsewhere)

    async def reached(self, log: str) -> str:
        """See Confinement."""
        return _too_much(self._caps) if self._group.ran_out_of_memory() else ""

    async def close(self) -> None:
        """See Confinement."""
        await self._group.close()


class BySystemd:
    """By a slice of systemd's."""

    guard_flags: Sequence[str] = ()

    def __init__(self, caps: Caps, manager: systemd.Manager, name: str) -> None:
        self._caps = caps
        self._manager = manager
        self._slice = systemd.slice_for(manager, name)

    async def begin(self) -> None:
        """Have the slice know its limits but that of memory. Raises FailedPrecondition."""
        quota = {} if self._caps.cpus is None else {"CPUQuota": f"{self._caps.cpus * 100:g}%"}
        await asyncio.to_thread(systemd.sweep, self._manager)
        await asyncio.to_thread(self._slice.limit, TasksMax=str(self._caps.tasks), **quota)

    @property
    def how(self) -> str:
        """See Confinement."""
        return f"{_words(self._caps)}, by a slice of {self._manager}"

    @property
    def prefix(self) -> Sequence[str]:
        """See Confinement."""
        return self._slice.prefix

    async def limit_memory(self, elsewhere: int) -> None:
        """See Confinement."""
        size = str(self._caps.memory_mib * MIB - elsewhere)
        await asyncio.to_thread(self._slice.limit, MemoryMax=size, MemorySwapMax=size)

    async def reached(self, log: str) -> str:
        """See Confinement."""
        return _too_much(self._caps) if await asyncio.to_thread(self._slice.ran_out_of_memory) else ""

    async def close(self) -> None:
        """See Confinement."""
        await asyncio.to_thread(self._slice.close)


class ByLimits:
    """By the limits of each process."""

    prefix: Sequence[str] = ()

    def __init__(self, caps: Caps) -> None:
        """Raises FailedPrecondition for a part of a processor, which no such limit holds."""
        self._caps = caps
        self._processors: list[int] = []
        if caps.cpus is not None:
            self._processors = _some_processors(caps.cpus)

    @property
    def how(self) -> str:
        """See Confinement."""
        held = []
        if self._caps.memory is not None:
            held.append(f"{self._data_mib} MiB for each process beside the guest's {self._caps.guest}")
        if self._processors:
            held.append(f"processor {', '.join(map(str, self._processors))} alone")
        return f"{' and '.join(held)}, by limits of each process"

    @property
    def guard_flags(self) -> Sequence[str]:
        """See Confinement."""
        data = [] if self._caps.memory is None else ["--data", str(self._data_mib * MIB)]
        return [*data, *(word for number in self._processors for word in ("--processor", str(number)))]

    async def limit_memory(self, elsewhere: int) -> None:
        """See Confinement. The guest's memory is no part of what is limited here."""

    async def reached(self, log: str) -> str:
        """See Confinement."""
        if self._caps.memory is None or not _SHORT_OF_MEMORY.search(log):
            return ""
        return (
            f"{_too_much(self._caps)}; where each process is limited by itself, 512 MiB beside the guest's "
            "were enough for one emulated processor, and 1024 for four"
        )

    async def close(self) -> None:
        """See Confinement."""

    @property
    def _data_mib(self) -> int:
        return self._caps.memory_mib - self._caps.guest


async def confine(caps: Caps, name: str, root: Path = Path("/")) -> Confinement:
    """Have somebody hold the machine whose run folder is ``name`` to its caps.

    ``root`` is the host's file system. Raises FailedPrecondition when nobody can hold what was asked for.
    """
    if (place := cgroup.place(root)) is not None:
        try:
            return _by_group(caps, cgroup.make(place, name, cpu=caps.cpus is not None))
        except OSError as error:
            logger.warning("no control group in %s: %s", place, error)
    if not caps.asked:
        return Unconfined()
    if (manager := systemd.manager(root)) is not None:
        confinement = BySystemd(caps, manager, name)
        try:
            await confinement.begin()
            return confinement
        except FailedPrecondition as error:
            await confinement.close()
            logger.warning("no slice of %s: %s", manager, error)
    return ByLimits(caps)


def who(root: Path = Path("/")) -> tuple[str, bool]:
    """Who would hold a machine to its caps, in words, and whether also when nobody asks."""
    if (place := cgroup.place(root)) is not None:
        return f"a control group in {place}", True
    if (manager := systemd.manager(root)) is not None:
        return f"a slice of {manager}", False
    return "limits of each process", False


def leftovers(root: Path = Path("/")) -> list[Path]:
    """What holds machines of processes that are gone."""
    place, manager = cgroup.place(root), systemd.manager(root)
    groups = [] if place is None else cgroup.leftovers(place)
    return groups + ([] if manager is None else systemd.leftovers(manager))


def sweep(root: Path = Path("/")) -> None:
    """Remove ``leftovers``. Blocks."""
    if (place := cgroup.place(root)) is not None:
        cgroup.sweep(place)
    if (manager := systemd.manager(root)) is not None:
        systemd.sweep(manager)


def _by_group(caps: Caps, group: cgroup.Group) -> ByGroup:
    try:
        return ByGroup(caps, group)
    except OSError:
        group.remove()
        raise


def _some_processors(cpus: float) -> list[int]:
    """So many of those we may use, at random, for others to have others; none where we may use no more anyway."""
    if cpus != int(cpus):
        raise FailedPrecondition(
            f"host_cpus={cpus:g}: only whole processors can be held here, for want of a control group that may be "
            "written to, or of systemd; give a whole number, or none"
        )
    usable = sorted(os.sched_getaffinity(0))
    return sorted(random.sample(usable, int(cpus))) if cpus < len(usable) else []


def _words(caps: Caps) -> str:
    cpus = "" if caps.cpus is None else f", {caps.cpus:g} {'processor' if caps.cpus == 1 else 'processors'}"
    return f"{caps.memory_mib} MiB{cpus}"


def _too_much(caps: Caps) -> str:
    given = "" if caps.memory is not None else ", which is the default"
    return (
        f"the machine wanted more of the host than host_memory={caps.memory_mib} MiB{given} "
        f"for a guest of {caps.guest} MiB and all that works for it: give more"
    )
