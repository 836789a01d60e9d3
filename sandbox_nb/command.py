"""What can be said of a command that is to be started in the guest, and whether it can be meant."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandbox_nb import streams
from sandbox_nb.encoding import guest_bytes
from sandbox_nb.errors import InvalidArgument
from sandbox_nb.guest.proto.process_pb2 import StartRequest, WindowSize

__all__ = ["DEVNULL", "PIPE", "STDOUT", "Command", "Start", "describe", "window_size"]

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
STDOUT = subprocess.STDOUT

Command = str | Sequence[str | bytes]
"""A str is for the guest's shell (``sh -c``), a list is argv."""


@dataclass(frozen=True)
class Start:
    """What is to be started. ``stdin``, ``stdout`` and ``stderr`` are PIPE, DEVNULL or the id of a stream.

    ``stderr`` may be STDOUT too. ``tty`` is the size of its terminal, (rows, columns), or None for none. With
    ``late`` no stream is opened for its outputs unless it goes on after it has spoken: what it said comes with its
    end.
    """

    command: Command
    env: Mapping[str, str] | None = None
    cwd: str | os.PathLike[str] = ""
    user: str = ""
    stdin: int | str = PIPE
    stdout: int | str = PIPE
    stderr: int | str = PIPE
    tty: tuple[int, int] | None = None
    late: bool = False

    def request(self, identity: str) -> StartRequest:
        """The call that starts it under this id. Raises InvalidArgument for what cannot be meant."""
        if not isinstance(self.user, str):
            raise InvalidArgument(f"user={self.user!r}: the name of a user is needed")
        stdin, stdout, stderr = self._streams(identity)
        request = StartRequest(
            id=identity,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            args=self._argv(),
            env=self._environment(),
            cwd=guest_bytes("cwd", self.cwd),
            user=guest_bytes("user", self.user, errors="strict").decode(),
        )
        if self.tty is not None:
            if not isinstance(self.tty, tuple) or len(self.tty) != 2:
                raise InvalidArgument(f"tty={self.tty!r}: (rows, columns) are needed")
            request.tty.CopyFrom(window_size(*self.tty))
        return request

    def pipes(self, identity: str) -> dict[int, str]:
        """The ids of the streams of its pipes, by file descriptor. A terminal is one, under 1."""
        files = enumerate((self.stdin, self.stdout, self.stderr))
        wanted = [number for number, file in files if file == PIPE and (self.tty is None or number == 1)]
        return {number: f"{identity}-{number}" for number in wanted}

    def _streams(self, identity: str) -> tuple[str, str, str]:
        """Where its standard files go: the agent's names of streams, "" for nowhere."""
        pipes = self.pipes(identity)

        def place(number: int, name: str, file: int | str) -> str:
            if isinstance(file, str):
                return streams.name(file)
            if file not in (PIPE, DEVNULL) and not (number == 2 and file == STDOUT):
                raise InvalidArgument(f"{name}={file!r}: PIPE, DEVNULL or the id of a stream is needed")
            if number not in pipes:
                return ""
            return streams.late_name(pipes[number]) if self.late and number else streams.name(pipes[number])

        stdin, stdout = place(0, "stdin", self.stdin), place(1, "stdout", self.stdout)
        stderr = place(2, "stderr", self.stderr)
        if self.tty is not None:
            return stdout, stdout, ""
        return stdin, stdout, stdout if self.stderr == STDOUT else stderr

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


def window_size(rows: object, columns: object) -> WindowSize:
    """The size of a terminal. Raises InvalidArgument for what is none."""
    for name, size in (("rows", rows), ("columns", columns)):
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= 0xFFFF:
            raise InvalidArgument(f"{name}={size!r}: a whole number from 0 to 65535 is needed")
    return WindowSize(rows=rows, columns=columns)  # type: ignore[arg-type]


def describe(command: Command) -> str:
    """A command as one would type it."""
    return command if isinstance(command, str) else shlex.join(os.fsdecode(part) for part in command)
