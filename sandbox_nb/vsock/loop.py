"""One epoll, and who is told of what it reports."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
EDGE = select.EPOLLET
PEER_DONE = select.EPOLLRDHUP
"""The peer has shut down its sending side, or closed."""
HANG_UP = select.EPOLLHUP
"""Both directions are shut down. Always reported, as is ERROR."""
ERROR = select.EPOLLERR


class Closable(Protocol):
    """A socket."""

    def fileno(self) -> int:
        """Its file descriptor."""

    def close(self) -> None:
        """Close it."""


class Loop:
    """Handlers by file descriptor.

    What is discarded is closed before the next round: until then its number cannot be given to another socket, so
    no event of this round reaches the wrong one.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._discarded: list[Closable] = []

    def watch(self, fd: int, events: int, handler: Callable[[int], object]) -> None:
        """Call `handler` with the events that happen to `fd`; READ, WRITE, PEER_DONE are reported if asked for."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def rewatch(self, fd: int, events: int) -> None:
        """Change the events asked for; those that are true already are reported again."""
        self._epoll.modify(fd, events)

    def hand_over(self, fd: int, events: int, handler: Callable[[int], object]) -> None:
        """Change who is told; the new handler hears again of what the old one was told."""
        self._handlers[fd] = handler
        self._epoll.modify(fd, events)

    def ignore(self, fd: int) -> None:
        """Watch `fd` no longer, before it is closed or given away."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def discard(self, sock: Closable) -> None:
        """Watch a socket no longer, if it was watched, and close it before the next round."""
        if sock.fileno() in self._handlers:
            self.ignore(sock.fileno())
        self._discarded.append(sock)

    def run_once(self, timeout: float | None) -> None:
        """Wait up to `timeout` seconds (None: for ever) for events, and handle one round of them."""
        if self._discarded:
            for sock in self._discarded:
                sock.close()
            self._discarded.clear()
        handlers = self._handlers
        for fd, events in self._epoll.poll(timeout):
            if handler := handlers.get(fd):
                handler(events)

    def close(self) -> None:
        """Close the epoll and what was discarded, not what is watched."""
        for sock in self._discarded:
            sock.close()
        self._epoll.close()
