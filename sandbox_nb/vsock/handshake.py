r"""The door for hosts: a socket that takes `CONNECT <port>\n`, as Firecracker's does."""

from __future__ import annotations

import itertools
import socket
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from .loop import ERROR, HANG_UP, PEER_DONE, READ
from .stream import EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

TIMEOUT = 5.0
"""Seconds for each step of opening a connection: the CONNECT line, the guest's answer, the host's accept."""

MAX_LINE = 32
"""Longest CONNECT line, in bytes."""

LAST_PORT = (1 << 32) - 2
"""The highest port: one more means any."""

_Key = TypeVar("_Key")


def parse_line(line: bytes) -> int | None:
    """The port a CONNECT line (without its newline) asks for; None if it is none."""
    word, _, number = line.partition(b" ")
    if word.upper() != b"CONNECT" or not number.isdigit():
        return None
    port = int(number)
    return port if port <= LAST_PORT else None


def overdue(waiting: dict[_Key, float], now: float) -> list[_Key]:
    """The keys whose time has come. All in a table wait equally long, so those stand at its beginning."""
    return [key for key, _ in itertools.takewhile(lambda item: item[1] <= now, waiting.items())]


class Handshakes:
    """Connections that have not said yet which port they want.

    `admit` tells whether one more may come in; `on_request` gets the socket, still watched, and the port. Whatever
    follows the line is still in the socket then.
    """

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        *,
        admit: Callable[[], bool],
        on_request: Callable[[socket.socket, int], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._admit = admit
        self._on_request = on_request
        self._waiting: dict[socket.socket, float] = {}
        loop.watch(listener.fileno(), READ, self._accept)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def deadline(self) -> float | None:
        """When `expire` is next needed, in seconds of the monotonic clock."""
        return next(iter(self._waiting.values())) if self._waiting else None

    def expire(self, now: float) -> None:
        """Give up those who said nothing for too long."""
        for sock in overdue(self._waiting, now):
            self._refuse(sock)

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # gone again already
            return
        if not self._admit():
            sock.close()
            return
        sock.setblocking(False)
        self._waiting[sock] = monotonic() + TIMEOUT
        self._loop.watch(sock.fileno(), EVENTS, lambda events: self._on_socket(sock, events))

    def _on_socket(self, sock: socket.socket, events: int) -> None:
        """Look for the line without taking what follows it out of the socket."""
        try:
            line, newline, _ = sock.recv(MAX_LINE, socket.MSG_PEEK).partition(b"\n")
        except BlockingIOError:
            return
        if not newline:
            if len(line) == MAX_LINE or events & (PEER_DONE | HANG_UP | ERROR):
                self._refuse(sock)
            return
        port = parse_line(line)
        if port is None:
            self._refuse(sock)
            return
        sock.recv(len(line) + 1)
        del self._waiting[sock]
        self._on_request(sock, port)

    def _refuse(self, sock: socket.socket) -> None:
        del self._waiting[sock]
        self._loop.discard(sock)
