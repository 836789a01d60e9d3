"""What the machine of one sandbox is used through: streams, processes, files, forwards and the lens."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

from sandbox_nb import streams
from sandbox_nb.command import Start
from sandbox_nb.deadline import deadline
from sandbox_nb.errors import DeadlineExceeded, FailedPrecondition
from sandbox_nb.files.service import Files
from sandbox_nb.forward import AsyncForward, Forwarder
from sandbox_nb.guest.proto.files_ttrpc import FilesClient
from sandbox_nb.guest.proto.process_ttrpc import ProcessClient
from sandbox_nb.lens.recorder import AsyncLens
from sandbox_nb.life import Life
from sandbox_nb.process import RawProcess

__all__ = ["OPEN_TIMEOUT", "Services"]

OPEN_TIMEOUT = 30.0
"""Seconds a guest gets to answer that a stream is open."""


class Services:
    """One object for each kind of work with a machine, whichever machine the sandbox has at the time.

    Each method raises FailedPrecondition unless it runs. What lives beyond a call ends with the machine.
    """

    def __init__(self, life: Life) -> None:
        self.life = life
        self._forwarder: Forwarder | None = None
        self._lens: AsyncLens | None = None
        life.before_end(self._close)

    async def open_stream(self, identity: str, *, timeout: float | None = OPEN_TIMEOUT) -> socket.socket:
        """Open a stream and return its connected, non-blocking socket."""
        link = self.life.current().link
        async with deadline(
            timeout, lambda: DeadlineExceeded(f"stream {identity!r} was not opened within {timeout} s")
        ):
            return await streams.open_stream(link.dial, identity)

    async def spawn(self, start: Start) -> RawProcess:
        """Start a process, which is a use of the machine until its end."""
        service = ProcessClient(self.life.current().client)
        raw = await RawProcess.start(service, self.open_stream, start, self.life.explained)
        self.life.use_until(raw.when_ended)
        return raw

    @property
    def files(self) -> Files:
        """The files and folders of the guest."""
        return Files(FilesClient(self.life.current().client), self._stream)

    @property
    def forwarder(self) -> Forwarder:
        """Ports and sockets joined."""
        client = self.life.current().client
        if self._forwarder is None:
            self._forwarder = Forwarder(client, self.open_stream)
        return self._forwarder

    @property
    def forwards(self) -> list[AsyncForward]:
        """What is forwarded now; in any state."""
        return self._forwarder.forwards if self._forwarder is not None else []

    async def trace(self) -> AsyncLens:
        """Record what crosses. Raises FailedPrecondition when it is recorded already."""
        running = self.life.current()
        if self._lens is not None and not self._lens.closed:
            raise FailedPrecondition(f"{self.life.name} is being traced already; close that lens first")
        self._lens = await AsyncLens.open(running.client, running.machine, running.link)
        return self._lens

    @contextlib.asynccontextmanager
    async def _stream(self) -> AsyncIterator[tuple[str, socket.socket]]:
        """A stream of our own for one file, and its name for the agent."""
        identity = streams.new_id()
        sock = await self.open_stream(identity)
        try:
            yield streams.name(identity), sock
        finally:
            sock.close()

    async def _close(self) -> None:
        forwarder, self._forwarder = self._forwarder, None
        if forwarder is not None:
            await forwarder.close()
        if self._lens is not None:
            await self._lens.close()
