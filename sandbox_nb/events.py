"""What happens in the guest, as it happens: processes that start, end, or run out of memory."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from sandbox_nb.errors import Explained, ProtocolError, Stopped
from sandbox_nb.guest.proto import events_pb2
from sandbox_nb.guest.proto.events_pb2 import Envelope
from sandbox_nb.ttrpc import ServerStream

__all__ = ["AsyncEvents", "Event", "Events", "OutOfMemory", "ProcessExited", "ProcessStarted"]


@dataclass(frozen=True)
class ProcessStarted:
    """A process was started. ``time`` is the guest's clock, ``id`` names the process in the agent's calls."""

    time: datetime
    id: str
    pid: int


@dataclass(frozen=True)
class ProcessExited:
    """A process has ended. ``returncode`` is negative when a signal ended it."""

    time: datetime
    id: str
    pid: int
    returncode: int


@dataclass(frozen=True)
class OutOfMemory:
    """The guest's kernel has ended the process, or one it started, for want of memory."""

    time: datetime
    id: str


Event = ProcessStarted | ProcessExited | OutOfMemory


class AsyncEvents:
    """The events from the call of ``AsyncSandbox.events`` on: an async iterator, and a block that ends the call.

    It ends when the machine stops; when the machine fails, it raises why. Who leaves megabytes of events unread is
    cut off with ResourceExhausted.
    """

    def __init__(self, stream: ServerStream[Envelope], explained: Explained) -> None:
        self._stream = stream
        self._explained = explained

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            async with self._explained():
                envelope = await self._stream.receive()
        except Stopped:
            envelope = None
        if envelope is None:
            raise StopAsyncIteration
        return _event(envelope)

    def close(self) -> None:
        """End the call. Idempotent."""
        self._stream.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()


class Events(Iterator[Event]):
    """The events from the call of ``Sandbox.events`` on, for people who do not await."""

    def __init__(self, events: AsyncEvents, wait: Callable[[Coroutine[Any, Any, Event]], Event]) -> None:
        self._events = events
        self._wait = wait

    def __next__(self) -> Event:
        try:
            return self._wait(self._events.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._events.close()


def _event(envelope: Envelope) -> Event:
    time = envelope.timestamp.ToDatetime(UTC)
    packed = envelope.event
    if packed.Unpack(started := events_pb2.ProcessStarted()):
        return ProcessStarted(time, started.id, started.pid)
    if packed.Unpack(exited := events_pb2.ProcessExited()):
        return ProcessExited(time, exited.id, exited.pid, -exited.signal if exited.signal else exited.exit_code)
    if packed.Unpack(killed := events_pb2.OutOfMemory()):
        return OutOfMemory(time, killed.id)
    raise ProtocolError(f"the guest sent an event of the unknown kind {packed.type_url!r}")
