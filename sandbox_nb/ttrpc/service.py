"""What a server serves: the base of generated service classes, and what their handlers are given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, NamedTuple

from google.protobuf.message import Message


class Kind(Enum):
    """How many messages go each way in a call: (client streams, server streams)."""

    UNARY = (False, False)
    CLIENT_STREAM = (True, False)
    SERVER_STREAM = (False, True)
    BIDI_STREAM = (True, True)


class Method(NamedTuple):
    """A method of a service: its name on the wire, and the handler's name in the class."""

    name: str
    kind: Kind
    handler: str
    request_type: type[Message]


class Service:
    """The base of the classes that the generator writes, one for each service of a .proto file.

    Their handlers take a request (or an async iterator of them) and a `Context`, and return a response (or are
    an async iterator of them). A handler that raises `StatusError` sends just that.
    """

    SERVICE: ClassVar[str]
    METHODS: ClassVar[Iterable[Method]]


@dataclass(frozen=True)
class Context:
    """What is known of a call beside its messages."""

    metadata: Mapping[str, list[str]] = field(default_factory=dict)
    """What the caller sent along: lower-case keys, each with its values in order."""
    deadline: float | None = None
    """When the caller's time is over, by the event loop's clock. The handler is cancelled then."""

    def time_remaining(self) -> float | None:
        """Return how many seconds the caller will still wait; None is for ever."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())
