"""Processes in the guest: started, fed, read, waited for and ended; and whole files, which travel the same way."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

from sandbox_nb import streams
from sandbox_nb.errors import (
    DeadlineExceeded,
    InvalidArgument,
    ProcessFailed,
    ProcessTimedOut,
    ResourceExhausted,
    SandboxError,
    Unavailable,
)
from sandbox_nb.guest.proto.process_pb2 import (
    CloseIORequest,
    KillRequest,
    PidsRequest,
    ResizePtyRequest,
    StartRequest,
    WaitRequest,
    WaitResponse,
    WindowSize,
)
from sandbox_nb.guest.proto.process_ttrpc import ProcessClient
from sandbox_nb.together import together

__all__ = ["DEVNULL", "PIPE", "STDOUT", "AsyncProcess", "Completed"]

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
STDOUT = subprocess.STDOUT

MAX_OUTPUT = 512 << 20
"""Bytes kept of a command's output, at most."""

KILL_TIMEOUT = 2.0
"""Seconds a guest gets to answer that a process was killed. One that is frozen never does."""

Command = str | Sequence[str | bytes]
"""A str is for the guest's shell (``sh -c``), a list is argv."""

Sink = Callable[[int, bytes], Awaitable[None] | None]
"""Takes output as it comes: the file descriptor (1 or 2) and what was written to it.

What it returns, unless None, is awaited before more is read of that descriptor, so a slow taker slows the command
instead of filling memory.
"""

Output = TypeVar("Output")


class RunKeywords(TypedDict, total=False):
    """What can be said of a command beside itself; AsyncSandbox.run describes each."""

    input: str | bytes | None
    stream: bool | Sink
    capture_output: bool
    stderr: int
    check: bool
    timeout: float | None
    env: Mapping[str, str] | None
    cwd: str
    user: str


OpenStream = Callable[[str], Awaitable[socket.socket]]
"""Opens the stream of an id and returns its connected, non-blocking socket."""


Explained = Callable[[], AbstractAsyncContextManager[None]]
"""Makes a block in which an error that only says that the connection ended becomes one that says why."""


class Echo:
    """A sink that shows output where ``print`` would, as it comes. Invalid UTF-8 is replaced."""

    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")
        # One for each, since a character may come in two pieces with a piece of the other between them.
        self._decoders = {1: decoder("replace"), 2: decoder("replace")}

    def __call__(self, number: int, data: bytes) -> None:
        out = sys.stderr if number == 2 else sys.stdout
        out.write(self._decoders[number].decode(data))
        out.flush()


