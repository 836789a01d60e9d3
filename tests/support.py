"""What several test modules need."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sandbox_nb import bringup


def descendants(pid: int) -> set[int]:
    """The children of a process, whichever of its threads started them, and theirs."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found |= {child} | descendants(child)
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still run; a zombie does not."""
    found = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            continue
        if state != "Z":
            found.add(pid)
    return found


@contextlib.contextmanager
def qemu_as_who_we_are():
    """Have root's QEMU stay root's, for folders shared through 9p later: the guest gets its rights to them."""
    before, bringup._user = bringup._user, lambda *_: None
    try:
        yield
    finally:
        bringup._user = before
