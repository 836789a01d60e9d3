"""What is known of a file, and what was copied."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox_nb.guest.proto.files_pb2 import Entry

__all__ = ["AnyPath", "Copied", "CopyProgress", "FileInfo", "Tally"]

MAX_SKIPPED = 1000
"""Names kept of what was left out."""

AnyPath = str | bytes | os.PathLike[str]

CopyProgress = Callable[[int, int], None]
"""Called as a copy goes on, with the bytes and the files copied so far."""


@dataclass(frozen=True)
class FileInfo:
    """A file, folder or link of the guest. Bytes of a name that are not UTF-8 are surrogates, as in ``os``."""

    name: str
    mode: int
    """As ``st_mode``: the kind and the permission bits."""
    size: int
    """In bytes."""
    mtime_ns: int
    """When it was last modified, in nanoseconds since 1970, by the guest's clock."""
    uid: int
    gid: int
    target: str = ""
    """Where a symbolic link points to."""

    @classmethod
    def of(cls, entry: Entry) -> FileInfo:
        """Read the agent's message."""
        return cls(
            os.fsdecode(entry.name),
            entry.mode,
            entry.size,
            mtime_ns(entry),
            entry.uid,
            entry.gid,
            os.fsdecode(entry.target),
        )

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)


@dataclass(frozen=True)
class Copied:
    """What a copy came to."""

    path: str
    """Where it is."""
    files: int
    folders: int
    links: int
    """Symbolic ones. A further name of a file counts as a file."""
    size: int
    """Bytes of the files' content."""
    skipped: tuple[str, ...] = ()
    """Devices, sockets and pipes, which are not copied: their paths below the top, the first 1000."""


@dataclass
class Tally:
    """What was copied so far; counted in one thread and read in another."""

    files: int = 0
    folders: int = 0
    links: int = 0
    size: int = 0
    skipped: list[str] = field(default_factory=list)

    def skip(self, path: str) -> None:
        """Count what is left out."""
        if len(self.skipped) < MAX_SKIPPED:
            self.skipped.append(path)

    def result(self, path: str) -> Copied:
        """Sum up."""
        return Copied(path, self.files, self.folders, self.links, self.size, tuple(self.skipped))


def mtime_ns(entry: Entry) -> int:
    """When it was last modified, in nanoseconds since 1970."""
    return int(entry.mtime) * 1_000_000_000 + int(entry.mtime_nanos)
