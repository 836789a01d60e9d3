"""The archive format of an initrd: cpio, "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).

Each entry is a header of 110 ASCII characters (the magic 070701 and thirteen numbers of eight hex digits), the
name with its closing NUL, and the data; name and data are each padded with NULs to a multiple of four. An entry
named ``TRAILER!!!`` ends the archive. Another archive may follow the first, and the kernel unpacks both.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Entry", "archive", "directory", "file", "symlink"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symbolic link; ``data`` is the file's content or the link's target.

    ``path`` is relative to the root, ``mode`` as in stat(2), its file type included.
    """

    path: str
    mode: int
    data: bytes = b""
    uid: int = 0
    gid: int = 0


def directory(path: str, mode: int = 0o755, owner: int = 0) -> Entry:
    """Return a directory's entry; ``owner`` is both its uid and its gid."""
    return Entry(path, stat.S_IFDIR | mode, uid=owner, gid=owner)


def file(path: str, data: bytes | str, mode: int = 0o644) -> Entry:
    """Return a regular file's entry."""
    return Entry(path, stat.S_IFREG | mode, data.encode() if isinstance(data, str) else data)


def symlink(path: str, target: str) -> Entry:
    """Return a symbolic link's entry."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the archive of ``entries``, sorted by path, so that the same entries make the same bytes.

    Sorting also puts a directory before what is in it, which the kernel needs. All times are 0.
    """
    out = bytearray()
    for number, entry in enumerate(sorted(entries, key=lambda entry: entry.path), start=1):
        _append(out, entry, number)
    _append(out, Entry("TRAILER!!!", 0), 0)
    return bytes(out)


def _append(out: bytearray, entry: Entry, inode: int) -> None:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # ino, mode, uid, gid, nlink, mtime, filesize, device (major, minor), rdev (major, minor), namesize, check
    numbers = (inode, entry.mode, entry.uid, entry.gid, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    out += b"070701" + "".join(f"{number:08x}" for number in numbers).encode()
    out += name
    _pad(out)
    out += entry.data
    _pad(out)


def _pad(out: bytearray) -> None:
    out += bytes(-len(out) % 4)
