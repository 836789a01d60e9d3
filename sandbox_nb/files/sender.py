"""A tree of the host as records."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from sandbox_nb.errors import InvalidArgument, ResourceExhausted
from sandbox_nb.files.failure import explain, printable
from sandbox_nb.files.info import AnyPath, Tally
from sandbox_nb.files.records import LENGTH, MAX_DEPTH, RECORD_MAX, tree_name
from sandbox_nb.guest.proto.files_pb2 import Entry

__all__ = ["TreeSender"]

# No link of the tree is followed, and no device or pipe opened, even if it takes the place of a file meanwhile.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeSender:
    """Sends one tree, in the calling thread. Memory grows with the number of files of several names, and no other.

    ConnectionError says that the other side has left.
    """

    def __init__(self, out: BinaryIO, tally: Tally) -> None:
        self._out = out
        self._tally = tally
        self._buffer = bytearray(LENGTH.size + RECORD_MAX)
        self._trail: list[bytes] = []
        self._known: dict[tuple[int, int], bytes] = {}

    def send(self, source: AnyPath) -> None:
        """Send the tree at ``source``, which may be a link to it.

        Raises NotFound, InvalidArgument and others with the path that cannot be read.
        """
        path = os.fsencode(source)
        try:
            self._send_top(path)
            self._out.flush()
        except ConnectionError:
            raise
        except OSError as error:
            raise explain(error, b"/".join([path, *self._trail])) from error

    def _send_top(self, path: bytes) -> None:
        fd = os.open(path, _READ & ~os.O_NOFOLLOW)
        try:
            found = os.fstat(fd)
            entry = _entry(tree_name(path), found)
            if stat.S_ISDIR(found.st_mode):
                self._send_folder(fd, entry)
            elif stat.S_ISREG(found.st_mode):
                self._send_file(fd, entry)
            else:
                raise InvalidArgument(f"{printable(path)} is neither a file nor a folder")
        finally:
            os.close(fd)

    def _send_folder(self, fd: int, entry: Entry) -> None:
        if len(self._trail) > MAX_DEPTH:
            raise ResourceExhausted(f"{printable(self._path())}: more than {MAX_DEPTH} folders lie in each other")
        self._put(entry.SerializeToString())
        self._tally.folders += 1
        with os.scandir(fd) as names:
            for item in names:
                self._trail.append(os.fsencode(item.name))
                self._send_node(fd, self._trail[-1])
                self._trail.pop()
        self._put(b"")

    def _send_node(self, folder: int, name: bytes) -> None:
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                self._send_regular(folder, name, found)
            elif stat.S_ISLNK(found.st_mode):
                self._send_symlink(folder, name, found)
            elif stat.S_ISDIR(found.st_mode):
                fd = os.open(name, _READ | os.O_DIRECTORY, dir_fd=folder)
                try:
                    self._send_folder(fd, _entry(name, found))
                finally:
                    os.close(fd)
            else:
                self._tally.skip(os.fsdecode(self._path()))
        except FileNotFoundError:
            return  # gone while we were looking

    def _send_regular(self, folder: int, name: bytes, found: os.stat_result) -> None:
        entry = _entry(name, found)
        if found.st_nlink > 1 and (first := self._known.get((found.st_dev, found.st_ino))) is not None:
            entry.link = first
            self._put(entry.SerializeToString())
            self._tally.files += 1
            return
        fd = os.open(name, _READ, dir_fd=folder)
        try:
            opened = os.fstat(fd)
            if stat.S_ISREG(opened.st_mode):
                if opened.st_nlink > 1:
                    self._known[opened.st_dev, opened.st_ino] = self._path()
                self._send_file(fd, entry)
        finally:
            os.close(fd)

    def _send_symlink(self, folder: int, name: bytes, found: os.stat_result) -> None:
        entry = _entry(name, found)
        entry.target = os.readlink(name, dir_fd=folder)
        self._put(entry.SerializeToString())
        self._tally.links += 1

    def _send_file(self, fd: int, entry: Entry) -> None:
        """Send its content, however long it has become meanwhile."""
        self._put(entry.SerializeToString())
        view = memoryview(self._buffer)
        while length := os.readv(fd, [view[LENGTH.size :]]):
            LENGTH.pack_into(self._buffer, 0, length)
            self._out.write(view[: LENGTH.size + length])
            self._tally.size += length
        self._put(b"")
        self._tally.files += 1

    def _put(self, record: bytes) -> None:
        self._out.write(LENGTH.pack(len(record)) + record)

    def _path(self) -> bytes:
        """Where we are, counted from the top."""
        return b"/".join(self._trail)


def _entry(name: bytes, found: os.stat_result) -> Entry:
    seconds, nanos = divmod(found.st_mtime_ns, 1_000_000_000)
    return Entry(name=name, mode=found.st_mode, size=found.st_size, mtime=seconds, mtime_nanos=nanos)