class Completed(subprocess.CompletedProcess[Output]):
    """How a command ended: ``args``, ``returncode``, ``stdout``, ``stderr``, as in ``subprocess``.

    What was not captured, or went with the other (``stderr=STDOUT``), is None. ``returncode`` is negative when a
    signal ended it; ``out_of_memory`` says that the guest's kernel did, for want of memory.
    """

    def __init__(
        self, args: Command, returncode: int, stdout: Output, stderr: Output, *, out_of_memory: bool = False
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.out_of_memory = out_of_memory

    def check_returncode(self) -> None:
        """Raise ProcessFailed unless the command ended with 0."""
        if self.returncode:
            raise ProcessFailed(self.returncode, self.args, self.stdout, self.stderr)


@dataclass(frozen=True)
class Start:
    """What is to be started. ``stdin``, ``stdout`` and ``stderr`` are PIPE, DEVNULL or the id of a stream.

    ``stderr`` may be STDOUT too. ``tty`` is the size of its terminal, (rows, columns), or None for none.
    """

    command: Command
    env: Mapping[str, str] | None = None
    cwd: str | os.PathLike[str] = ""
    user: str = ""
    stdin: int | str = PIPE
    stdout: int | str = PIPE
    stderr: int | str = PIPE
    tty: tuple[int, int] | None = None

    def request(self, identity: str) -> StartRequest:
        """The call that starts it, but for the streams. Raises InvalidArgument for what cannot be meant."""
        if not isinstance(self.user, str):
            raise InvalidArgument(f"user={self.user!r}: the name of a user is needed")
        request = StartRequest(
            id=identity,
            args=self._argv(),
            env=self._environment(),
            cwd=guest_bytes("cwd", self.cwd),
            user=guest_bytes("user", self.user, errors="strict").decode(),
        )
        if self.tty is not None:
            if not isinstance(self.tty, tuple) or len(self.tty) != 2:
                raise InvalidArgument(f"tty={self.tty!r}: (rows, columns) are needed")
            request.tty.CopyFrom(_window(*self.tty))
        return request

    def _argv(self) -> list[bytes]:
        command = self.command
        if isinstance(command, str):
            return [b"sh", b"-c", guest_bytes("command", command)]
        if not isinstance(command, Sequence) or isinstance(command, (bytes, bytearray, memoryview)):
            raise InvalidArgument(f"the command {command!r} is neither text nor a list")
        if not command:
            raise InvalidArgument("the command is an empty list")
        return [guest_bytes(f"command[{index}]", part) for index, part in enumerate(command)]

    def _environment(self) -> list[bytes]:
        env = {} if self.env is None else self.env
        if not isinstance(env, Mapping):
            raise InvalidArgument(f"env={env!r}: a mapping of names to values is needed")
        for name, value in env.items():
            if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name:
                raise InvalidArgument(f"env has {name!r}={value!r}, which cannot be a variable")
        return [guest_bytes("env", f"{name}={value}") for name, value in env.items()]


def guest_bytes(what: str, value: Any, *, errors: str = "surrogateescape") -> bytes:
    """Text, bytes or a path as the guest gets it, UTF-8.

    ``errors`` says whether characters that stand for undecodable bytes may be in it. Raises InvalidArgument, which
    calls it ``what``, for any other value and for a NUL byte.
    """
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise InvalidArgument(f"{what}={value!r}: text is needed")
    path = os.fspath(value)
    try:
        encoded = path.encode(errors=errors) if isinstance(path, str) else path
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{what}={value!r} cannot be UTF-8: {error.reason}") from None
    if b"\0" in encoded:
        raise InvalidArgument(f"{what}={value!r} holds a NUL byte")
    return encoded


def guest_data(what: str, value: Any) -> bytes:
    """Text, as UTF-8, or bytes. Raises InvalidArgument, which calls it ``what``, for anything else."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"{what} cannot be UTF-8: {error.reason} at {error.start}; pass bytes") from None
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise InvalidArgument(f"{what}={value!r}: text or bytes are needed")
    return bytes(value)


def checked_timeout(seconds: object) -> float | None:
    """Seconds, or None for no limit. Raises InvalidArgument for anything else."""
    if seconds is None or (isinstance(seconds, (int, float)) and not isinstance(seconds, bool)):
        return seconds
    raise InvalidArgument(f"timeout={seconds!r}: seconds, or None, are needed")


def _window(rows: object, columns: object) -> WindowSize:
    for name, size in (("rows", rows), ("columns", columns)):
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= 0xFFFF:
            raise InvalidArgument(f"{name}={size!r}: a whole number from 0 to 65535 is needed")
    return WindowSize(rows=rows, columns=columns)  # type: ignore[arg-type]


class RawProcess:
    """A process in the guest with the sockets of its pipes; what AsyncProcess and Process share.

    ``sockets`` maps 0, 1 and 2 to connected, non-blocking sockets, as far as they are pipes of ours. With a tty
    there is one, in both directions, under 1.
    """

    def __init__(self, service: ProcessClient, start: Start, identity: str, explained: Explained) -> None:
        self.args = start.command
        self.tty = start.tty is not None
        self.id = identity
        self.pid = 0
        self.sockets: dict[int, socket.socket] = {}
        self._service = service
        self._explained = explained
        self._waiting: asyncio.Task[WaitResponse] | None = None

    @classmethod
    async def start(
        cls, service: ProcessClient, open_stream: OpenStream, start: Start, explained: Explained
    ) -> RawProcess:
        """Open the pipes, start the process. Raises the agent's error, and leaves nothing, when it refuses.

        Later calls are made within ``explained()``, which says why when the machine is gone.
        """
        process = cls(service, start, f"p-{secrets.token_hex(8)}", explained)
        request = start.request(process.id)
        try:
            await process._begin(request, process._name_pipes(request, start), open_stream)
            process._watch()
        except BaseException:
            process.close()
            raise
        return process

    async def _begin(self, request: StartRequest, pipes: Mapping[int, str], open_stream: OpenStream) -> None:
        """Open the pipes and start the process, all at once: the agent waits for streams that come later."""

        async def open_one(number: int, identity: str) -> None:
            # Kept the moment it is open, so that whoever is cancelled meanwhile closes it.
            self.sockets[number] = await open_stream(identity)

        try:
            await together(*(open_one(*pipe) for pipe in pipes.items()), self._start(request))
        except BaseException:
            if self.pid:
                await self.kill()
            raise

    async def _start(self, request: StartRequest) -> None:
        starting = asyncio.ensure_future(self._service.start(request))
        try:
            self.pid = (await asyncio.shield(starting)).pid
        except asyncio.CancelledError:
            # The guest starts it all the same; what nobody waits for may not run on.
            with contextlib.suppress(SandboxError, TimeoutError):
                async with asyncio.timeout(KILL_TIMEOUT):
                    await starting
                await self.kill()
            raise

    def _watch(self) -> None:
        # The agent forgets a process once its Wait was answered, so the one call is shared by all who wait, and
        # goes on when one of them is cancelled.
        self._waiting = asyncio.ensure_future(self._service.wait(WaitRequest(id=self.id)))
        # A machine that dies with nobody waiting is not an error nobody retrieved.
        self._waiting.add_done_callback(lambda task: task.cancelled() or task.exception())

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once it has ended, or the machine has."""
        assert self._waiting is not None
        self._waiting.add_done_callback(lambda _: callback())

    @property
    def _ended(self) -> WaitResponse | None:
        task = self._waiting
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result()

    def _name_pipes(self, request: StartRequest, start: Start) -> dict[int, str]:
        """Say in ``request`` where the standard files go; return the streams to open for them, by number."""
        wanted: dict[int, str] = {}
        for number, (name, value) in enumerate(
            (("stdin", start.stdin), ("stdout", start.stdout), ("stderr", start.stderr))
        ):
            if isinstance(value, str):
                setattr(request, name, streams.name(value))
            elif value == STDOUT and number == 2:
                continue
            elif value == PIPE and not (start.tty and number != 1):
                wanted[number] = f"{self.id}-{number}"
                setattr(request, name, streams.name(wanted[number]))
            elif value not in (PIPE, DEVNULL):
                raise InvalidArgument(f"{name}={value!r}: PIPE, DEVNULL or the id of a stream is needed")
        if start.tty is not None:
            request.stdin, request.stderr = request.stdout, ""
        elif start.stderr == STDOUT:
            request.stderr = request.stdout
        return wanted

    @property
    def returncode(self) -> int | None:
        """The exit status once it was waited for; negative: the signal that ended it."""
        if (ended := self._ended) is None:
            return None
        return -int(ended.signal) if ended.signal else int(ended.exit_code)

    @property
    def out_of_memory(self) -> bool:
        """Whether the guest's kernel ended it for want of memory."""
        ended = self._ended
        return ended is not None and ended.out_of_memory

    async def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return ``returncode``. Raises DeadlineExceeded when ``timeout`` seconds pass."""
        assert self._waiting is not None
        done, _ = await asyncio.wait({self._waiting}, timeout=timeout)
        if not done:
            raise DeadlineExceeded(f"{describe(self.args)} did not end within {timeout} s")
        async with self._explained():
            self._waiting.result()
        assert self.returncode is not None
        return self.returncode

    async def send_signal(self, number: int, *, whole_group: bool = False) -> None:
        """Send a signal to it, or to every process it started. Raises NotFound when it is gone."""
        if not isinstance(number, int) or not 1 <= number <= 64:
            raise InvalidArgument(f"signal {number!r}: a number from 1 to 64 is needed")
        async with self._explained():
            await self._service.kill(KillRequest(id=self.id, signal=number, all=whole_group))

    async def kill(self) -> None:
        """End it and every process it started, also those that left its session. Nothing happens if it is gone."""
        with contextlib.suppress(SandboxError):
            await self._service.kill(
                KillRequest(id=self.id, signal=signal.SIGKILL, all=True), timeout=KILL_TIMEOUT
            )

    async def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal a new size."""
        size = _window(rows, columns)
        async with self._explained():
            await self._service.resize_pty(ResizePtyRequest(id=self.id, size=size))

    async def close_stdin(self) -> None:
        """End its standard input, also where that is a stream of the caller's."""
        async with self._explained():
            await self._service.close_io(CloseIORequest(id=self.id))

    async def pids(self) -> list[int]:
        """It and the processes it started."""
        async with self._explained():
            return list((await self._service.pids(PidsRequest(id=self.id))).pids)

    def close(self) -> None:
        """Close our ends of its pipes. Idempotent."""
        for sock in self.sockets.values():
            sock.close()


class AsyncProcess:
    """A process in the guest with its pipes as asyncio streams: what ``AsyncSandbox.popen`` returns.

    ``stdin`` is a StreamWriter, ``stdout`` and ``stderr`` are StreamReaders; None where it is not a pipe. With a
    tty, ``stdin`` and ``stdout`` are the two directions of its terminal.
    """

    def __init__(self, raw: RawProcess) -> None:
        self.raw = raw
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @classmethod
    async def wrap(cls, raw: RawProcess) -> AsyncProcess:
        """Put streams on the sockets of ``raw``."""
        process = cls(raw)
        for number, sock in raw.sockets.items():
            reader, writer = await asyncio.open_connection(sock=sock, limit=streams.READ_SIZE)
            process._writers.append(writer)
            if number == 0 or raw.tty:
                process.stdin = writer
            if number == 1:
                process.stdout = reader
            elif number == 2:
                process.stderr = reader
        return process

    @property
    def args(self) -> Command:
        """The command, as it was given."""
        return self.raw.args

    @property
    def pid(self) -> int:
        """Its process id in the guest."""
        return self.raw.pid

    @property
    def returncode(self) -> int | None:
        """The exit status once it was waited for; negative: the signal that ended it."""
        return self.raw.returncode

    async def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return ``returncode``. Raises DeadlineExceeded when ``timeout`` seconds pass."""
        return await self.raw.wait(timeout)

    async def send_signal(self, number: int) -> None:
        """Send it a signal."""
        await self.raw.send_signal(number)

    async def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        await self.raw.send_signal(signal.SIGTERM)

    async def kill(self) -> None:
        """End it and every process it started."""
        await self.raw.kill()

    async def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal a new size."""
        await self.raw.resize(rows, columns)

    async def __aenter__(self) -> AsyncProcess:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End it if it still runs, and close the pipes."""
        if self.returncode is None:
            # A machine that is gone has taken the process with it.
            with contextlib.suppress(Unavailable):
                await self.kill()
                await self.wait()
        for writer in self._writers:
            writer.close()


async def communicate(
    raw: RawProcess,
    *,
    data: bytes = b"",
    sink: Sink | None = None,
    keep: bool = True,
    timeout: float | None = None,
) -> tuple[bytes, bytes]:
    """Feed ``data`` to a process, collect its output, wait for its end; return (stdout, stderr).

    Output goes to ``sink`` as it comes, and is only collected when it is to ``keep``.
    When time is up or the caller is cancelled, the process and all it started are killed first. Raises
    ProcessTimedOut with the output so far, ResourceExhausted when there is more to keep than MAX_OUTPUT.
    """
    collected = {1: bytearray(), 2: bytearray()}

    def collect(number: int, data: bytes) -> None:
        if len(collected[1]) + len(collected[2]) + len(data) > MAX_OUTPUT:
            raise ResourceExhausted(
                f"{describe(raw.args)} wrote more than the {MAX_OUTPUT >> 20} MiB that are kept of an output: "
                "take it as it comes, stream=FUNCTION, capture_output=False"
            )
        collected[number].extend(data)

    def taker(number: int) -> streams.Taker:
        def take(data: bytes) -> Awaitable[None] | None:
            if keep:
                collect(number, data)
            return sink(number, data) if sink is not None else None

        return take

    feeding = [streams.feed(raw.sockets[0], data)] if 0 in raw.sockets else []
    draining = [streams.drain(raw.sockets[number], taker(number)) for number in (1, 2) if number in raw.sockets]
    try:
        async with asyncio.timeout(timeout) as clock:
            await together(*feeding, *draining, raw.wait())
    except TimeoutError:
        if timeout is None or not clock.expired():
            raise
        raise ProcessTimedOut(describe(raw.args), timeout, bytes(collected[1]), bytes(collected[2])) from None
    finally:
        if raw.returncode is None:
            await asyncio.shield(raw.kill())
        raw.close()
    return bytes(collected[1]), bytes(collected[2])


def describe(command: Command) -> str:
    """A command as one would type it."""
    return command if isinstance(command, str) else shlex.join(os.fsdecode(part) for part in command)
