"""AsyncSandbox: one machine, its life and its verbs. All the logic is here; ``Sandbox`` forwards to it."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, Unpack, overload

from sandbox_nb import limits, process, proxy, report, streams
from sandbox_nb.boot import Boot
from sandbox_nb.devices import Device
from sandbox_nb.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    ProcessTimedOut,
    SandboxError,
    Stopped,
    Unavailable,
)
from sandbox_nb.events import AsyncEvents
from sandbox_nb.files.info import AnyPath, Copied, CopyProgress, FileInfo
from sandbox_nb.files.service import Files
from sandbox_nb.forward import AsyncForward, Forwarder
from sandbox_nb.guest.proto.events_ttrpc import EventsClient
from sandbox_nb.guest.proto.files_ttrpc import FilesClient
from sandbox_nb.guest.proto.power_ttrpc import PowerClient
from sandbox_nb.guest.proto.process_ttrpc import ProcessClient
from sandbox_nb.guest.proto.stats_pb2 import GetRequest
from sandbox_nb.guest.proto.stats_ttrpc import StatsClient
from sandbox_nb.guest.proto.system_pb2 import InfoResponse
from sandbox_nb.guest.proto.system_ttrpc import SystemClient
from sandbox_nb.hardware import AttachedDevice, Devices
from sandbox_nb.host import Progress
from sandbox_nb.launch import Running, launch
from sandbox_nb.lens.recorder import AsyncLens
from sandbox_nb.options import Option, Options
from sandbox_nb.portrait import Portrait
from sandbox_nb.process import (
    DEVNULL,
    PIPE,
    STDOUT,
    AsyncProcess,
    Command,
    Completed,
    RawProcess,
    RunKeywords,
    Sink,
    Start,
)
from sandbox_nb.stats import Connection, Stats
from sandbox_nb.ttrpc import Client

__all__ = ["AsyncSandbox", "SandboxProtocol", "State"]

logger = logging.getLogger(__name__)

POWER_OFF_TIMEOUT = 3.0
"""Seconds the guest gets to end its processes, write back and power itself off before QEMU is ended."""


T = TypeVar("T")


class State(enum.Enum):
    """Where a sandbox is in its life."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


# The states each verb is legal in. A verb in any other raises FailedPrecondition and changes nothing.
_LEGAL = {
    "start": {State.NEW, State.STOPPED, State.FAILED},
    "stop": {State.RUNNING, State.FAILED},
    "use": {State.RUNNING},
}


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


