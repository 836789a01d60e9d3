"""A running process of the guest as its user has it: with asyncio streams, or with files that block."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import socket
from typing import TYPE_CHECKING, BinaryIO, cast

from sandbox_nb import streams
from sandbox_nb.background import BACKGROUND, Runner
from sandbox_nb.command import Command, describe
from sandbox_nb.errors import FailedPrecondition, Unavailable
from sandbox_nb.process import RawProcess

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

__all__ = ["AsyncProcess", "Process"]


class BaseProcess:
    """What is known of a process without asking the guest; ``raw`` is it, with the sockets of its pipes."""

    def __init__(self, raw: RawProcess) -> None:
        self.raw = raw

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


class AsyncProcess(BaseProcess):
    """A process in the guest with its pipes as asyncio streams: what ``AsyncSandbox.popen`` returns.

    ``stdin`` is a StreamWriter, ``stdout`` and ``stderr`` are StreamReaders; None where it is not a pipe. With a
    tty, ``stdin`` and ``stdout`` are the two directions of its terminal.
    """

    def __init__(self, raw: RawProcess) -> None:
        super().__init__(raw)
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


class Process(BaseProcess):
    """A process in the guest with its pipes as binary files: what ``Sandbox.popen`` returns.

    ``stdin`` is written (and flushed, or closed), ``stdout`` and ``stderr`` are read; None where it is not a pipe.
    With a tty, ``stdin`` and ``stdout`` are the two directions of its terminal.
    """

    def __init__(self, raw: RawProcess, runner: Runner = BACKGROUND) -> None:
        super().__init__(raw)
        self._runner = runner
        self.stdin: BinaryIO | None = None
        self.stdout: BinaryIO | None = None
        self.stderr: BinaryIO | None = None
        for number, sock in raw.sockets.items():
            sock.setblocking(True)
            if number == 0 or raw.tty:
                self.stdin = cast(BinaryIO, _WritePipe(sock))
            if number == 1:
                self.stdout = cast(BinaryIO, sock.makefile("rb"))
            elif number == 2:
                self.stderr = cast(BinaryIO, sock.makefile("rb"))

    @property
    def terminal(self) -> socket.socket:
        """The socket of its terminal, both directions. Raises FailedPrecondition when it has none."""
        if not self.raw.tty:
            raise FailedPrecondition(f"{describe(self.args)} was started without tty=")
        return self.raw.sockets[1]

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return ``returncode``. Raises DeadlineExceeded when ``timeout`` seconds pass."""
        return self._runner.wait(self.raw.wait(timeout))

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        self._runner.wait(self.raw.send_signal(number))

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and every process it started."""
        self._runner.wait(self.raw.kill())

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal a new size."""
        self._runner.wait(self.raw.resize(rows, columns))

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it if it still runs, and close the pipes."""
        if self.returncode is None:
            # A machine that is gone has taken the process with it.
            with contextlib.suppress(Unavailable):
                self.kill()
                self.wait()
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()
        self.raw.close()


class _WritePipe(io.RawIOBase):
    """The writing direction of a stream socket. Closing it ends that direction alone."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._sock.fileno()

    def write(self, data: Buffer, /) -> int:
        self._sock.sendall(data)
        return memoryview(data).nbytes

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        super().close()
