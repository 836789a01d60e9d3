"""The archive format of an initrd: cpio, "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).

Each entry is a header of 110 ASCII characters (the magic 070701 and thirteen numbers of eight hex digits), the
name with its closing NUL, and the content; name and content are each padded with NULs to a multiple of four. An
entry named ``TRAILER!!!`` ends the archive. Another archive may follow the first, and the kernel unpacks both.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterable

from sandbox_nb.guest.tree import Entry

__all__ = ["archive"]


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the archive of ``entries``, sorted by path, so that the same entries make the same bytes.

    Sorting also puts a directory before what is in it, which the kernel needs. All times are 0.
    """
    out = io.BytesIO()
    for inode, entry in enumerate(sorted(entries, key=lambda entry: entry.path), start=1):
        _append(out, entry, inode)
    _append(out, Entry("TRAILER!!!", 0), 0)
    return out.getvalue()


def _append(out: io.BytesIO, entry: Entry, inode: int) -> None:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # ino, mode, uid, gid, nlink, mtime, filesize, device (major, minor), rdev (major, minor), namesize, check
    numbers = (inode, entry.mode, entry.uid, entry.gid, links, 0, entry.size, 0, 0, 0, 0, len(name), 0)
    out.write(b"070701" + "".join(f"{number:08x}" for number in numbers).encode())
    out.write(name)
    _pad(out)
    entry.copy_to(out)
    _pad(out)


def _pad(out: io.BytesIO) -> None:
    out.write(bytes(-out.tell() % 4))
