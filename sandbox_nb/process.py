"""A process in the guest: started, waited for, signalled and ended."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from sandbox_nb import streams
from sandbox_nb.command import Start, describe, window_size
from sandbox_nb.deadline import check_timeout
from sandbox_nb.errors import DeadlineExceeded, Explained, InvalidArgument, ProtocolError, SandboxError
from sandbox_nb.guest.proto.process_pb2 import (
    CloseIORequest,
    KillRequest,
    PidsRequest,
    Piece,
    ResizePtyRequest,
    StartRequest,
    WaitRequest,
    WaitResponse,
)
from sandbox_nb.guest.proto.process_ttrpc import ProcessClient
from sandbox_nb.streams import OpenStream
from sandbox_nb.together import together

__all__ = ["RawProcess"]

MAX_PIECES = 2000
"""Pieces in an answer of the agent's, which keeps about a thousand."""

KILL_TIMEOUT = 2.0
"""Seconds a guest gets to answer that a process was killed. One that is frozen never does."""


class RawProcess:
    """A process in the guest with the sockets of its pipes; what AsyncProcess and Process stand on.

    ``sockets`` maps 0, 1 and 2 to connected, non-blocking sockets, as far as they are pipes of ours. With a tty
    there is one, in both directions, under 1. Those of late outputs come when they are needed: ``hear`` waits.
    """

    def __init__(
        self,
        service: ProcessClient,
        open_stream: OpenStream,
        start: Start,
        identity: str,
        explained: Explained,
    ) -> None:
        self.args = start.command
        self.tty = start.tty is not None
        self.id = identity
        self.pid = 0
        self.pipes = start.pipes(identity)
        self.sockets: dict[int, socket.socket] = {}
        self._late = [number for number in self.pipes if start.late and number]
        self._late_said: Sequence[Piece] = ()
        self._late_settled = asyncio.Event()
        self._closed = False
        self._service = service
        self._open_stream = open_stream
        self._explained = explained
        self._waiting: asyncio.Task[WaitResponse] | None = None

    @classmethod
    async def start(
        cls, service: ProcessClient, open_stream: OpenStream, start: Start, explained: Explained
    ) -> RawProcess:
        """Open the pipes, start the process. Raises the agent's error, and leaves nothing, when it refuses.

        Later calls are made within ``explained()``, which says why when the machine is gone.
        """
        process = cls(service, open_stream, start, f"p-{secrets.token_hex(8)}", explained)
        request = start.request(process.id)
        try:
            await process._begin(request)
        except BaseException:
            process.close()
            raise
        return process

    async def _begin(self, request: StartRequest) -> None:
        """Open the pipes, start the process and wait for it, all at once: the agent takes them as they come."""
        at_once = [number for number in self.pipes if number not in self._late]
        try:
            await together(*map(self._open, at_once), self._start(request))
        except BaseException:
            if self.pid:
                await self.kill()
            raise

    async def _open(self, number: int) -> None:
        # Kept the moment it is open, so that whoever is cancelled meanwhile closes it.
        self.sockets[number] = await self._open_stream(self.pipes[number])
        if self._closed:
            self.close()

    async def _start(self, request: StartRequest) -> None:
        starting = asyncio.ensure_future(self._service.start(request))
        self._watch()
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
        # Sent right behind Start: later it would interrupt the process that has just begun.
        # The agent forgets a process once its end was told, so one task is shared by all who wait, and goes on
        # when one of them is cancelled.
        self._waiting = asyncio.ensure_future(self._see_to_end())
        # A machine that dies with nobody waiting is not an error nobody retrieved.
        self._waiting.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _see_to_end(self) -> WaitResponse:
        """Wait for its end; streams of late outputs are opened when it has spoken and goes on."""
        try:
            answer = await self._service.wait(WaitRequest(id=self.id, or_output=bool(self._late)))
            self._late_said = self._checked(answer.said)
            if not self._closed:
                await together(*(self._open(number) for number in self._late if answer.unheard & number))
        finally:
            self._late_settled.set()
        return await self._service.wait(WaitRequest(id=self.id)) if answer.running else answer

    def _checked(self, said: Sequence[Piece]) -> Sequence[Piece]:
        """What an answer says was said. Raises ProtocolError when no agent of ours would say so."""
        if len(said) > MAX_PIECES:
            raise ProtocolError(f"the guest told of an output in {len(said)} pieces; {MAX_PIECES} are the most")
        for piece in said:
            if piece.output not in self._late or not piece.data:
                size, number = len(piece.data), piece.output
                raise ProtocolError(f"the guest told of {size} bytes of output {number}; late are {self._late}")
        return said

    async def hear(self, take: Callable[[int, bytes], Awaitable[None] | None]) -> None:
        """Hand what it writes to ``take`` as it comes, with the file descriptor (1, 2), to the end.

        What that returns, unless None, is awaited before more is read of that descriptor.
        """
        if self._late:
            await self._late_settled.wait()
        said, self._late_said = self._late_said, ()
        for piece in said:
            if (taken := take(piece.output, piece.data)) is not None:
                await taken
        outputs = [number for number in (1, 2) if number in self.sockets]
        await together(*(streams.drain(self.sockets[number], partial(take, number)) for number in outputs))

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
        check_timeout(timeout)
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
        size = window_size(rows, columns)
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
        self._closed = True
        for sock in self.sockets.values():
            sock.close()
