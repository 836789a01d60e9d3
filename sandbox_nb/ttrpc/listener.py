"""Listening sockets on asyncio.

asyncio's own server, when it closes, forgets connections that it has accepted and not set up yet; their clients
would wait for ever. This one sees them through.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

BACKLOG: Final = 128
PAUSE: Final = 1.0
"""Seconds before accepting again, after it failed for want of descriptors or memory."""


class Listener:
    """A listening socket, whose connections each get a protocol of ``make_protocol``."""

    def __init__(self, sock: socket.socket, make_protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._make_protocol = make_protocol
        self._file = _identity_of(sock)
        self._beginning: set[asyncio.Task[object]] = set()
        self._resuming: asyncio.TimerHandle | None = None
        self._resume()

    async def aclose(self) -> None:
        """Accept nothing more, remove the socket's file, and see connections that were accepted set up."""
        self._pause()
        self._sock.close()
        if self._file is not None:
            path, identity = self._file
            if _identity(path) == identity:  # somebody else's may be there by now
                path.unlink()
        while self._beginning:
            await asyncio.wait(self._beginning)

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._sock, self._accept)

    def _pause(self) -> None:
        self._loop.remove_reader(self._sock)
        if self._resuming is not None:
            self._resuming.cancel()

    def _accept(self) -> None:
        try:
            connection, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client has left since
        except OSError as error:
            logger.error("ttrpc: cannot accept a connection: %s", error)
            self._pause()
            self._resuming = self._loop.call_later(PAUSE, self._resume)
            return
        connection.setblocking(False)
        setting_up = self._loop.connect_accepted_socket(self._make_protocol, connection)
        task = self._loop.create_task(setting_up)
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)


def bind(path: Path) -> socket.socket:
    """Return a socket that listens at a path, in the place of one that nobody listens on any more."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_stale(path):
            path.unlink()
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _is_stale(path: Path) -> bool:
    """Whether a dead process left a socket here."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.setblocking(False)
                return sock.connect_ex(str(path)) == errno.ECONNREFUSED
    return False


def _identity_of(sock: socket.socket) -> tuple[Path, tuple[int, int] | None] | None:
    """Return the path and the identity of a UNIX socket's file, if it has one."""
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX or not isinstance(name, str) or not name:
        return None
    return Path(name), _identity(Path(name))


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(FileNotFoundError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None
