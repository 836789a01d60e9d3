"""AsyncSandbox: one machine and its verbs. ``Sandbox`` has the same, and forwards to them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, Unpack, overload

from sandbox_nb import proxy, report
from sandbox_nb.base import BaseSandbox
from sandbox_nb.command import DEVNULL, PIPE, STDOUT, Command, Start
from sandbox_nb.devices import Device
from sandbox_nb.encoding import guest_data
from sandbox_nb.errors import InvalidArgument
from sandbox_nb.events import AsyncEvents
from sandbox_nb.files.info import AnyPath, Copied, CopyProgress, FileInfo
from sandbox_nb.forward import AsyncForward
from sandbox_nb.guest.proto.events_ttrpc import EventsClient
from sandbox_nb.guest.proto.stats_pb2 import GetRequest
from sandbox_nb.guest.proto.stats_ttrpc import StatsClient
from sandbox_nb.guest.proto.system_pb2 import InfoResponse
from sandbox_nb.guest.proto.system_ttrpc import SystemClient
from sandbox_nb.hardware import AttachedDevice, Devices
from sandbox_nb.host import Progress
from sandbox_nb.lens.recorder import AsyncLens
from sandbox_nb.life import POWER_OFF_TIMEOUT, Life
from sandbox_nb.options import Option
from sandbox_nb.popen import AsyncProcess
from sandbox_nb.process import RawProcess
from sandbox_nb.run import Completed, Echo, Output, RunKeywords, Sink, run
from sandbox_nb.services import OPEN_TIMEOUT, Services
from sandbox_nb.stats import Connection, Stats
from sandbox_nb.ttrpc import Client

__all__ = ["AsyncSandbox", "SandboxProtocol"]


class SandboxProtocol(Protocol):
    """The reference interface's four verbs."""

    async def start(self, *options: Option) -> None:
        """Start the machine."""

    async def stop(self) -> None:
        """Stop the machine."""

    async def client(self) -> Client:
        """A ttrpc client to the agent, shared; not to be closed by the caller."""

    async def start_stream(self, identity: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a raw byte stream under a one-time id."""


class AsyncSandbox(BaseSandbox):
    """A virtual machine, for asyncio. Belongs to the event loop it is started in.

    As a context manager it starts nothing, and guarantees the stop::

        async with AsyncSandbox() as sb:
            await sb.start(cpu=2, memory=512)
            print((await sb.run("uname -a")).stdout)
    """

    def __init__(self, name: str = "sandbox") -> None:
        self._life = Life(name)
        self._services = Services(self._life)

    # The reference interface's verbs

    async def start(
        self, *options: Option, timeout: float | None = None, progress: Progress | None = None, **keywords: Any
    ) -> None:
        """Start the machine with options: ``Options``, those made by ``with_disk`` and its like, or keywords.

        ``timeout`` in seconds is for all of it, also building the image the first time. A start that fails or is
        cancelled leaves nothing behind.

        Raises FailedPrecondition unless new, stopped or failed; InvalidArgument, NotFound, Unimplemented,
        Unavailable or DeadlineExceeded; Stopped when it was taken back.
        """
        await self._life.start(options, keywords, timeout=timeout, progress=progress)

    async def stop(self, *, timeout: float = POWER_OFF_TIMEOUT) -> None:
        """Power the guest off, and end it by force when it has not within ``timeout`` seconds.

        Raises FailedPrecondition unless running or failed.
        """
        await self._life.stop(timeout)

    async def client(self) -> Client:
        """A ttrpc client to the agent, shared; not to be closed by the caller.

        Raises FailedPrecondition unless running.
        """
        return self._life.current().client

    async def start_stream(
        self, identity: str, *, timeout: float | None = OPEN_TIMEOUT
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a raw byte stream under a one-time id; a process of the guest claims it by that name.

        Raises FailedPrecondition unless running, AlreadyExists and others as the guest refuses it.
        """
        return await asyncio.open_connection(sock=await self.open_stream(identity, timeout=timeout))

    # Commands

    @overload
    async def run(
        self, command: Command, *, text: Literal[True] = True, **how: Unpack[RunKeywords]
    ) -> Completed[str]: ...

    @overload
    async def run(
        self, command: Command, *, text: Literal[False], **how: Unpack[RunKeywords]
    ) -> Completed[bytes]: ...

    async def run(
        self,
        command: Command,
        *,
        text: bool = True,
        input: str | bytes | None = None,  # noqa: A002 - subprocess calls it so
        stream: bool | Sink = False,
        capture_output: bool = True,
        stderr: int = PIPE,
        check: bool = False,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] = "",
        user: str = "",
    ) -> Completed[Any]:
        """Run a command to its end and return how it ended, with all its output.

        A str is for the guest's shell, a list is argv. Output is text (UTF-8, what is invalid replaced) unless
        ``text=False``. ``stream=True`` also echoes it as it comes; a function is called instead with the file
        descriptor (1, 2) and the bytes; an awaitable that it returns is awaited before more is read. Output that
        is not to be kept in memory takes ``capture_output=False``. ``stderr`` is PIPE, DEVNULL, or STDOUT, which
        puts it where the output goes. A cancelled or timed-out command is killed with all it started; so is one
        that writes more than the 512 MiB that are kept.

        Raises ProcessFailed when ``check`` and it did not end with 0, ProcessTimedOut, ResourceExhausted for too
        much output, FailedPrecondition unless running, NotFound for an unknown user or folder.
        """
        data = None if input is None else guest_data("input", input)
        if stderr not in (PIPE, DEVNULL, STDOUT):
            raise InvalidArgument(f"stderr={stderr!r}: PIPE, DEVNULL or STDOUT is needed")
        start = Start(command, env, cwd, user, stdin=DEVNULL if data is None else PIPE, stderr=stderr, late=True)
        output = Output(command, sink=Echo() if stream is True else stream or None, keep=capture_output)
        async with self._life.use():
            completed = await run(
                self._services.spawn, start, output, data=data or b"", text=text, timeout=timeout
            )
        if completed.returncode < 0 and self._life.stopped is not None:
            raise self._life.stopped
        if check:
            completed.check_returncode()
        return completed

    async def popen(self, command: Command, **keywords: Any) -> AsyncProcess:
        """Start a command and return it running, its pipes as asyncio streams. Keywords as for ``spawn``."""
        raw = await self.spawn(command, **keywords)
        try:
            return await AsyncProcess.wrap(raw)
        except BaseException:
            await raw.kill()
            raw.close()
            raise

    async def spawn(
        self,
        command: Command,
        *,
        stdin: int | str = PIPE,
        stdout: int | str = PIPE,
        stderr: int | str = PIPE,
        tty: tuple[int, int] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] = "",
        user: str = "",
    ) -> RawProcess:
        """Start a command and return it running, its pipes as bare sockets.

        ``stdin``, ``stdout`` and ``stderr`` are PIPE, DEVNULL, or the id of a stream opened before with
        ``start_stream``; ``stderr`` may be STDOUT, where the output goes. ``tty=(rows, columns)`` gives it a
        terminal.
        """
        async with self._life.use():
            return await self._services.spawn(Start(command, env, cwd, user, stdin, stdout, stderr, tty))

    # Files

    async def read(self, path: AnyPath) -> bytes:
        """The bytes of a file in the guest. Raises NotFound and others as the guest says."""
        async with self._life.use():
            return await self._services.files.read(path)

    async def write(self, path: AnyPath, data: bytes | str, *, mode: int = 0) -> None:
        """Make a file in the guest, or replace its content, all at once.

        ``mode`` holds the permission bits of a new file (0 means 0o644). Text is written as UTF-8.
        """
        async with self._life.use():
            await self._services.files.write(path, data, mode=mode)

    async def stat(self, path: AnyPath, *, follow_symlinks: bool = True) -> FileInfo:
        """What is known of a file, folder or link in the guest. Raises NotFound."""
        async with self._life.use():
            return await self._services.files.stat(path, follow_symlinks=follow_symlinks)

    async def listdir(self, path: AnyPath) -> list[FileInfo]:
        """What is in a folder of the guest, by name. Raises NotFound, also when it is no folder."""
        async with self._life.use():
            return await self._services.files.listdir(path)

    async def mkdir(
        self, path: AnyPath, *, mode: int = 0o755, parents: bool = False, exist_ok: bool = False
    ) -> None:
        """Make a folder in the guest; with ``parents`` those it lies in too.

        Raises AlreadyExists, unless ``exist_ok`` and it is a folder, and NotFound when it has nowhere to lie.
        """
        async with self._life.use():
            await self._services.files.mkdir(path, mode=mode, parents=parents, exist_ok=exist_ok)

    async def remove(self, path: AnyPath, *, recursive: bool = False) -> None:
        """Remove a file, a link (not what it points to) or a folder of the guest.

        ``recursive``: with all that is in it, as ``rm -r`` does, also on shares and disks that are mounted there.
        Raises NotFound, FailedPrecondition for a folder that is not empty, and InvalidArgument for ``/`` and what
        ends in ``.`` or ``..``.
        """
        async with self._life.use():
            await self._services.files.remove(path, recursive=recursive)

    async def copy_to(self, source: AnyPath, target: AnyPath, *, progress: CopyProgress | None = None) -> Copied:
        """Copy a file or folder of the host into the guest.

        As ``cp -a`` does: into ``target`` if that is a folder, under its own name; else it becomes ``target``,
        whose parent must be there. ``source/.`` stands for what is in the folder; ``target`` then keeps its mode.
        A folder that is in the way is filled up, a file is replaced; each is there whole or as it was, also when
        the copy fails or is cancelled.
        Modes, times of modification, symbolic and hard links are kept; owners are not, all is root's. ``source``
        itself may be a link, those in it are copied as links. Devices, sockets and pipes are left out, and named
        in the result.

        ``progress`` is called with the bytes and files copied so far. Raises NotFound, ResourceExhausted (a full
        disk) and others, with the path.
        """
        async with self._life.use():
            return await self._services.files.copy_to(source, target, progress)

    async def copy_from(self, source: AnyPath, target: AnyPath, *, progress: CopyProgress | None = None) -> Copied:
        """Copy a file or folder of the guest to the host, by the rules of ``copy_to``.

        What comes belongs to the caller, and has no set-id bits. Nothing a guest sends reaches out of ``target``,
        nor chooses the name there; but a link it sent may point anywhere, as any that is copied.
        """
        async with self._life.use():
            return await self._services.files.copy_from(source, target, progress)

    # Ports and sockets

    async def forward(self, host_port: int, guest: int | str) -> AsyncForward:
        """Listen on a port of 127.0.0.1 (0: a free one) for what listens in the guest, with no network card.

        ``guest`` is a TCP port of its loopback, or the path of a UNIX socket. A connection that nobody in the
        guest takes is reset. Ends with the object, ``async with`` or ``close``, or with the machine.

        Raises AlreadyExists when the port is taken.
        """
        return await self._services.forwarder.forward(host_port, guest)

    async def forward_socket(self, path: str, host: int | str) -> AsyncForward:
        """Have the guest listen on a UNIX socket, for what listens on the host: a port of 127.0.0.1, or a path.

        All of the guest may connect. Raises AlreadyExists or NotFound when the guest cannot make the socket.
        """
        async with self._life.use():
            return await self._services.forwarder.forward_socket(path, host)

    async def url(self, guest_port: int) -> str:
        """The URL of what listens on a TCP port of the guest, which is forwarded if it is not yet.

        In a notebook whose server has jupyter-server-proxy, as on Binder, it is a path for the user's browser.
        """
        return proxy.url(await self._services.forwarder.port_of(guest_port))

    # Devices

    async def attach(self, device: Device) -> AttachedDevice:
        """Attach a Disk, Filesystem, NIC or UserNIC to the running machine.

        It is in use in the guest when this returns: mounted where it has a target, an interface with its
        addresses. When it fails, nothing is attached.

        Raises InvalidArgument, NotFound, AlreadyExists or FailedPrecondition for what cannot be had,
        ResourceExhausted when no port is free, DeadlineExceeded when DHCP brings no address.
        """
        async with self._life.use() as running:
            return await running.hardware.attach(device)

    async def detach(self, name: str) -> None:
        """Detach a device by its block id, tag or name, with the guest's agreement. Its target is unmounted first.

        Raises NotFound for an unknown name, FailedPrecondition when it is in use, naming the processes.
        """
        async with self._life.use() as running:
            await running.hardware.detach(name)

    async def devices(self) -> Devices:
        """The disks, shares and network cards that are attached. Raises FailedPrecondition unless running."""
        return self._life.current().hardware.devices()

    # What goes on in it

    async def info(self) -> InfoResponse:
        """The agent's version and the guest's kernel."""
        async with self._life.observed():
            return await SystemClient(self._life.current().client).info()

    def events(self) -> AsyncEvents:
        """What happens to processes of the guest from now on. Raises FailedPrecondition unless running."""
        return AsyncEvents(EventsClient(self._life.current().client).stream(), self._life.observed)

    async def stats(self, *, processes: bool = False) -> Stats:
        """How busy the guest is: counters since its boot, and its processes if they are asked for."""
        async with self._life.use() as running:
            return Stats.of(await StatsClient(running.client).get(GetRequest(processes=processes)))

    async def connections(self) -> list[Connection]:
        """The vsock connections with their credit; none are told where the host's kernel carries them."""
        async with self._life.use() as running:
            numbers = await running.link.statistics() or {"streams": []}
        return [Connection.of(stream) for stream in numbers["streams"]]

    @property
    def forwards(self) -> list[AsyncForward]:
        """What is forwarded now."""
        return self._services.forwards

    async def trace(self) -> AsyncLens:
        """Record what crosses between the host and the machine from now on: calls, packets, QMP messages.

        Ends with the object, ``async with`` or ``close``, or with the machine. Raises FailedPrecondition when it
        is recorded already.
        """
        async with self._life.use():
            return await self._services.trace()

    async def attach_console(self) -> socket.socket:
        """A connected, non-blocking socket on the serial console. Raises FailedPrecondition unless running."""
        return self._life.current().machine.console.attach()

    async def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write what a bug report should come with, and return where it is; in any state.

        It is a zip file of logs, options, boot and what ``sandbox-nb doctor`` finds, and holds no environment,
        input, output or file content. ``path`` None: a name of its own in the current folder.

        Raises InvalidArgument when there is something at ``path``, FailedPrecondition or ResourceExhausted when it
        cannot be written.
        """
        return await asyncio.to_thread(report.write, report.Subject.of(self._life), path)

    async def __aenter__(self) -> AsyncSandbox:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop the machine in whatever state it is: a start under way is taken back, a stop waited for.

        The end of the ``async with`` block. Idempotent.
        """
        await self._life.end()

    # Beneath the verbs

    async def open_stream(self, identity: str, *, timeout: float | None = OPEN_TIMEOUT) -> socket.socket:
        """Open a stream and return its connected, non-blocking socket."""
        return await self._services.open_stream(identity, timeout=timeout)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it belongs to, once started."""
        return self._life.loop

    def _known(self) -> Services:
        return self._services
