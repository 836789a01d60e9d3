"""The asyncio client: many calls at once over one connection."""

from __future__ import annotations

import asyncio
import socket
from os import PathLike
from typing import Self

from google.protobuf.message import Message

from .client_channel import ClientChannel, OneResponse, Receiver
from .client_streams import BidiStream, ClientStream, Handle, RequestT, ResponseT, ServerStream, parse
from .connection import Metadata, Tap
from .events import State
from .inbox import Inbox
from .status import Code, MapError, StatusError


class Client:
    """A connection to a server, for any number of calls at once. Belongs to the event loop it was made in.

    Calls raise `StatusError`, or what ``map_error`` makes of it. When the connection ends, from whichever side,
    every call under way ends at once with UNAVAILABLE.
    """

    def __init__(self, channel: ClientChannel) -> None:
        self._channel = channel

    @classmethod
    async def connect(cls, path: str | PathLike[str], *, map_error: MapError | None = None) -> Self:
        """Return a client connected to the UNIX socket at ``path``."""
        loop = asyncio.get_running_loop()
        try:
            _, channel = await loop.create_unix_connection(lambda: ClientChannel(map_error), str(path))
        except OSError as error:
            unavailable = StatusError(Code.UNAVAILABLE, f"no server to be reached at {path}: {error.strerror}")
            raise (map_error(unavailable) if map_error else unavailable) from error
        return cls(channel)

    @classmethod
    async def from_socket(cls, sock: socket.socket, *, map_error: MapError | None = None) -> Self:
        """Return a client on a connected stream socket of any family, which it then owns."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(lambda: ClientChannel(map_error), sock=sock)
        return cls(channel)

    @property
    def closed(self) -> bool:
        """Whether the connection has ended; calls are then UNAVAILABLE."""
        return self._channel.closed_by is not None

    def tap(self, tap: Tap | None) -> None:
        """Have ``tap`` called with each frame from now on, in the order they pass; None ends that."""
        self._channel.tap(tap)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended, from whichever side."""
        await self._channel.wait_lost()

    async def aclose(self) -> None:
        """End the connection, and every call that is under way. Any number of times."""
        self._channel.close(StatusError(Code.UNAVAILABLE, "the client was closed"))
        await self._channel.wait_lost()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def call(
        self,
        service: str,
        method: str,
        request: Message,
        response_type: type[ResponseT],
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> ResponseT:
        """Make a unary call. ``timeout`` is in seconds; both ends hold it."""
        channel = self._channel
        deadline = channel.deadline(timeout)
        receiver = OneResponse()
        try:
            if not channel.is_free:
                await channel.wait_turn_until(deadline)
            payload = request.SerializeToString()
            stream = channel.open(receiver, State.UNARY, (service, method), payload, deadline, metadata)
            try:
                payload = await receiver.future
            except asyncio.CancelledError:
                channel.leave(stream)
                raise
            return parse(response_type, payload)
        except StatusError as error:
            channel.reraise(error)

    def server_stream(
        self,
        service: str,
        method: str,
        request: Message,
        response_type: type[ResponseT],
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> ServerStream[ResponseT]:
        """Begin a call that is answered by any number of messages. ``timeout`` is for all of it."""
        inbox = Inbox()
        payload = request.SerializeToString()
        handle = self._begin(inbox, State.HALF_CLOSED, (service, method), payload, timeout, metadata)
        return ServerStream(handle, inbox, response_type)

    def client_stream(
        self,
        service: str,
        method: str,
        response_type: type[ResponseT],
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> ClientStream[RequestT, ResponseT]:
        """Begin a call that sends any number of messages and is answered by one. ``timeout`` is for all of it."""
        receiver = OneResponse()
        handle = self._begin(receiver, State.OPEN, (service, method), b"", timeout, metadata)
        return ClientStream(handle, receiver, response_type)

    def bidi_stream(
        self,
        service: str,
        method: str,
        response_type: type[ResponseT],
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> BidiStream[RequestT, ResponseT]:
        """Begin a call in which both sides send any number of messages. ``timeout`` is for all of it."""
        inbox = Inbox()
        handle = self._begin(inbox, State.OPEN, (service, method), b"", timeout, metadata)
        return BidiStream(handle, inbox, response_type)

    def _begin(
        self,
        receiver: Receiver,
        state: State,
        path: tuple[str, str],
        payload: bytes,
        timeout: float | None,
        metadata: Metadata | None,
    ) -> Handle:
        channel = self._channel
        deadline = channel.deadline(timeout)
        try:
            return Handle(channel, channel.open(receiver, state, path, payload, deadline, metadata), deadline)
        except StatusError as error:
            channel.reraise(error)
