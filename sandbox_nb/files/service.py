"""The verbs on files and folders of the guest."""

from __future__ import annotations

import asyncio
import io
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, BinaryIO, TypeVar, cast

from sandbox_nb import streams
from sandbox_nb.errors import ProtocolError
from sandbox_nb.files.info import Copied, FileInfo, Progress, Tally
from sandbox_nb.files.receiver import TreeReceiver
from sandbox_nb.files.records import RECORD_MAX, read_entry
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

__all__ = ["Files", "Path"]

Path = str | os.PathLike[str]

OpenStream = Callable[[], AbstractAsyncContextManager[tuple[str, socket.socket]]]
"""Opens a new stream for a block: its name for the agent, and its connected, non-blocking socket."""

T = TypeVar("T")


class Files:
    """The files of one machine. ``AsyncSandbox`` describes the verbs of the same names."""

    def __init__(self, service: FilesClient, stream: OpenStream) -> None:
        self._service = service
        self._stream = stream

    async def read(self, path: Path) -> bytes:
        """The bytes of a file."""
        async with self._stream() as (name, sock):
            call = asyncio.create_task(self._service.read(ReadRequest(path=os.fsencode(path), stream=name)))
            data = await _beside(call, streams.collect(sock))
            if len(data) != (sent := call.result().size):
                raise ProtocolError(f"{os.fspath(path)}: the guest sent {sent} bytes, {len(data)} arrived")
            return bytes(data)

    async def write(self, path: Path, data: bytes, *, mode: int = 0) -> None:
        """Make a file, or replace its content, all at once."""
        async with self._stream() as (name, sock):
            request = WriteRequest(path=os.fsencode(path), stream=name, mode=mode, size=len(data))
            call = asyncio.create_task(self._service.write(request))
            await _beside(call, streams.feed(sock, data))
            if len(data) != (taken := call.result().size):
                raise ProtocolError(f"{os.fspath(path)}: {len(data)} bytes were sent, the guest took {taken}")

    async def stat(self, path: Path, *, follow_symlinks: bool = True) -> FileInfo:
        """What is known of a file."""
        return FileInfo.of(
            await self._service.stat(StatRequest(path=os.fsencode(path), no_follow=not follow_symlinks))
        )

    async def listdir(self, path: Path) -> list[FileInfo]:
        """What is in a folder, by name."""
        async with self._stream() as (name, sock):
            request = ListRequest(path=os.fsencode(path), stream=name)
            call = asyncio.create_task(self._service.list(request))
            data = io.BytesIO(await _beside(call, streams.collect(sock)))
        found = []
        while (entry := read_entry(data)) is not None:
            found.append(FileInfo.of(entry))
        return sorted(found, key=lambda info: info.name)

    async def mkdir(self, path: Path, *, mode: int, parents: bool, exist_ok: bool) -> None:
        """Make a folder."""
        await self._service.mkdir(
            MkdirRequest(path=os.fsencode(path), mode=mode, parents=parents, exist_ok=exist_ok)
        )

    async def remove(self, path: Path, *, recursive: bool) -> None:
        """Remove a file, a link or a folder."""
        await self._service.remove(RemoveRequest(path=os.fsencode(path), recursive=recursive))

    async def copy_to(self, source: Path, target: Path, progress: Progress | None = None) -> Copied:
        """Copy a tree of the host into the guest."""
        tally = Tally()
        async with self._stream() as (name, sock):
            call = self._service.unpack(UnpackRequest(path=os.fsencode(target), stream=name))

            def work() -> None:
                with cast(BinaryIO, sock.makefile("wb", RECORD_MAX)) as out:
                    TreeSender(out, tally).send(source)

            response, _ = await carry(call, sock, work, tally, progress)
        return tally.result(os.fsdecode(response.path))

    async def copy_from(self, source: Path, target: Path, progress: Progress | None = None) -> Copied:
        """Copy a tree of the guest to the host."""
        tally = Tally()
        async with self._stream() as (name, sock):
            call = self._service.pack(PackRequest(path=os.fsencode(source), stream=name))

            def work() -> str:
                with cast(BinaryIO, sock.makefile("rb", RECORD_MAX)) as records:
                    return TreeReceiver(records, tally).receive(target)

            _, path = await carry(call, sock, work, tally, progress)
        return tally.result(path)


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
