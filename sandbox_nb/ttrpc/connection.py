"""One ttrpc connection without its I/O: bytes in, events out; calls in, bytes out.

`ClientConnection` and `ServerConnection` are the two ends. Feed either what its peer sent with ``receive_data``
and act on the events; write what the ``send_*`` methods return, in the order they were called. Neither holds
more than one unfinished frame, nor queues messages: that is for whoever consumes the events.

A stream is one call. Both ends keep it in the same state, by the same table:

======================  =========================================================================
``UNARY``               one request was sent; one response is due, and nothing else
``OPEN``                both sides may send messages
``HALF_CLOSED``         the client has sent its last message; the server may go on
======================  =========================================================================

A stream that is over is forgotten. ttrpc knows no stream whose server is done and whose client is not: a
response, or the server's last message, ends it whole, and what the client had under way by then is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Final

from google.protobuf.message import DecodeError

from .events import (
    Broken,
    ClientEvent,
    Ended,
    Failed,
    Message,
    Requested,
    Responded,
    ServerEvent,
    State,
)
from .frames import (
    DATA,
    NO_DATA,
    REMOTE_CLOSED,
    REMOTE_OPEN,
    REQUEST,
    RESPONSE,
    Frame,
    FrameDecoder,
    encode_frame,
    oversize,
)
from .proto.envelope_pb2 import KeyValue, Request, Response
from .status import Code, ProtocolError, StatusError

Metadata = Mapping[str, str | Iterable[str]]
"""What goes along with a request: lower-case keys, each with one value or several."""

MAX_STREAMS: Final = 4096
"""Calls that a server lets one client have open; a further one is ResourceExhausted."""

_LAST_STREAM = 2**32 - 1


class _Step(Enum):
    """What happens on a stream, once it is there."""

    CLIENT_MESSAGE = "a message of the client"
    CLIENT_END = "the client's end of the stream"
    SERVER_MESSAGE = "a message of the server"
    SERVER_END = "the server's end of the stream"
    RESPONSE = "a response"


# Every step that is allowed, and the state after it; None is the end of the stream.
_TRANSITIONS: dict[State, dict[_Step, State | None]] = {
    State.UNARY: {
        _Step.RESPONSE: None,
    },
    State.OPEN: {
        _Step.CLIENT_MESSAGE: State.OPEN,
        _Step.CLIENT_END: State.HALF_CLOSED,
        _Step.SERVER_MESSAGE: State.OPEN,
        _Step.SERVER_END: None,
        _Step.RESPONSE: None,
    },
    State.HALF_CLOSED: {
        _Step.SERVER_MESSAGE: State.HALF_CLOSED,
        _Step.SERVER_END: None,
        _Step.RESPONSE: None,
    },
}

_REQUEST_FLAGS = {State.UNARY: 0, State.OPEN: REMOTE_OPEN, State.HALF_CLOSED: REMOTE_CLOSED}


Tap = Callable[[bool, Frame], None]
"""Sees each frame that passes; the first argument tells whether it is sent."""


class _Violation(Exception):
    """The other side did what the table does not allow."""


class _Connection:
    """What the two ends have in common."""

    _SENDS_MESSAGE: _Step
    _SENDS_END: _Step
    _RECEIVES_MESSAGE: _Step
    _RECEIVES_END: _Step

    def __init__(self) -> None:
        self._decoder = FrameDecoder()
        self._streams: dict[int, State] = {}
        self.tap: Tap | None = None

    def is_open(self, stream: int) -> bool:
        """Whether the stream is not over."""
        return stream in self._streams

    def may_send(self, stream: int) -> bool:
        """Whether a message may be sent into the stream."""
        state = self._streams.get(stream)
        return state is not None and self._SENDS_MESSAGE in _TRANSITIONS[state]

    def send_message(self, stream: int, payload: bytes) -> bytes:
        """Return the frame of a message. Over 4 MiB it raises ResourceExhausted, and the stream is as it was."""
        after = self._check_send(stream, self._SENDS_MESSAGE)
        data = self._encode(stream, DATA, 0, payload)
        self._enter(stream, after)
        return data

    def send_end(self, stream: int) -> bytes:
        """Return the frame that says that no further message follows from here."""
        # Not on the last message itself: Go's server refuses a closing frame that carries one.
        self._enter(stream, self._check_send(stream, self._SENDS_END))
        return self._encode(stream, DATA, REMOTE_CLOSED | NO_DATA, b"")

    def _encode(self, stream: int, kind: int, flags: int, payload: bytes) -> bytes:
        data = encode_frame(stream, kind, flags, payload)
        if self.tap is not None:
            self.tap(True, Frame(stream, kind, flags, len(payload), payload))
        return data

    def _receive_data_frame(self, frame: Frame, payload: bytes) -> Iterator[Message | Ended]:
        """Take a data frame of a stream that is there: a message, an end, or a message and the end after it."""
        if not frame.flags & NO_DATA:
            self._enter(frame.stream, self._check_received(frame.stream, self._RECEIVES_MESSAGE))
            yield Message(frame.stream, payload)
        if frame.flags & REMOTE_CLOSED:
            self._enter(frame.stream, self._check_received(frame.stream, self._RECEIVES_END))
            yield Ended(frame.stream)

    def _check_send(self, stream: int, step: _Step) -> State | None:
        state = self._streams.get(stream)
        if state is None:
            raise StatusError(Code.FAILED_PRECONDITION, f"stream {stream} is over: {step.value} comes too late")
        if step not in _TRANSITIONS[state]:
            raise StatusError(Code.FAILED_PRECONDITION, f"{step.value} on stream {stream}, which is {state.name}")
        return _TRANSITIONS[state][step]

    def _check_received(self, stream: int, step: _Step) -> State | None:
        state = self._streams[stream]
        if step not in _TRANSITIONS[state]:
            raise _Violation(f"{step.value} on stream {stream}, which is {state.name}")
        return _TRANSITIONS[state][step]

    def _enter(self, stream: int, state: State | None) -> None:
        if state is None:
            del self._streams[stream]
        else:
            self._streams[stream] = state


class ClientConnection(_Connection):
    """The end that calls."""

    _SENDS_MESSAGE = _Step.CLIENT_MESSAGE
    _SENDS_END = _Step.CLIENT_END
    _RECEIVES_MESSAGE = _Step.SERVER_MESSAGE
    _RECEIVES_END = _Step.SERVER_END

    def __init__(self) -> None:
        super().__init__()
        self._next_stream = 1  # the client's are odd and never used again
        self._broken = False

    def send_request(
        self,
        state: State,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        timeout_nano: int = 0,
        metadata: Metadata | None = None,
    ) -> tuple[int, bytes]:
        """Open a stream that begins in ``state``; return its id and the frame.

        ``timeout_nano`` is how long the server may take, in nanoseconds; 0 is for ever. A request over 4 MiB,
        envelope included, raises ResourceExhausted and opens nothing.
        """
        stream = self._next_stream
        if stream > _LAST_STREAM:
            raise StatusError(Code.RESOURCE_EXHAUSTED, "all stream ids are used up; connect anew")
        request = Request(service=service, method=method, payload=payload)
        if timeout_nano:
            request.timeout_nano = timeout_nano
        if metadata:
            request.metadata.extend(_to_pairs(metadata))
        data = self._encode(stream, REQUEST, _REQUEST_FLAGS[state], request.SerializeToString())
        self._next_stream += 2
        self._streams[stream] = state
        return stream, data

    def leave(self, stream: int) -> bytes:
        """Forget a stream whatever its state; return what there is to tell the server: the end of our messages.

        ttrpc has no frame that cancels. The server learns of it by that end, by the deadline, or not at all;
        what it still sends is ignored.
        """
        state = self._streams.get(stream)
        data = self.send_end(stream) if state is State.OPEN else b""
        self._streams.pop(stream, None)
        return data

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[ClientEvent]:
        """Take the next bytes from the server, in pieces of any size; return what they mean."""
        events: list[ClientEvent] = []
        if self._broken:
            return events
        for frame in self._decoder.receive_data(data):
            if self.tap is not None:
                self.tap(False, frame)
            if frame.stream in self._streams:
                self._receive(frame, events)
            elif not self._was_ours(frame.stream):
                self._broken = True
                message = f"the server sent a frame on stream {frame.stream}, which was never opened"
                events.append(Broken(ProtocolError(message)))
                break
        return events

    def _was_ours(self, stream: int) -> bool:
        return stream % 2 == 1 and stream < self._next_stream

    def _receive(self, frame: Frame, events: list[ClientEvent]) -> None:
        try:
            if frame.payload is None:
                self._fail(frame.stream, oversize(frame.length), events)
            elif frame.type == RESPONSE:
                self._receive_response(frame.stream, frame.payload, events)
            elif frame.type == DATA:
                events.extend(self._receive_data_frame(frame, frame.payload))
            elif frame.type == REQUEST:
                raise _Violation(f"a request on stream {frame.stream}; only clients send them")
        except _Violation as violation:
            self._fail(frame.stream, ProtocolError(f"the server sent {violation}"), events)

    def _receive_response(self, stream: int, payload: bytes, events: list[ClientEvent]) -> None:
        try:
            response = Response.FromString(payload)
        except DecodeError:
            raise _Violation(f"a response on stream {stream} that is no Response message") from None
        self._enter(stream, self._check_received(stream, _Step.RESPONSE))
        status = response.status
        error = StatusError.from_status(status) if status.code != Code.OK else None
        events.append(Responded(stream, response.payload, error))

    def _fail(self, stream: int, error: StatusError, events: list[ClientEvent]) -> None:
        events.append(Failed(stream, error, self.leave(stream)))


class ServerConnection(_Connection):
    """The end that answers."""

    _SENDS_MESSAGE = _Step.SERVER_MESSAGE
    _SENDS_END = _Step.SERVER_END
    _RECEIVES_MESSAGE = _Step.CLIENT_MESSAGE
    _RECEIVES_END = _Step.CLIENT_END

    def __init__(self, max_streams: int = MAX_STREAMS) -> None:
        super().__init__()
        self._max_streams = max_streams
        self._last_stream = 0

    def send_response(self, stream: int, payload: bytes) -> bytes:
        """Return the response with a message; it ends the stream. Over 4 MiB it raises ResourceExhausted."""
        after = self._check_send(stream, _Step.RESPONSE)
        data = encode_frame(stream, RESPONSE, 0, Response(payload=payload).SerializeToString())
        self._enter(stream, after)
        return data

    def send_error(self, stream: int, error: StatusError) -> bytes:
        """Return the response with an error; it ends the stream."""
        self._enter(stream, self._check_send(stream, _Step.RESPONSE))
        return _encode_error(stream, error)

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[ServerEvent]:
        """Take the next bytes from the client, in pieces of any size; return what they mean."""
        events: list[ServerEvent] = []
        for frame in self._decoder.receive_data(data):
            try:
                self._receive(frame, events)
            except _Violation as violation:
                self._fail(frame.stream, StatusError(Code.INVALID_ARGUMENT, f"{violation}"), events)
        return events

    def _receive(self, frame: Frame, events: list[ServerEvent]) -> None:
        if frame.type not in (REQUEST, RESPONSE, DATA):
            return
        if frame.type == REQUEST:
            self._receive_request(frame, events)
        elif frame.stream in self._streams:
            if frame.type == RESPONSE:
                raise _Violation(f"a response on stream {frame.stream}; only servers send them")
            if frame.payload is None:
                self._fail(frame.stream, oversize(frame.length), events)
            else:
                events.extend(self._receive_data_frame(frame, frame.payload))
        elif frame.stream % 2 == 0 or frame.stream > self._last_stream:
            raise _Violation(f"a frame on stream {frame.stream}, which was never opened")

    def _receive_request(self, frame: Frame, events: list[ServerEvent]) -> None:
        stream = frame.stream
        if stream % 2 == 0:
            raise _Violation(f"a request on stream {stream}; the ids of clients are odd")
        if stream <= self._last_stream:
            raise _Violation(f"a request on stream {stream} after stream {self._last_stream}; ids must increase")
        self._last_stream = stream
        if frame.payload is None:
            self._fail(stream, oversize(frame.length), events)
        elif len(self._streams) >= self._max_streams:
            error = StatusError(Code.RESOURCE_EXHAUSTED, f"{self._max_streams} calls are open; await some first")
            self._fail(stream, error, events)
        else:
            request = _parse_request(stream, frame.payload)
            state = _state_after(frame.flags)
            self._streams[stream] = state
            events.append(Requested(stream, state, request))

    def _fail(self, stream: int, error: StatusError, events: list[ServerEvent]) -> None:
        self._streams.pop(stream, None)
        events.append(Failed(stream, error, _encode_error(stream, error)))


def _parse_request(stream: int, payload: bytes) -> Request:
    try:
        return Request.FromString(payload)
    except DecodeError:
        raise _Violation(f"a request on stream {stream} that is no Request message") from None


def _state_after(flags: int) -> State:
    """Return the state in which a request with these flags begins."""
    if flags & REMOTE_CLOSED:
        return State.HALF_CLOSED
    return State.OPEN if flags & REMOTE_OPEN else State.UNARY


def _encode_error(stream: int, error: StatusError) -> bytes:
    """Return the response with an error, without the details if they make it too large to send."""
    try:
        return encode_frame(stream, RESPONSE, 0, Response(status=error.to_status()).SerializeToString())
    except StatusError:
        short = StatusError(error.code, error.message[:1024])
        return encode_frame(stream, RESPONSE, 0, Response(status=short.to_status()).SerializeToString())


def _to_pairs(metadata: Metadata) -> list[KeyValue]:
    """Return metadata as it travels. Keys in lower case, as Go's side looks for them."""
    return [
        KeyValue(key=key.lower(), value=value)
        for key, values in metadata.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
