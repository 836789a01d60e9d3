"""The guest's serial console: the last of it in memory, the first of it in a file."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

from sandbox_nb.vm.log import LogFile
from sandbox_nb.vm.ring import Ring


class Console:
    """Reads one end of a socket pair whose other end QEMU's serial port holds.

    Belongs to the event loop in which it was made.
    """

    def __init__(self, sock: socket.socket, path: Path) -> None:
        """Write to ``path``, which is made anew. Raises OSError when it cannot be."""
        self.ring = Ring()
        self.path = path
        self._sock = sock
        self._sock.setblocking(False)
        self._file = LogFile(path.open("wb", buffering=0))
        self._attached: set[socket.socket] = set()
        self._awaited: tuple[bytes, asyncio.Future[None]] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)

    async def wait_for(self, text: bytes) -> None:
        """Wait until the guest has written ``text`` among its last bytes. One waits at a time."""
        self._awaited = (text, self._loop.create_future())
        self._look()
        try:
            await self._awaited[1]
        finally:
            self._awaited = None

    def attach(self) -> socket.socket:
        """A connected, non-blocking socket that gets what the guest wrote last and writes from now on, and types.

        A serial line knows no flow control: what a reader does not take in time is lost to it, and to nobody else.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._attached.add(ours)
        self._loop.add_reader(ours, self._type, ours)
        self._offer(ours, bytes(self.ring))
        return theirs

    def hang_up(self) -> None:
        """End the sockets of all who are attached. What the guest writes is kept all the same."""
        for reader in tuple(self._attached):
            self._detach(reader)

    def close(self) -> None:
        """Take what is still to be read, then let go of socket and file. Idempotent."""
        if self._sock.fileno() < 0:
            return
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := self._sock.recv(64 * 1024):
                self._keep(data)
        self._loop.remove_reader(self._sock)
        self.hang_up()
        self._sock.close()
        self._file.close()

    def _read(self) -> None:
        try:
            data = self._sock.recv(64 * 1024)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            self._keep(data)
        else:
            self._loop.remove_reader(self._sock)

    def _type(self, reader: socket.socket) -> None:
        try:
            data = reader.recv(4096)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._detach(reader)
            return
        # QEMU takes what a person types at once; a paste beyond its buffer is cut, as on a real line.
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._sock.send(data)

    def _offer(self, reader: socket.socket, data: bytes) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            reader.send(data)

    def _detach(self, reader: socket.socket) -> None:
        self._loop.remove_reader(reader)
        self._attached.discard(reader)
        reader.close()

    def _look(self) -> None:
        if self._awaited is not None and self._awaited[0] in bytes(self.ring) and not self._awaited[1].done():
            self._awaited[1].set_result(None)

    def _keep(self, data: bytes) -> None:
        self.ring.feed(data)
        self._look()
        for reader in tuple(self._attached):
            self._offer(reader, data)
        self._file.write(data)
