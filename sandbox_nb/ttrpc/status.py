"""Status codes, and the one exception this package raises for a call that did not work.

A ttrpc response carries a ``google.rpc.Status``: a code, a message, and any number of typed details. A
`StatusError` holds those three, whether the peer sent them or they were found out here (a deadline that passed,
a connection that is gone), so that a caller has one thing to catch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import TYPE_CHECKING

from google.rpc.status_pb2 import Status

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage


class Code(IntEnum):
    """The numbers of ``google.rpc.Code``."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


def _known(code: int) -> int:
    try:
        return Code(code)
    except ValueError:
        return code


class StatusError(Exception):
    """A call ended with a status other than OK.

    ``code`` is a `Code`, or a plain int where the peer sent a number that ``google.rpc.Code`` does not have;
    ``details`` are the ``google.protobuf.Any`` messages that came with it, unopened.
    """

    def __init__(self, code: int, message: str = "", details: Iterable[AnyMessage] = ()) -> None:
        super().__init__(code, message)
        self.code = _known(code)
        self.message = message
        self.details = tuple(details)

    def __str__(self) -> str:
        name = self.code.name if isinstance(self.code, Code) else f"code {self.code}"
        return f"{name}: {self.message}" if self.message else name

    @classmethod
    def from_status(cls, status: Status) -> StatusError:
        """Return the error that a peer's status stands for."""
        return cls(status.code, status.message, status.details)

    def to_status(self) -> Status:
        """Return the message that carries this error to a peer."""
        return Status(code=self.code, message=self.message, details=self.details)


class ProtocolError(StatusError):
    """The peer broke the protocol. Its code is INTERNAL, as no code says so better."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.INTERNAL, message)


MapError = Callable[[StatusError], Exception]
"""Turns a `StatusError` into the exception to raise in its place."""
