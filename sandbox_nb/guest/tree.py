"""Files, directories and links of a file system that is about to be written, wherever their content is now."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["Entry", "directory", "file", "symlink", "walk"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symbolic link.

    ``path`` is relative to the root, which is ``.``; ``mode`` as in stat(2), its file type included.
    ``content`` is a file's content or the path of a file that has it, or a link's target.
    """

    path: str
    mode: int
    content: bytes | Path = b""
    uid: int = 0
    gid: int = 0

    @property
    def size(self) -> int:
        """How many bytes ``content`` has."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def copy_to(self, sink: IO[bytes]) -> None:
        """Write the content to ``sink``."""
        if isinstance(self.content, bytes):
            sink.write(self.content)
        else:
            with self.content.open("rb") as source:
                shutil.copyfileobj(source, sink, 1 << 20)


def directory(path: str, mode: int = 0o755, owner: int = 0) -> Entry:
    """Return a directory's entry; ``owner`` is both its uid and its gid."""
    return Entry(path, stat.S_IFDIR | mode, uid=owner, gid=owner)


def file(path: str, content: bytes | str, mode: int = 0o644) -> Entry:
    """Return a regular file's entry."""
    return Entry(path, stat.S_IFREG | mode, content.encode() if isinstance(content, str) else content)


def symlink(path: str, target: str) -> Entry:
    """Return a symbolic link's entry."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def walk(folder: Path, *, keep_owners: bool) -> Iterator[Entry]:
    """Yield what is below ``folder``; sockets, pipes and devices are left out, and all is root's unless told."""
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content: bytes | Path = b""
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            content = path
        elif not stat.S_ISDIR(status.st_mode):
            continue
        uid, gid = (status.st_uid, status.st_gid) if keep_owners else (0, 0)
        yield Entry(path.relative_to(folder).as_posix(), status.st_mode, content, uid, gid)
