"""The client's side of the three streaming kinds of call, as objects.

Each is an async context manager that leaves the call at the end of the block, however far it got, and each may
be used without a block by who goes on until its end.
"""

from __future__ import annotations

import asyncio
from typing import Generic, NamedTuple, Self, TypeVar

from google.protobuf.message import DecodeError, Message

from .client_channel import ClientChannel, OneResponse, Receiver
from .inbox import Inbox
from .status import Code, ProtocolError, StatusError

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


class Handle(NamedTuple):
    """A stream that was opened, and until when it may take."""

    channel: ClientChannel
    stream: int
    deadline: float | None


class _Stream:
    """A call under way."""

    def __init__(self, handle: Handle, receiver: Receiver) -> None:
        self._channel, self._stream, self._deadline = handle
        self._receiver = receiver

    def cancel(self) -> None:
        """Leave the call; who waits for it here sees CANCELLED. Without effect on one that is over.

        ttrpc has no frame that cancels: a server that still awaits messages sees their end, just as after the last
        one; any other goes on until it is done or its time is over, and what it sends is ignored.
        """
        self._channel.fail(self._stream, StatusError(Code.CANCELLED, "the call was cancelled"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()


class _Sending(_Stream, Generic[RequestT]):
    """A call that sends."""

    async def send(self, message: RequestT) -> None:
        """Send a message, waiting while the server does not keep up.

        On a call that the server has ended this raises what it was ended with, or FAILED_PRECONDITION. A message
        over 4 MiB is RESOURCE_EXHAUSTED and leaves the call as it was.
        """
        try:
            if not self._channel.is_free:
                await self._channel.wait_turn_until(self._deadline)
            self._channel.send_message(self._stream, message.SerializeToString())
        except StatusError as error:
            self._channel.reraise(self._receiver.error or error)

    def close_send(self) -> None:
        """Tell the server that no further message comes. Any number of times."""
        self._channel.send_end(self._stream)


class _Receiving(_Stream, Generic[ResponseT]):
    """A call that receives."""

    def __init__(self, handle: Handle, inbox: Inbox, response_type: type[ResponseT]) -> None:
        super().__init__(handle, inbox)
        self._inbox = inbox
        self._response_type = response_type

    async def receive(self) -> ResponseT | None:
        """Return the next message, waiting for it; None at the end of the call."""
        try:
            payload = await self._inbox.get()
            return None if payload is None else parse(self._response_type, payload)
        except StatusError as error:
            self._channel.reraise(error)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ResponseT:
        message = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message


class ServerStream(_Receiving[ResponseT]):
    """A call that is answered by any number of messages: iterate it, or `receive` one after the other."""


class ClientStream(_Sending[RequestT], Generic[RequestT, ResponseT]):
    """A call that sends any number of messages and is answered by one: `send` each, then await the `result`."""

    def __init__(self, handle: Handle, receiver: OneResponse, response_type: type[ResponseT]) -> None:
        super().__init__(handle, receiver)
        self._future = receiver.future
        self._response_type = response_type

    async def result(self) -> ResponseT:
        """Tell the server that no further message comes, and return its answer."""
        self.close_send()
        try:
            return parse(self._response_type, await asyncio.shield(self._future))
        except StatusError as error:
            self._channel.reraise(error)


class BidiStream(_Sending[RequestT], _Receiving[ResponseT]):
    """A call in which both sides send any number of messages, each at its own pace."""


def parse(message_type: type[ResponseT], payload: bytes) -> ResponseT:
    """Return what a server answered as a message."""
    try:
        return message_type.FromString(payload)
    except DecodeError:
        name = message_type.DESCRIPTOR.full_name
        raise ProtocolError(f"the server's answer of {len(payload)} bytes is no {name}") from None
