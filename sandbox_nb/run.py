"""A command from its start to its end: fed, its output kept or handed on, and how it ended."""

from __future__ import annotations

import asyncio
import codecs
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypedDict, TypeVar

from sandbox_nb import streams
from sandbox_nb.command import Command, Start, describe
from sandbox_nb.deadline import deadline
from sandbox_nb.errors import InvalidArgument, ProcessFailed, ProcessTimedOut, ResourceExhausted
from sandbox_nb.process import RawProcess
from sandbox_nb.together import together

__all__ = ["Completed", "Echo", "Output", "RunKeywords", "Sink", "check_sink", "communicate", "run"]

MAX_OUTPUT = 512 << 20
"""Bytes kept of a command's output, at most."""

Sink = Callable[[int, bytes], Awaitable[None] | None]
"""Takes output as it comes: the file descriptor (1 or 2) and what was written to it.

What it returns, unless None, is awaited before more is read of that descriptor, so a slow taker slows the command
instead of filling memory.
"""

Kept = TypeVar("Kept")


def check_sink(sink: object) -> None:
    """Raise InvalidArgument unless it can take output, or is None."""
    if sink is not None and not callable(sink):
        raise InvalidArgument(f"stream={sink!r}: True, or a function of a file descriptor and bytes, is needed")


class RunKeywords(TypedDict, total=False):
    """What can be said of a command beside itself; AsyncSandbox.run describes each."""

    input: str | bytes | None
    stream: bool | Sink
    capture_output: bool
    stderr: int
    check: bool
    timeout: float | None
    env: Mapping[str, str] | None
    cwd: str | os.PathLike[str]
    user: str


class Completed(subprocess.CompletedProcess[Kept]):
    """How a command ended: ``args``, ``returncode``, ``stdout``, ``stderr``, as in ``subprocess``.

    What was not captured, or went with the other (``stderr=STDOUT``), is None. ``returncode`` is negative when a
    signal ended it; ``out_of_memory`` says that the guest's kernel did, for want of memory.
    """

    def __init__(
        self, args: Command, returncode: int, stdout: Kept, stderr: Kept, *, out_of_memory: bool = False
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.out_of_memory = out_of_memory

    def check_returncode(self) -> None:
        """Raise ProcessFailed unless the command ended with 0."""
        if self.returncode:
            raise ProcessFailed(self.returncode, self.args, self.stdout, self.stderr)


class Echo:
    """A sink that shows output where ``print`` would. Invalid UTF-8 is replaced."""

    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")
        # One for each, since a character may come in two pieces with a piece of the other between them.
        self._decoders = {1: decoder("replace"), 2: decoder("replace")}

    def __call__(self, number: int, data: bytes) -> None:
        """Show a piece as it comes."""
        out = sys.stderr if number == 2 else sys.stdout
        out.write(self._decoders[number].decode(data))
        out.flush()


class Output:
    """What a command writes: given to ``sink`` as it comes, and kept when it is to be (``keep``)."""

    def __init__(self, command: Command, *, sink: Sink | None = None, keep: bool = True) -> None:
        check_sink(sink)
        self._command = command
        self._sink = sink
        self.keep = keep
        self._kept = {1: bytearray(), 2: bytearray()}

    def kept(self, number: int) -> bytes:
        """What was kept until now of a file descriptor, 1 or 2."""
        return bytes(self._kept[number])

    def take(self, number: int, data: bytes) -> Awaitable[None] | None:
        """Take a piece of a file descriptor. Raises ResourceExhausted for more to keep than MAX_OUTPUT."""
        if self.keep:
            self._collect(number, data)
        return self._sink(number, data) if self._sink is not None else None

    def within(self, timeout: float | None) -> AbstractAsyncContextManager[None]:
        """A block for the command that, after ``timeout`` seconds, raises ProcessTimedOut with what is kept."""
        return deadline(
            timeout, lambda: ProcessTimedOut(describe(self._command), timeout or 0.0, self.kept(1), self.kept(2))
        )

    def _collect(self, number: int, data: bytes) -> None:
        if sum(map(len, self._kept.values())) + len(data) > MAX_OUTPUT:
            raise ResourceExhausted(
                f"{describe(self._command)} wrote more than the {MAX_OUTPUT >> 20} MiB that are kept of an "
                "output: take it as it comes, stream=FUNCTION, capture_output=False"
            )
        self._kept[number].extend(data)


async def communicate(raw: RawProcess, output: Output, *, data: bytes = b"", timeout: float | None = None) -> None:
    """Feed ``data`` to a process, have ``output`` take what it writes, and wait for its end.

    When time is up or the caller is cancelled, the process and all it started are killed first. Raises
    ProcessTimedOut, ResourceExhausted for more to keep than MAX_OUTPUT, and what a sink raises.
    """
    feeding = [streams.feed(raw.sockets[0], data)] if 0 in raw.sockets else []
    try:
        async with output.within(timeout):
            await together(*feeding, raw.hear(output.take), raw.wait())
    finally:
        if raw.returncode is None:
            await asyncio.shield(raw.kill())
        raw.close()


async def run(
    spawn: Callable[[Start], Awaitable[RawProcess]],
    start: Start,
    output: Output,
    *,
    data: bytes,
    text: bool,
    timeout: float | None,
) -> Completed[Any]:
    """Start a command with ``spawn``, see it to its end, and return how it ended, with what ``output`` kept.

    ``timeout`` in seconds is for all of it. Raises what ``communicate`` does.
    """
    async with output.within(timeout):
        raw = await spawn(start)
        await communicate(raw, output, data=data)
    assert raw.returncode is not None
    # What nobody collected is None, as in subprocess.
    kept = [output.kept(number) if output.keep and number in raw.pipes else None for number in (1, 2)]
    shown = [data.decode(errors="replace") if text and data is not None else data for data in kept]
    return Completed(start.command, raw.returncode, *shown, out_of_memory=raw.out_of_memory)
