"""QMP with one QEMU: commands, descriptors, events, and the only translator of its errors."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError
from qemu.qmp.message import Message

from sandbox_nb.errors import FailedPrecondition, NotFound, Unavailable
from sandbox_nb.vm.obituary import obituary
from sandbox_nb.vm.process import Child

MIN_QEMU = (7, 2)


def file_name(number: int) -> str:
    """The name by which QEMU opens a file that it was given; see ``Monitor.give_file``."""
    return f"/dev/fdset/{number}"


Tap = Callable[[bool, bytes], None]
"""Sees each message that passes, as JSON; the first argument tells whether it is sent."""


class _Client(QMPClient):
    """A client whose messages can be seen: the two hooks are there for subclasses to watch by."""

    tap: Tap | None = None

    def _cb_outbound(self, msg: Message) -> Message:
        if self.tap is not None:
            self.tap(True, bytes(msg))
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        if self.tap is not None:
            self.tap(False, bytes(msg))
        return msg


class Monitor:
    """A QMP session. Belongs to the event loop it was connected in."""

    def __init__(self, qmp: _Client) -> None:
        self._qmp = qmp
        self._giving = asyncio.Lock()
        self._sets = itertools.count()
        self._closing: asyncio.Future[None] | None = None

    @classmethod
    async def connect(cls, sock: socket.socket, child: Child) -> Monitor:
        """Negotiate over ``sock``, which QEMU inherited the other end of.

        Raises Unavailable with QEMU's own words when it ends instead, FailedPrecondition when it is too old.
        """
        qmp = _Client("sandbox_nb")
        try:
            await qmp.connect(sock)
        except (QMPError, EOFError, OSError) as error:
            status = await child.wait()
            raise await obituary("", status, child) from error
        assert qmp.greeting is not None
        version: Any = qmp.greeting.QMP.version["qemu"]
        if (found := (version["major"], version["minor"])) < MIN_QEMU:
            await qmp.disconnect()
            raise FailedPrecondition(
                f"QEMU {found[0]}.{found[1]} is too old: {MIN_QEMU[0]}.{MIN_QEMU[1]} or newer is needed, "
                "as in Debian 12 or Ubuntu 24.04"
            )
        return cls(qmp)

    async def execute(self, verb: str, arguments: dict[str, Any] | None = None) -> Any:
        """Send a command and return its answer.

        Raises NotFound or FailedPrecondition when QEMU refuses, Unavailable when QEMU is gone.
        """
        try:
            return await self._qmp.execute(verb, arguments)
        except ExecuteError as error:
            kind = NotFound if error.error_class == "DeviceNotFound" else FailedPrecondition
            raise kind(f"QEMU refused {verb}: {error}") from error
        except (QMPError, EOFError, OSError) as error:
            raise Unavailable(f"QEMU is gone: {verb} was not answered") from error

    async def give_fd(self, fd: int, name: str) -> None:
        """Hand QEMU a duplicate of a descriptor; commands that take one know it by ``name``."""
        await self._hand_over(fd, "getfd", {"fdname": name})

    async def give_file(self, fd: int) -> int:
        """Hand QEMU a duplicate of an open file, which it can open by the ``file_name`` of the number returned."""
        number = next(self._sets)
        await self._hand_over(fd, "add-fd", {"fdset-id": number})
        return number

    async def take_file(self, number: int) -> None:
        """Have QEMU close what ``give_file`` gave it."""
        await self.execute("remove-fd", {"fdset-id": number})

    async def connect_chardev(self, identity: str, path: Path) -> None:
        """Give QEMU a connection to the UNIX socket ``path`` as the character device ``identity``.

        Raises FailedPrecondition when nobody listens there.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.connect(str(path))
            except OSError as error:
                raise FailedPrecondition(f"nobody listens at {path}: {error.strerror}") from error
            await self.give_fd(sock.fileno(), identity)
        address = {"type": "fd", "data": {"str": identity}}
        backend = {"type": "socket", "data": {"addr": address, "server": False}}
        await self.execute("chardev-add", {"id": identity, "backend": backend})

    async def _hand_over(self, fd: int, verb: str, arguments: dict[str, Any]) -> None:
        # QEMU keeps one descriptor until the next command takes it, so they are handed over one by one.
        async with self._giving:
            try:
                self._qmp.send_fd_scm(fd)
            except (QMPError, OSError) as error:
                raise Unavailable(f"QEMU is gone: it cannot be given a descriptor for {verb}") from error
            await self.execute(verb, arguments)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What QEMU tells on its own, until it is gone."""
        event: Any
        async for event in self._qmp.events:
            yield event

    def tap(self, tap: Tap | None) -> None:
        """Have ``tap`` called with each message from now on, in the order they pass; None ends that."""
        self._qmp.tap = tap

    async def close(self) -> None:
        """End the session. Idempotent, also for several at once, and goes on when one of them is cancelled."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._disconnect())
        await asyncio.shield(self._closing)

    async def _disconnect(self) -> None:
        with contextlib.suppress(QMPError, EOFError, OSError):
            await self._qmp.disconnect()
