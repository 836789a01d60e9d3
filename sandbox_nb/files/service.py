"""The verbs on files and folders of the guest."""

from __future__ import annotations

import asyncio
import io
import os
import posixpath
import socket
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, BinaryIO, TypeVar, cast

from sandbox_nb import streams
from sandbox_nb.encoding import guest_bytes, guest_data
from sandbox_nb.errors import InvalidArgument, ProtocolError
from sandbox_nb.files.info import AnyPath, Copied, CopyProgress, FileInfo, Tally
from sandbox_nb.files.receiver import TreeReceiver
from sandbox_nb.files.records import RECORD_MAX, read_entry, tree_name
from sandbox_nb.files.sender import TreeSender
from sandbox_nb.files.transfer import carry
from sandbox_nb.guest.proto.files_pb2 import (
    ListRequest,
    MkdirRequest,
    PackRequest,
    ReadRequest,
    RemoveRequest,
    StatRequest,
    UnpackRequest,
    WriteRequest,
)
from sandbox_nb.guest.proto.files_ttrpc import FilesClient
from sandbox_nb.host import check_progress

__all__ = ["Files"]

NewStream = Callable[[], AbstractAsyncContextManager[tuple[str, socket.socket]]]
"""Opens a new stream for a block: its name for the agent, and its connected, non-blocking socket."""

READ_MAX = 1 << 30
"""Bytes of a file that is read into memory, at most. A larger one can be copied."""

LIST_MAX = 64 << 20
"""Bytes of a folder's list, at most: some hundred thousand names."""

T = TypeVar("T")

MODE_MAX = 0o7777
"""All permission bits, with set-id and sticky."""


class Files:
    """The files of one machine. ``AsyncSandbox`` describes the verbs of the same names."""

    def __init__(self, service: FilesClient, stream: NewStream) -> None:
        self._service = service
        self._stream = stream

    async def read(self, path: AnyPath) -> bytes:
        """The bytes of a file."""
        async with self._stream() as (name, sock):
            call = asyncio.create_task(self._service.read(ReadRequest(path=_path("path", path), stream=name)))
            data = await _beside(call, streams.collect(sock, READ_MAX))
            if len(data) != (sent := call.result().size):
                raise ProtocolError(f"{os.fspath(path)!r}: the guest sent {sent} bytes, {len(data)} arrived")
            return bytes(data)

    async def write(self, path: AnyPath, data: bytes | str, *, mode: int = 0) -> None:
        """Make a file, or replace its content, all at once."""
        payload = guest_data("data", data)
        _check_mode(mode)
        async with self._stream() as (name, sock):
            request = WriteRequest(path=_path("path", path), stream=name, mode=mode, size=len(payload))
            call = asyncio.create_task(self._service.write(request))
            await _beside(call, streams.feed(sock, payload))
            if len(payload) != (taken := call.result().size):
                raise ProtocolError(f"{os.fspath(path)!r}: {len(payload)} bytes were sent, the guest took {taken}")

    async def stat(self, path: AnyPath, *, follow_symlinks: bool = True) -> FileInfo:
        """What is known of a file."""
        _check_flags(follow_symlinks=follow_symlinks)
        request = StatRequest(path=_path("path", path), no_follow=not follow_symlinks)
        return FileInfo.of(await self._service.stat(request))

    async def listdir(self, path: AnyPath) -> list[FileInfo]:
        """What is in a folder, by name."""
        async with self._stream() as (name, sock):
            request = ListRequest(path=_path("path", path), stream=name)
            call = asyncio.create_task(self._service.list(request))
            data = io.BytesIO(await _beside(call, streams.collect(sock, LIST_MAX)))
        found = []
        try:
            while (entry := read_entry(data)) is not None:
                found.append(FileInfo.of(entry))
        except ConnectionError:
            raise ProtocolError(f"{os.fspath(path)!r}: the guest's list of it ended before its end") from None
        return sorted(found, key=lambda info: info.name)

    async def mkdir(self, path: AnyPath, *, mode: int, parents: bool, exist_ok: bool) -> None:
        """Make a folder."""
        _check_mode(mode)
        _check_flags(parents=parents, exist_ok=exist_ok)
        request = MkdirRequest(path=_path("path", path), mode=mode, parents=parents, exist_ok=exist_ok)
        await self._service.mkdir(request)

    async def remove(self, path: AnyPath, *, recursive: bool) -> None:
        """Remove a file, a link or a folder."""
        _check_flags(recursive=recursive)
        request = RemoveRequest(path=_path("path", path), recursive=recursive)
        if posixpath.basename(request.path.rstrip(b"/")) in (b"", b".", b".."):
            raise InvalidArgument(f"path={path!r}: neither the root folder nor what ends with . or .. is removed")
        await self._service.remove(request)

    async def copy_to(self, source: AnyPath, target: AnyPath, progress: CopyProgress | None = None) -> Copied:
        """Copy a tree of the host into the guest."""
        tally = Tally()
        check_progress(progress)
        here, there = _path("source", source), _path("target", target)
        async with self._stream() as (name, sock):
            call = self._service.unpack(UnpackRequest(path=there, stream=name))

            def work() -> None:
                with cast(BinaryIO, sock.makefile("wb", RECORD_MAX)) as out:
                    TreeSender(out, tally).send(here)

            response, _ = await carry(call, sock, work, tally, progress)
        return tally.result(os.fsdecode(response.path))

    async def copy_from(self, source: AnyPath, target: AnyPath, progress: CopyProgress | None = None) -> Copied:
        """Copy a tree of the guest to the host."""
        tally = Tally()
        check_progress(progress)
        there, here = _path("source", source), _path("target", target)
        async with self._stream() as (name, sock):
            call = self._service.pack(PackRequest(path=there, stream=name))

            def work() -> str:
                with cast(BinaryIO, sock.makefile("rb", RECORD_MAX)) as records:
                    return TreeReceiver(records, tally).receive(here, tree_name(there))

            _, path = await carry(call, sock, work, tally, progress)
        return tally.result(path)


def _path(what: str, value: AnyPath) -> bytes:
    """A path as bytes. Raises InvalidArgument, which calls it ``what``, for what is none."""
    path = guest_bytes(what, value)
    if not path:
        raise InvalidArgument(f"{what}={value!r}: a path is needed")
    return path


def _check_mode(mode: object) -> None:
    if not isinstance(mode, int) or isinstance(mode, bool) or not 0 <= mode <= MODE_MAX:
        raise InvalidArgument(f"mode={mode!r}: permission bits are needed, 0 to {MODE_MAX:#o}, as in 0o755")


def _check_flags(**flags: object) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InvalidArgument(f"{name}={value!r}: True or False is needed")


async def _beside(call: asyncio.Task[Any], transfer: Coroutine[Any, Any, T]) -> T:
    """Carry a stream while a call waits for it; a call that fails ends the transfer."""
    carrying = asyncio.ensure_future(transfer)
    try:
        await asyncio.wait({call, carrying}, return_when=asyncio.FIRST_EXCEPTION)
        if call.done():
            call.result()
        return await carrying
    finally:
        for task in (call, carrying):
            task.cancel()
        await asyncio.gather(call, carrying, return_exceptions=True)
