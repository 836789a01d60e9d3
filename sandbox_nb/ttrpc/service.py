"""What a server serves: the base of generated service classes, and what their handlers are given."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, NamedTuple

from google.protobuf.message import Message


class Kind(Enum):
    """Which sides of a call send any number of messages instead of one: (the client, the server)."""

    UNARY = (False, False)
    CLIENT_STREAM = (True, False)
    SERVER_STREAM = (False, True)
    BIDI_STREAM = (True, True)

    @property
    def client_streams(self) -> bool:
        """Whether the client sends any number of messages."""
        return self.value[0]

    @property
    def server_streams(self) -> bool:
        """Whether the server sends any number of messages."""
        return self.value[1]


class Method(NamedTuple):
    """A method of a service: its name on the wire, its kind, its handler's name in the class."""

    name: str
    kind: Kind
    handler: str
    request_type: type[Message]


class Service:
    """The base of the classes that the generator writes, one for each service of a .proto file.

    A handler takes a request, or an async iterator of them, and a `Context`; it returns a response, or is an async
    iterator of them. What it raises goes to the caller: a `StatusError` as it is, some builtin exceptions as the
    code that says the same, any other as UNKNOWN. It is cancelled when the caller is gone or out of time.
    """

    SERVICE: ClassVar[str]
    METHODS: ClassVar[tuple[Method, ...]]


@dataclass(slots=True)
class Context:
    """What a handler can know of a call beside its messages."""

    metadata: Mapping[str, list[str]]
    """What the caller sent along: lower-case keys, each with its values in order."""
    deadline: float | None = None
    """When the caller's time is over, by the event loop's clock."""

    def time_remaining(self) -> float | None:
        """Return for how many seconds the caller still waits; None is for ever."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())
