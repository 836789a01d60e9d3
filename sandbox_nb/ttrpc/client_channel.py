"""The client's end of a connection on asyncio: what is read goes to the call it belongs to."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn, Protocol

from .channel import Channel
from .connection import ClientConnection, Metadata, Tap
from .events import Broken, Ended, Failed, Message, Responded, State
from .status import Code, MapError, ProtocolError, StatusError

_FOREVER: Final = 1e9  # seconds; more than timeout_nano is good for is as well no time-out


class Receiver(Protocol):
    """Takes what comes in on one stream. A returned error ends the stream with it."""

    error: StatusError | None
    """Why the stream ended, if not well."""

    def message(self, payload: bytes) -> StatusError | None:
        """Take a message."""

    def respond(self, payload: bytes) -> StatusError | None:
        """Take the response; the stream is over."""

    def end(self) -> None:
        """Take the end of a stream without a response."""

    def fail(self, error: StatusError) -> None:
        """Take the end of the stream by an error."""


class OneResponse:
    """The receiver where one response is due, and nothing before it."""

    __slots__ = ("error", "future")

    def __init__(self) -> None:
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.error: StatusError | None = None

    def message(self, _payload: bytes) -> StatusError:
        """Refuse a message."""
        return ProtocolError("the server sent a message where one response was due")

    def respond(self, payload: bytes) -> None:
        """Take the response."""
        if not self.future.done():
            self.future.set_result(payload)

    def end(self) -> None:
        """Take an end without a response, as a failure."""
        self.fail(ProtocolError("the server ended the stream where one response was due"))

    def fail(self, error: StatusError) -> None:
        """Take an error."""
        if not self.future.done():
            self.error = error
            self.future.set_exception(error)
            self.future.exception()  # so that asyncio does not complain of it where nobody awaits the response


class ClientChannel(Channel):
    """The client's end of a connection: which receiver is for which stream, and until when it waits."""

    def __init__(self, map_error: MapError | None) -> None:
        super().__init__()
        self._connection = ClientConnection()
        self._receivers: dict[int, Receiver] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._map_error = map_error
        self.closed_by: StatusError | None = None
        """Why no call can be made any more."""

    def tap(self, tap: Tap | None) -> None:
        """Have every frame seen, or none any more."""
        self._connection.tap = tap

    def deadline(self, timeout: float | None) -> float | None:
        """Return when the loop's clock will show ``timeout`` seconds from now."""
        return self._loop.time() + timeout if timeout is not None and timeout < _FOREVER else None

    def open(
        self,
        receiver: Receiver,
        state: State,
        path: tuple[str, str],
        payload: bytes,
        deadline: float | None,
        metadata: Metadata | None,
    ) -> int:
        """Send a request to a (service, method) and return its stream, for whose end ``receiver`` can wait."""
        if self.closed_by is not None:
            raise _copy(self.closed_by)
        timeout_nano = 0
        if deadline is not None:
            timeout_nano = int((deadline - self._loop.time()) * 1e9)
            if timeout_nano <= 0:
                raise _too_late()
        stream, data = self._connection.send_request(
            state, *path, payload, timeout_nano=timeout_nano, metadata=metadata
        )
        # Where no other call is under way there is nothing to wait for, to write along with this.
        (self.write if self._receivers else self.write_now)(data)
        self._receivers[stream] = receiver
        if deadline is not None:
            self._timers[stream] = self._loop.call_at(deadline, self.fail, stream, _too_late())
        return stream

    def send_message(self, stream: int, payload: bytes) -> None:
        """Write a message into a stream."""
        self.write(self._connection.send_message(stream, payload))

    def send_end(self, stream: int) -> None:
        """Write that no further message follows into a stream, if that is news."""
        if self._connection.may_send(stream):
            self.write(self._connection.send_end(stream))

    def fail(self, stream: int, error: StatusError) -> None:
        """Leave a stream, so that its receiver sees ``error``."""
        receiver = self.leave(stream)
        if receiver is not None:
            receiver.fail(error)

    def leave(self, stream: int) -> Receiver | None:
        """Be done with a stream, over or not; return who would have received what still comes."""
        data = self._connection.leave(stream)
        if data and self.closed_by is None:
            self.write(data)
        return self._forget(stream)

    async def wait_turn_until(self, deadline: float | None) -> None:
        """Wait until there is room for one more message; at the deadline raise DEADLINE_EXCEEDED."""
        try:
            async with asyncio.timeout_at(deadline):
                await self.wait_turn()
        except TimeoutError:
            raise _too_late() from None

    def receive_data(self, data: memoryview) -> None:
        """Hand what was read to the receivers."""
        for event in self._connection.receive_data(data):
            if isinstance(event, Broken):
                self.close(event.error)
            else:
                self._receive(event)

    def _receive(self, event: Message | Ended | Responded | Failed) -> None:
        if isinstance(event, Message):
            # One that is not there has left since these bytes were read.
            receiver = self._receivers.get(event.stream)
            error = receiver.message(event.payload) if receiver is not None else None
            if error is not None:
                self.fail(event.stream, error)
            return
        receiver = self._forget(event.stream)
        if receiver is None:
            return
        if isinstance(event, Ended):
            receiver.end()
        elif isinstance(event, Failed):
            self.write(event.reply)
            receiver.fail(event.error)
        else:
            error = event.error or receiver.respond(event.payload)
            if error is not None:
                receiver.fail(error)

    def _forget(self, stream: int) -> Receiver | None:
        if self._timers:
            timer = self._timers.pop(stream, None)
            if timer is not None:
                timer.cancel()
        return self._receivers.pop(stream, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End every call (called by asyncio)."""
        super().connection_lost(exc)
        self.close(StatusError(Code.UNAVAILABLE, f"the connection was lost: {exc or 'the server closed it'}"))

    def close(self, error: StatusError) -> None:
        """End the connection, and every call with ``error``; the first time counts."""
        if self.closed_by is None:
            self.closed_by = error
            self.disconnect()
            if self.unsent():
                self.abort()
            for stream in list(self._receivers):
                self.fail(stream, _copy(error))

    def reraise(self, error: StatusError) -> NoReturn:
        """Raise ``error``, as the host of this client wants to see it."""
        if self._map_error is None:
            raise error
        raise self._map_error(error) from error


def _copy(error: StatusError) -> StatusError:
    """Return the same again: an exception raised in several places would collect all their tracebacks."""
    if isinstance(error, ProtocolError):
        return ProtocolError(error.message)
    return StatusError(error.code, error.message, error.details)


def _too_late() -> StatusError:
    return StatusError(Code.DEADLINE_EXCEEDED, "the time given for the call has passed")