class AsyncSandbox:
    """A virtual machine, for asyncio. Belongs to the event loop it is started in.

    As a context manager it starts nothing, and guarantees the stop::

        async with AsyncSandbox() as sb:
            await sb.start(cpu=2, memory=512)
            print((await sb.run("uname -a")).stdout)
    """

    def __init__(self, name: str = "sandbox") -> None:
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", name):
            raise InvalidArgument(f"name={name!r}: letters, digits and inner hyphens are needed, 63 at most")
        self.name = name
        self.state = State.NEW
        self.options = Options()
        self.failure: Unavailable | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop it belongs to, once started."""
        self._running: Running | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._usage: limits.Usage | None = None
        self._limiter: asyncio.Task[None] | None = None
        self._stopped: Stopped | None = None
        self._forwarder: Forwarder | None = None
        self._lens: AsyncLens | None = None

    # The reference interface's verbs

    async def start(
        self, *options: Option, timeout: float | None = None, progress: Progress | None = None, **keywords: Any
    ) -> None:
        """Start the machine with options made by ``with_disk`` and its like, or said as keywords.

        ``timeout`` in seconds is for all of it, also building the image the first time. A start that fails or is
        cancelled leaves nothing behind.

        Raises FailedPrecondition unless new, stopped or failed; InvalidArgument, NotFound, Unimplemented,
        Unavailable or DeadlineExceeded.
        """
        self._require("start")
        wanted = Options().applying(options, keywords)
        self.state, self.failure, self._stopped = State.STARTING, None, None
        self.loop = asyncio.get_running_loop()
        try:
            if self._running is not None:  # what is left of a machine that failed
                await self._clean_up()
            async with _deadline(timeout, f"start did not finish within {timeout} s"):
                self._running = await launch(wanted, hostname=self.name, progress=progress)
        except BaseException:
            self.state = State.FAILED
            raise
        self.options = wanted
        self.state = State.RUNNING
        self._usage = limits.Usage()
        if wanted.idle_timeout is not None or wanted.max_lifetime is not None:
            self._limiter = asyncio.create_task(self._limit(wanted), name=f"limit-{self.name}")
        self._watcher = asyncio.create_task(self._watch(self._running), name=f"watch-{self.name}")

    async def stop(self, *, timeout: float = POWER_OFF_TIMEOUT) -> None:
        """Power the guest off, and end it by force when it has not within ``timeout`` seconds.

        Raises FailedPrecondition unless running or failed.
        """
        self._require("stop")
        self._check_loop()
        await self._stop(f"{self.name} was stopped", timeout)

    async def client(self) -> Client:
        """A ttrpc client to the agent, shared; not to be closed by the caller.

        Raises FailedPrecondition unless running.
        """
        return self._use().client

    async def start_stream(
        self, identity: str, *, timeout: float | None = 30.0
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
        data = None if input is None else process.guest_data("input", input)
        process.checked_timeout(timeout)
        if stderr not in (PIPE, DEVNULL, STDOUT):
            raise InvalidArgument(f"stderr={stderr!r}: PIPE, DEVNULL or STDOUT is needed")
        start = Start(command, env, cwd, user, stdin=DEVNULL if data is None else PIPE, stderr=stderr)
        sink = process.Echo() if stream is True else (stream or None)
        async with self._explained():
            began = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(timeout):
                    raw = await self._spawn(start)
            except TimeoutError as error:
                if timeout is None or isinstance(error, DeadlineExceeded):
                    raise
                raise ProcessTimedOut(process.describe(command), timeout, b"", b"") from None
            left = None if timeout is None else timeout - (asyncio.get_running_loop().time() - began)
            try:
                out, err = await process.communicate(
                    raw, data=data or b"", sink=sink, keep=capture_output, timeout=left
                )
            except ProcessTimedOut as error:
                error.timeout = timeout or 0.0  # what was asked for, not what the start of it had left
                raise
        status = raw.returncode
        assert status is not None
        if status < 0 and self._stopped is not None:
            raise self._stopped
        # What nobody collected is None, as in subprocess.
        kept: list[Any] = [out if capture_output else None, err if capture_output and stderr == PIPE else None]
        if text:
            kept = [_text(data) for data in kept]
        result: Completed[Any] = Completed(command, status, *kept, out_of_memory=raw.out_of_memory)
        if check:
            result.check_returncode()
        return result

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
        async with self._explained():
            return await self._spawn(Start(command, env, cwd, user, stdin, stdout, stderr, tty))

    # Files

    async def read(self, path: AnyPath) -> bytes:
        """The bytes of a file in the guest. Raises NotFound and others as the guest says."""
        async with self._explained():
            return await self._files().read(path)

    async def write(self, path: AnyPath, data: bytes | str, *, mode: int = 0) -> None:
        """Make a file in the guest, or replace its content, all at once.

        ``mode`` holds the permission bits of a new file (0 means 0o644). Text is written as UTF-8.
        """
        async with self._explained():
            await self._files().write(path, data, mode=mode)

    async def stat(self, path: AnyPath, *, follow_symlinks: bool = True) -> FileInfo:
        """What is known of a file, folder or link in the guest. Raises NotFound."""
        async with self._explained():
            return await self._files().stat(path, follow_symlinks=follow_symlinks)

    async def listdir(self, path: AnyPath) -> list[FileInfo]:
        """What is in a folder of the guest, by name. Raises NotFound, also when it is no folder."""
        async with self._explained():
            return await self._files().listdir(path)

    async def mkdir(
        self, path: AnyPath, *, mode: int = 0o755, parents: bool = False, exist_ok: bool = False
    ) -> None:
        """Make a folder in the guest; with ``parents`` those it lies in too.

        Raises AlreadyExists, unless ``exist_ok`` and it is a folder, and NotFound when it has nowhere to lie.
        """
        async with self._explained():
            await self._files().mkdir(path, mode=mode, parents=parents, exist_ok=exist_ok)

    async def remove(self, path: AnyPath, *, recursive: bool = False) -> None:
        """Remove a file, a link (not what it points to) or a folder of the guest.

        ``recursive``: with all that is in it, as ``rm -r`` does, also on shares and disks that are mounted there.
        Raises NotFound, and FailedPrecondition for a folder that is not empty.
        """
        async with self._explained():
            await self._files().remove(path, recursive=recursive)

    async def copy_to(self, source: AnyPath, target: AnyPath, *, progress: CopyProgress | None = None) -> Copied:
        """Copy a file or folder of the host into the guest.

        As ``cp -a`` does: into ``target`` if that is a folder, under its own name; else it becomes ``target``,
        whose parent must be there. ``source/.`` stands for what is in the folder. A folder that is in the way is
        filled up, a file is replaced; each is there whole or as it was, also when the copy fails or is cancelled.
        Modes, times of modification, symbolic and hard links are kept; owners are not, all is root's. ``source``
        itself may be a link, those in it are copied as links. Devices, sockets and pipes are left out, and named
        in the result.

        ``progress`` is called with the bytes and files copied so far. Raises NotFound, ResourceExhausted (a full
        disk) and others, with the path.
        """
        async with self._explained():
            return await self._files().copy_to(source, target, progress)

    async def copy_from(self, source: AnyPath, target: AnyPath, *, progress: CopyProgress | None = None) -> Copied:
        """Copy a file or folder of the guest to the host, by the rules of ``copy_to``.

        What comes belongs to the caller, and has no set-id bits. Nothing a guest sends reaches out of ``target``;
        but a link it sent may point anywhere, as any that is copied.
        """
        async with self._explained():
            return await self._files().copy_from(source, target, progress)

    # Ports and sockets

    async def forward(self, host_port: int, guest: int | str) -> AsyncForward:
        """Listen on a port of 127.0.0.1 (0: a free one) for what listens in the guest, with no network card.

        ``guest`` is a TCP port of its loopback, or the path of a UNIX socket. A connection that nobody in the
        guest takes is reset. Ends with the object, ``async with`` or ``close``, or with the machine.

        Raises AlreadyExists when the port is taken.
        """
        return await self._forwards().forward(host_port, guest)

    async def forward_socket(self, path: str, host: int | str) -> AsyncForward:
        """Have the guest listen on a UNIX socket, for what listens on the host: a port of 127.0.0.1, or a path.

        All of the guest may connect. Raises AlreadyExists or NotFound when the guest cannot make the socket.
        """
        async with self._explained():
            return await self._forwards().forward_socket(path, host)

    async def url(self, guest_port: int) -> str:
        """The URL of what listens on a TCP port of the guest, which is forwarded if it is not yet.

        In a notebook whose server has jupyter-server-proxy, as on Binder, it is a path for the user's browser.
        """
        return proxy.url(await self._forwards().port_of(guest_port))

    # Devices

    async def attach(self, device: Device) -> AttachedDevice:
        """Attach a Disk, Filesystem, NIC or UserNIC to the running machine.

        It is in use in the guest when this returns: mounted where it has a target, an interface with its
        addresses. When it fails, nothing is attached.

        Raises InvalidArgument, NotFound, AlreadyExists or FailedPrecondition for what cannot be had,
        ResourceExhausted when no port is free, DeadlineExceeded when DHCP brings no address.
        """
        async with self._explained():
            return await self._use().hardware.attach(device)

    async def detach(self, name: str) -> None:
        """Detach a device by its block id, tag or name, with the guest's agreement. Its target is unmounted first.

        Raises NotFound for an unknown name, FailedPrecondition when it is in use, naming the processes.
        """
        async with self._explained():
            await self._use().hardware.detach(name)

    async def devices(self) -> Devices:
        """The disks, shares and network cards that are attached. Raises FailedPrecondition unless running."""
        return self._use().hardware.devices()

    # What it is

    async def info(self) -> InfoResponse:
        """The agent's version and the guest's kernel."""
        async with self._observed():
            return await SystemClient(self._use().client).info()

    def events(self) -> AsyncEvents:
        """What happens to processes of the guest from now on. Raises FailedPrecondition unless running."""
        return AsyncEvents(EventsClient(self._use().client).stream(), self._observed)

    async def stats(self, *, processes: bool = False) -> Stats:
        """How busy the guest is: counters since its boot, and its processes if they are asked for."""
        async with self._explained():
            return Stats.of(await StatsClient(self._use().client).get(GetRequest(processes=processes)))

    async def connections(self) -> list[Connection]:
        """The vsock connections with their credit; none are told where the host's kernel carries them."""
        async with self._explained():
            numbers = await self._use().link.statistics() or {"streams": []}
        return [Connection.of(stream) for stream in numbers["streams"]]

    @property
    def forwards(self) -> list[AsyncForward]:
        """What is forwarded now."""
        return self._forwarder.forwards if self._forwarder is not None else []

    async def trace(self) -> AsyncLens:
        """Record what crosses between the host and the machine from now on: calls, packets, QMP messages.

        Ends with the object, ``async with`` or ``close``, or with the machine. Raises FailedPrecondition when it
        is recorded already.
        """
        running = self._use()
        if self._lens is not None and not self._lens.closed:
            raise FailedPrecondition(f"{self.name} is being traced already; close that lens first")
        async with self._explained():
            self._lens = await AsyncLens.open(running.client, running.machine, running.link)
        return self._lens

    @property
    def boot(self) -> Boot:
        """How the machine came up. Raises FailedPrecondition when it never did."""
        if self._running is None:
            raise FailedPrecondition(f"{self.name} has not been started")
        return self._running.boot

    @property
    def state_dir(self) -> Path:
        """The folder of the logs. Raises FailedPrecondition when the machine never came up."""
        if self._running is None:
            raise FailedPrecondition(f"{self.name} has not been started")
        return self._running.state_dir

    @property
    def console(self) -> str:
        """The last lines of the guest's console."""
        return self._running.machine.console.ring.tail(200) if self._running else ""

    async def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write what a bug report should come with, and return where it is; in any state.

        It is a zip file of logs, options, boot and what ``sandbox-nb doctor`` finds, and holds no environment,
        input, output or file content. ``path`` None: a name of its own in the current folder.

        Raises InvalidArgument when there is something at ``path``, FailedPrecondition or ResourceExhausted when it
        cannot be written.
        """
        running = self._running
        subject = report.Subject(
            self.name,
            self.state.value,
            self.options,
            failure=str(self.failure or ""),
            console=self.console,
            boot=None if running is None else running.boot,
            logs=None if running is None else running.state_dir,
        )
        return await asyncio.to_thread(report.write, subject, path)

    async def attach_console(self) -> socket.socket:
        """A connected, non-blocking socket on the serial console. Raises FailedPrecondition unless running."""
        return self._use().machine.console.attach()

    def portrait(self) -> Portrait:
        """What the host knows of the machine now, for people. Asks nobody; in any thread."""
        running, options = self._running, self.options
        processors = "1 processor" if options.cpu_count == 1 else f"{options.cpu_count} processors"
        return Portrait(
            self.name,
            self.state.value,
            str(self.failure or ""),
            f"{processors}, {options.memory_mib} MiB, image {options.image}",
            running.boot if running else None,
            running.hardware.devices() if running else Devices(),
            [(forward.port, forward.target) for forward in self.forwards],
            self.console,
        )

    def _repr_html_(self) -> str:
        return self.portrait()._repr_html_()

    async def __aenter__(self) -> AsyncSandbox:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self.state is State.STOPPING and self._limiter is not None:
            await asyncio.wait({self._limiter})
        if self.state in _LEGAL["stop"]:
            await self.stop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.state.value}>"

    # Beneath the verbs

    async def open_stream(self, identity: str, *, timeout: float | None = 30.0) -> socket.socket:
        """Open a stream and return its connected, non-blocking socket."""
        running = self._use()
        async with _deadline(timeout, f"stream {identity!r} was not opened within {timeout} s"):
            return await streams.open_stream(running.link.dial, identity)

    async def _spawn(self, start: Start) -> RawProcess:
        service, usage = ProcessClient(self._use().client), self._usage
        assert usage is not None
        raw = await RawProcess.start(service, self.open_stream, start, self._explained)
        usage.begin()
        raw.when_ended(usage.end)
        return raw

    def _files(self) -> Files:
        return Files(FilesClient(self._use().client), self._stream)

    def _forwards(self) -> Forwarder:
        client = self._use().client
        if self._forwarder is None:
            self._forwarder = Forwarder(client, self.open_stream)
        return self._forwarder

    @contextlib.asynccontextmanager
    async def _stream(self) -> AsyncIterator[tuple[str, socket.socket]]:
        """A stream of our own for one file, and its name for the agent."""
        identity = streams.new_id()
        sock = await self.open_stream(identity)
        try:
            yield streams.name(identity), sock
        finally:
            sock.close()

    @contextlib.asynccontextmanager
    async def _explained(self) -> AsyncIterator[None]:
        """One use of the machine, explained when the way to the guest ends under it."""
        with self._usage.use() if self._usage is not None else contextlib.nullcontext():
            async with self._observed():
                yield

    @contextlib.asynccontextmanager
    async def _observed(self) -> AsyncIterator[None]:
        """When the way to the guest ends under a call, raise what the watcher found out, not what the call saw."""
        watcher, stopped = self._watcher, self._stopped
        try:
            yield
        except SandboxError as error:
            unavailable = isinstance(error, Unavailable)
            if self._stopped is not None and (unavailable or self._stopped is not stopped):
                raise self._stopped from error
            if not unavailable:
                raise
            if watcher is not None and self.failure is None:
                await asyncio.wait({watcher}, timeout=1.0)
            if self.failure is not None and error is not self.failure:
                raise self.failure from error
            raise

    def _require(self, verb: str) -> None:
        legal = _LEGAL[verb]
        if self.state not in legal:
            needed = " or ".join(sorted(state.value for state in legal))
            what = "this" if verb == "use" else verb
            why = f" ({self.failure})" if self.state is State.STOPPED and self.failure is not None else ""
            raise FailedPrecondition(f"{self.name} is {self.state.value}{why}; {what} needs it {needed}")

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self.loop:
            raise FailedPrecondition(
                f"{self.name} belongs to the event loop it was started in, which is another one; "
                "a Sandbox serves them all, and threads"
            )

    def _use(self) -> Running:
        if self.state is State.FAILED and self.failure is not None:
            raise self.failure
        self._require("use")
        self._check_loop()
        assert self._running is not None
        return self._running

    async def _watch(self, running: Running) -> None:
        self.failure = await running.wait_gone()
        self._lift_limits()
        self.state = State.FAILED
        # Every call in flight ends now, with the client, and so does who is attached to the console; then every
        # stream, with the machine.
        running.machine.console.hang_up()
        await running.client.aclose()
        await running.machine.close()

    async def _limit(self, options: Options) -> None:
        """Stop the machine when one of its limits is reached."""
        assert self._usage is not None
        why = await limits.reached(self._usage, options.idle_timeout, options.max_lifetime)
        logger.warning("%s is stopped: %s", self.name, why)
        await self._stop(f"{self.name} was stopped: {why}", POWER_OFF_TIMEOUT)
        self.failure = self._stopped

    async def _stop(self, why: str, timeout: float) -> None:
        graceful = self.state is State.RUNNING
        self.state, self._stopped = State.STOPPING, Stopped(why)
        self._lift_limits()
        try:
            if graceful:
                await self._power_off(timeout)
        finally:
            await asyncio.shield(self._finish_stop())

    def _lift_limits(self) -> None:
        if self._limiter is not None and self._limiter is not asyncio.current_task():
            self._limiter.cancel()
            self._limiter = None

    async def _power_off(self, timeout: float) -> None:
        running = self._running
        assert running is not None
        self._stop_watching()
        # Whatever a guest answers, or does not, it is ended by force next.
        with contextlib.suppress(SandboxError, TimeoutError):
            async with asyncio.timeout(timeout):
                await PowerClient(running.client).off()
                # The agent hangs up once all is written and unmounted. The guest's kernel would take its devices
                # down now, one by one and for nobody.
                await running.client.wait_closed()

    async def _finish_stop(self) -> None:
        # One piece of work that goes on when the stop is cancelled, so that the state never stays STOPPING.
        try:
            await self._clean_up()
        finally:
            self.state = State.STOPPED

    async def _clean_up(self) -> None:
        self._stop_watching()
        running, self._running = self._running, None
        forwarder, self._forwarder = self._forwarder, None
        if forwarder is not None:
            await forwarder.close()
        if self._lens is not None:
            await self._lens.close()
        if running is not None:
            await running.close()

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None


@contextlib.asynccontextmanager
async def _deadline(timeout: float | None, message: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout) as scope:
            yield
    except TimeoutError as error:
        if scope.expired() and not isinstance(error, DeadlineExceeded):
            raise DeadlineExceeded(message) from error
        raise


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="replace")
