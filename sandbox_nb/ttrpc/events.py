"""What happened on a connection, as its sans-IO core tells it."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from .proto.envelope_pb2 import Request
from .status import ProtocolError, StatusError


class State(Enum):
    """What may still happen on a stream."""

    UNARY = auto()
    OPEN = auto()
    HALF_CLOSED = auto()


class Requested(NamedTuple):
    """To a server: a client opened a stream."""

    stream: int
    state: State
    request: Request


class Message(NamedTuple):
    """The peer sent a message into a stream."""

    stream: int
    payload: bytes


class Ended(NamedTuple):
    """The peer has sent its last message. To a client this is the end of the stream, without an error."""

    stream: int


class Responded(NamedTuple):
    """To a client: the response, the end of the stream. ``payload`` is a message if ``error`` is None."""

    stream: int
    payload: bytes
    error: StatusError | None


class Failed(NamedTuple):
    """A stream is over, or never came to be, because of what the peer sent. ``reply`` is to be written."""

    stream: int
    error: StatusError
    reply: bytes


class Broken(NamedTuple):
    """The peer is not to be understood any more: close the connection. No event follows."""

    error: ProtocolError


ClientEvent = Message | Ended | Responded | Failed | Broken
ServerEvent = Requested | Message | Ended | Failed
