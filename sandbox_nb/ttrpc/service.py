"""What a server serves, and what the handlers of a service are given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from google.protobuf.message import Message


class Method(NamedTuple):
    """A method of a service: its name on the wire, and who answers it, how."""

    name: str
    handler: str
    """The name of the method that answers it."""
    request_type: type[Message]
    client_streams: bool = False
    """Whether the client sends any number of messages, instead of one."""
    server_streams: bool = False
    """Whether the server sends any number of messages, instead of one."""


class Service(Protocol):
    """What a server takes: an object of a class that the generator wrote, or of one like it.

    A handler takes a request, or an async iterator of them, and a `Context`; it returns a response, or is an async
    iterator of them. What it raises goes to the caller: a `StatusError` as it is, some builtin exceptions as the
    code that says the same, any other as UNKNOWN. It is cancelled when the caller is gone or out of time.
    """

    @property
    def SERVICE(self) -> str:  # noqa: N802 - a constant of the class
        """Its name on the wire, with the package."""

    @property
    def METHODS(self) -> Iterable[tuple[str, str, type[Message], bool, bool]]:  # noqa: N802 - the same
        """Its methods, as fields of `Method`: plain, as generated modules import nothing of ours."""


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
