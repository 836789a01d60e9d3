"""Folders that 9p can share with a machine, chosen while it runs.

QEMU takes a 9p folder (``-fsdev``) on its command line only. So every machine starts with a few whose path is a
symbolic link that leads nowhere; it is pointed at the folder when the device is plugged: QEMU opens it then.
"""

from __future__ import annotations

from pathlib import Path

from sandbox_nb.errors import ResourceExhausted

COUNT = 4
"""Slots of each kind, read-write and read-only. QEMU enforces the second."""


def names(*, readonly: bool) -> list[str]:
    """The names of the slots of a kind, of the links and in QEMU alike."""
    return [f"{'ro' if readonly else 'rw'}{index}" for index in range(COUNT)]


class Slots:
    """The slots of one machine; the links are in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free = {kind: names(readonly=kind) for kind in (False, True)}

    def take(self, target: Path, *, readonly: bool) -> str:
        """Point a slot at a folder and return its name. Raises ResourceExhausted when all are in use."""
        free = self._free[readonly]
        if not free:
            kind = "read-only" if readonly else "read-write"
            raise ResourceExhausted(
                f"{target}: {COUNT} {kind} folders shared through 9p are the most a machine takes"
            )
        (self._folder / free[0]).symlink_to(target)
        return free.pop(0)

    def release(self, name: str) -> None:
        """Let go of a slot. Its device is gone."""
        (self._folder / name).unlink(missing_ok=True)
        self._free[name.startswith("ro")].append(name)
