"""The server's end of a connection on asyncio: each call that comes in gets a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from .channel import Channel
from .connection import ServerConnection
from .events import Failed, Message, Requested, ServerEvent, State
from .frames import MAX_PAYLOAD
from .inbox import Inbox
from .proto.envelope_pb2 import Request
from .service import Context, Method
from .status import Code, StatusError

logger = logging.getLogger(__name__)

# What a builtin exception of a handler says, as a status; the first that fits.
_CODES: Final[dict[type[Exception], Code]] = {
    NotImplementedError: Code.UNIMPLEMENTED,
    FileNotFoundError: Code.NOT_FOUND,
    FileExistsError: Code.ALREADY_EXISTS,
    PermissionError: Code.PERMISSION_DENIED,
    TimeoutError: Code.DEADLINE_EXCEEDED,
}

# How many bytes, and how many finished calls, may wait for a client that does not read before nothing more is
# read from it.
MAX_UNSENT: Final = 4 * MAX_PAYLOAD
MAX_WAITING: Final = 64


class Route(NamedTuple):
    """Who answers a method, and how."""

    handler: Callable[[Any, Context], Any]
    method: Method


Routes = Mapping[str, Mapping[str, Route]]
"""Service name → method name → route."""


@dataclass(slots=True)
class _Call:
    """A call that is being answered."""

    task: asyncio.Task[None]
    inbox: Inbox | None
    timer: asyncio.TimerHandle | None


@dataclass(slots=True)
class Registry:
    """The connections of a server, each until its last handler is done; and whether it takes more of them."""

    channels: set[ServerChannel] = field(default_factory=set)
    is_open: bool = True


class ServerChannel(Channel):
    """The server's end of a connection."""

    def __init__(self, routes: Routes, max_streams: int, registry: Registry) -> None:
        super().__init__()
        self._registry = registry
        self._connection = ServerConnection(max_streams)
        self._routes = routes
        self._calls: dict[int, _Call] = {}
        self._refusing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (called by asyncio)."""
        super().connection_made(transport)
        self._registry.channels.add(self)
        if not self._registry.is_open:
            self.abort()

    def resume_writing(self) -> None:
        """Let writers go on, and take further requests (called by asyncio)."""
        super().resume_writing()
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End every call: its caller is gone (called by asyncio)."""
        super().connection_lost(exc)
        for call in self._calls.values():
            call.task.cancel()
        self._leave_registry()

    async def finish(self) -> None:
        """Refuse new calls, await those under way, then end the connection."""
        self._refusing = True
        await self.wait_calls()
        self.disconnect()
        await self.wait_lost()

    async def wait_calls(self) -> None:
        """Wait until every handler is done."""
        while self._calls:
            await asyncio.wait([call.task for call in self._calls.values()])

    def receive_data(self, data: memoryview) -> None:
        """Act on what was read."""
        for event in self._connection.receive_data(data):
            self._receive(event)
        # Of a client that does not read its answers, no stream is better off than another.
        stalled = self._paused and (self.unsent() > MAX_UNSENT or self._waiting > MAX_WAITING)
        if stalled and self._transport is not None:
            self._transport.pause_reading()

    def _receive(self, event: ServerEvent) -> None:
        if isinstance(event, Requested):
            try:
                self._begin(event)
            except StatusError as error:
                self._send_error(event.stream, error)
            return
        if isinstance(event, Failed):
            self.write(event.reply)
        call = self._calls.get(event.stream)
        if call is None:
            return  # it is answered by now, and its caller did not know when these bytes were sent
        if isinstance(event, Failed):
            call.task.cancel()
        elif isinstance(event, Message):
            self._take(event, call.inbox)
        elif call.inbox is not None:
            call.inbox.end()

    def _take(self, message: Message, inbox: Inbox | None) -> None:
        if inbox is None:
            self._fail(message.stream, StatusError(Code.INVALID_ARGUMENT, "the method takes one message only"))
            return
        error = inbox.message(message.payload)
        if error is not None:
            self._fail(message.stream, error)

    def _begin(self, event: Requested) -> None:
        stream, state, request = event
        route = self._route(request)
        method = route.method
        if method.server_streams and state is State.UNARY:
            raise StatusError(
                Code.INVALID_ARGUMENT, f"{request.service}/{request.method} answers with a stream; call it as one"
            )
        inbox = None
        if method.client_streams:
            inbox = _inbox_of(state, request.payload)
            argument: Any = _Requests(method.request_type, inbox)
        else:
            argument = _parse(method.request_type, request.payload)
        context = Context(_from_pairs(request))
        timer = None
        if request.timeout_nano:
            context.deadline = self._loop.time() + request.timeout_nano / 1e9
            timer = self._loop.call_at(context.deadline, self._fail, stream, _too_late())
        task = self._loop.create_task(self._answer(stream, route, argument, context))
        task.add_done_callback(lambda _task: self._forget(stream))
        self._calls[stream] = _Call(task, inbox, timer)

    def _route(self, request: Request) -> Route:
        if self._refusing:
            raise StatusError(Code.UNAVAILABLE, "the server is shutting down")
        methods = self._routes.get(request.service)
        if methods is None:
            raise StatusError(Code.UNIMPLEMENTED, f"no service {request.service!r} here")
        route = methods.get(request.method)
        if route is None:
            raise StatusError(Code.UNIMPLEMENTED, f"no method {request.method!r} in {request.service}")
        return route

    async def _answer(self, stream: int, route: Route, argument: Any, context: Context) -> None:
        """Run the handler and send what it gives, or what it raises."""
        try:
            if route.method.server_streams:
                await self._send_all(stream, route.handler(argument, context))
            else:
                response = await route.handler(argument, context)
                if not self.is_free:
                    await self.wait_turn()
                data = self._connection.send_response(stream, response.SerializeToString())
                # Where no other call is under way there is nothing to wait for, to write along with this.
                (self.write if len(self._calls) > 1 else self.write_now)(data)
        except asyncio.CancelledError:
            self._send_error(stream, StatusError(Code.CANCELLED, "the call was cancelled by the server"))
            raise
        except StatusError as error:
            self._send_error(stream, error)
        except Exception as error:
            self._send_error(stream, _to_status(error))

    async def _send_all(self, stream: int, responses: AsyncIterator[ProtoMessage]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            if isinstance(responses, AsyncGenerator):
                await stack.enter_async_context(contextlib.aclosing(responses))
            async for response in responses:
                if not self.is_free:
                    await self.wait_turn()
                self.write(self._connection.send_message(stream, response.SerializeToString()))
        self.write(self._connection.send_end(stream))

    def _send_error(self, stream: int, error: StatusError) -> None:
        """End a call with an error, if it is not over."""
        if self._connection.is_open(stream):
            self.write(self._connection.send_error(stream, error))

    def _fail(self, stream: int, error: StatusError) -> None:
        """End a call with an error, and its handler, which does not know of it."""
        self._send_error(stream, error)
        self._calls[stream].task.cancel()

    def _forget(self, stream: int) -> None:
        timer = self._calls.pop(stream).timer
        if timer is not None:
            timer.cancel()
        self._leave_registry()

    def _leave_registry(self) -> None:
        if self._transport is None and not self._calls:
            self._registry.channels.discard(self)


class _Requests(AsyncIterator[ProtoMessage]):
    """The messages of a client, for a handler to iterate."""

    def __init__(self, request_type: type[ProtoMessage], inbox: Inbox) -> None:
        self._request_type = request_type
        self._inbox = inbox

    async def __anext__(self) -> ProtoMessage:
        payload = await self._inbox.get()
        if payload is None:
            raise StopAsyncIteration
        return _parse(self._request_type, payload)


def _inbox_of(state: State, payload: bytes) -> Inbox:
    """Return the inbox of a stream that begins in ``state``.

    The request itself carries a first message if its payload is not empty. Where nothing follows it is the only
    one there is, so that it counts even if empty in a unary request, which is how a caller without streams calls.
    """
    inbox = Inbox()
    if payload or state is State.UNARY:
        inbox.message(payload)
    if state is not State.OPEN:
        inbox.end()
    return inbox


def _parse(message_type: type[ProtoMessage], payload: bytes) -> ProtoMessage:
    try:
        return message_type.FromString(payload)
    except DecodeError:
        name = message_type.DESCRIPTOR.full_name
        raise StatusError(Code.INVALID_ARGUMENT, f"a message of {len(payload)} bytes is no {name}") from None


def _from_pairs(request: Request) -> dict[str, list[str]]:
    """Return metadata as it came, each key in lower case."""
    metadata: dict[str, list[str]] = {}
    for pair in request.metadata:
        metadata.setdefault(pair.key.lower(), []).append(pair.value)
    return metadata


def _to_status(error: Exception) -> StatusError:
    """Return what a caller is told of an exception of a handler; one without a code of its own is logged, too."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return StatusError(code, str(error) or type(error).__name__)
    logger.error("ttrpc: a handler failed", exc_info=error)
    return StatusError(Code.UNKNOWN, f"{type(error).__name__}: {error}")


def _too_late() -> StatusError:
    return StatusError(Code.DEADLINE_EXCEEDED, "the time given for the call has passed")
