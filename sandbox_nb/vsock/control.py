"""Control of a running device: a line of JSON asks, a line of JSON answers, on an inherited socket.

    {"id": 1, "command": "statistics"}
    {"id": 2, "command": "trace", "file": true, "snap": 256}

An answer carries the `id` given, and `result` or `error`. "trace" takes what `Device.trace` takes; with neither a
file nor lines it turns the trace off. The file is a path, or `true` for an open descriptor that comes with the
line: the device may have no right to open one. When the other end closes, the device ends. `controller` is that
end.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any

from .loop import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

MAX_LINE = 8192
MAX_FILES = 4
"""Descriptors that may come at once."""


class Control:
    """One controller on a socket; `commands` maps a command's name to what carries it out."""

    def __init__(self, sock: socket.socket, loop: Loop, commands: dict[str, Callable[..., Any]]) -> None:
        self._socket = sock
        self._loop = loop
        self._commands = commands
        self._input = bytearray()
        self._files: list[int] = []
        self._output = bytearray()
        sock.setblocking(False)
        loop.watch(sock.fileno(), READ, self._on_socket)

    def _on_socket(self, events: int) -> None:
        try:
            if events & WRITE:
                self._flush()
            else:
                self._receive()
        except BlockingIOError:
            pass
        except OSError:
            sys.exit(0)

    def _receive(self) -> None:
        data, files, _, _ = socket.recv_fds(self._socket, MAX_LINE, MAX_FILES)
        self._input += data
        self._files += files
        if not data or len(self._input) > 2 * MAX_LINE:
            sys.exit(0)
        while b"\n" in self._input:
            line, _, rest = self._input.partition(b"\n")
            self._input = rest
            self._output += self._answer(bytes(line))
        self._flush()

    def _flush(self) -> None:
        """Write what can be written; as long as an answer waits, no question is read."""
        if self._output:
            del self._output[: self._socket.send(self._output)]
        self._loop.rewatch(self._socket.fileno(), WRITE if self._output else READ)

    def _answer(self, line: bytes) -> bytes:
        import json  # 2 ms of start-up that most devices can do without

        answer: dict[str, Any] = {"id": None}
        try:
            question = json.loads(line)
            answer["id"] = question.pop("id", None)
            command = question.pop("command")
            if question.get("file") is True:
                question["file"] = self._files.pop(0)
            answer["result"] = self._commands[command](**question)
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        return json.dumps(answer).encode() + b"\n"
