"""Records as a tree of the host.

They come from a guest, which may be hostile. So nothing is reached by a path: each folder is opened by its name
within the one before, and no symbolic link is followed on the way.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from typing import BinaryIO

from sandbox_nb.errors import NotFound, ProtocolError
from sandbox_nb.files.failure import explain, printable
from sandbox_nb.files.info import AnyPath, Tally, mtime_ns
from sandbox_nb.files.records import MAX_DEPTH, read_entry, read_record
from sandbox_nb.guest.proto.files_pb2 import Entry

__all__ = ["TreeReceiver"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_HERE = b"."
"""Instead of a name: the folder that is there, which stays as it is but for its content."""

PERMISSIONS = 0o777
"""What is taken of a mode. A set-id bit would hand the caller's rights on the host to a program of the guest's."""


class TreeReceiver:
    """Receives one tree, in the calling thread. What is half-made when it fails is removed.

    ConnectionError says that the other side has left.
    """

    def __init__(self, source: BinaryIO, tally: Tally) -> None:
        self._source = source
        self._tally = tally
        self._target = b""
        self._trail: list[bytes] = []
        self._top = -1
        # Made under this name, renamed when whole: a file is there as it was or as it shall be.
        self._temporary = f".sandbox_nb-{secrets.token_hex(6)}".encode()

    def receive(self, target: AnyPath, name: bytes) -> str:
        """Put the tree at ``target``, or into it if that is a folder, and return where it is.

        There it is called ``name``, whatever the guest calls it, which may be a name of more weight on the host
        than the one that was asked for. With none the content alone goes into the folder.

        Raises NotFound, ResourceExhausted and others with the path that could not be made.
        """
        self._target = os.fsencode(target)
        try:
            return self._receive_top(name)
        except ConnectionError:
            raise
        except OSError as error:
            raise explain(error, b"/".join([self._target, *self._trail])) from error

    def _receive_top(self, name: bytes) -> str:
        entry = read_entry(self._source)
        if entry is None:
            raise ProtocolError("the guest sent an empty tree")
        folder, name = self._open_place(name)
        try:
            self._receive_node(folder, name, entry)
        finally:
            os.close(folder)
        return os.fsdecode(self._target)

    def _open_place(self, name: bytes) -> tuple[int, bytes]:
        """Open the folder for the tree, and return it with the name in it.

        As cp does: into a folder that is there, under the tree's own name; else it becomes what the path names.
        """
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if name:
                self._target = self._target.rstrip(b"/") + b"/" + name
            return folder, name or _HERE
        parent, _, last = self._target.rpartition(b"/")
        if last in (b"", b".", b".."):
            raise NotFound(f"{printable(self._target)} is not there")
        parent = parent or (b"/" if self._target.startswith(b"/") else b".")
        return os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), last

    def _receive_node(self, folder: int, name: bytes, entry: Entry) -> None:
        if stat.S_ISDIR(entry.mode):
            self._receive_folder(folder, name, entry)
            self._tally.folders += 1
        elif stat.S_ISLNK(entry.mode):
            self._receive_symlink(folder, name, entry)
            self._tally.links += 1
        elif not stat.S_ISREG(entry.mode):
            self._tally.skip(os.fsdecode(b"/".join(self._trail)))
        else:
            if entry.link:
                self._receive_link(folder, name, entry)
            else:
                self._receive_file(folder, name, entry)
            self._tally.files += 1

    def _receive_folder(self, parent: int, name: bytes, entry: Entry) -> None:
        if len(self._trail) > MAX_DEPTH:
            raise ProtocolError(f"the guest sent more than {MAX_DEPTH} folders that lie in each other")
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        folder = os.open(name, _FOLDER, dir_fd=parent)
        try:
            if self._top < 0:
                self._top = folder
            while (inner := read_entry(self._source)) is not None:
                if not inner.name:
                    raise ProtocolError("the guest sent an entry without a name")
                self._trail.append(inner.name)
                self._receive_node(folder, inner.name, inner)
                self._trail.pop()
            # Last: a folder that may not be written to must be filled, and filling it changes its time.
            if name != _HERE:
                self._set_attributes(folder, entry)
        finally:
            os.close(folder)

    def _receive_file(self, folder: int, name: bytes, entry: Entry) -> None:
        fd = os.open(self._temporary, _NEW, 0o600, dir_fd=folder)
        try:
            while piece := read_record(self._source):
                _write_all(fd, piece)
                self._tally.size += len(piece)
            self._set_attributes(fd, entry)
            self._place(folder, name)
        except BaseException:
            self._drop(folder)
            raise
        finally:
            os.close(fd)

    def _receive_symlink(self, folder: int, name: bytes, entry: Entry) -> None:
        os.symlink(entry.target, self._temporary, dir_fd=folder)
        self._place_or_drop(folder, name)
        times = (time.time_ns(), mtime_ns(entry))
        os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)

    def _receive_link(self, folder: int, name: bytes, entry: Entry) -> None:
        """Give a file that came before a further name."""
        *steps, first = entry.link.split(b"/")
        if self._top < 0:
            raise ProtocolError("the guest sent a further name of a file that is not in the tree")
        holder = os.dup(self._top)
        try:
            for step in steps:
                if step in (b"", b".", b".."):
                    raise ProtocolError(f"the guest sent {entry.link[:80]!r} as the place of a file in the tree")
                inner = os.open(step, _FOLDER, dir_fd=holder)
                os.close(holder)
                holder = inner
            os.link(first, self._temporary, src_dir_fd=holder, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(holder)
        self._place_or_drop(folder, name)
        # Between two names of one file a rename does nothing, and says that it went well.
        self._drop(folder)

    def _place_or_drop(self, folder: int, name: bytes) -> None:
        try:
            self._place(folder, name)
        except OSError:
            self._drop(folder)
            raise

    def _place(self, folder: int, name: bytes) -> None:
        os.rename(self._temporary, name, src_dir_fd=folder, dst_dir_fd=folder)

    def _drop(self, folder: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary, dir_fd=folder)

    def _set_attributes(self, fd: int, entry: Entry) -> None:
        os.fchmod(fd, entry.mode & PERMISSIONS)
        os.utime(fd, ns=(time.time_ns(), mtime_ns(entry)))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
