"""ttrpc frames as crossings: each with the call it belongs to, its message decoded by the service's descriptor."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from google.protobuf import text_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from sandbox_nb.guest.methods import methods
from sandbox_nb.lens.crossings import Crossing
from sandbox_nb.ttrpc import StatusError
from sandbox_nb.ttrpc.frames import DATA, NO_DATA, REMOTE_CLOSED, REQUEST, RESPONSE, Frame
from sandbox_nb.ttrpc.proto.envelope_pb2 import Request, Response

MAX_KEPT = 64 * 1024
"""Bytes of a payload beyond which a frame is kept without it."""

Method = tuple[str, str]
"""Full name of a service, name of a method."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame that passed. ``method`` is None where its call began before the lens was open."""

    time_ns: int
    sent: bool
    frame: Frame
    method: Method | None

    @property
    def kept(self) -> int:
        """Bytes of payload that it holds."""
        return len(self.frame.payload or b"")


class Calls:
    """Which call each stream of one connection is."""

    def __init__(self) -> None:
        self._methods: dict[int, Method] = {}

    def see(self, time_ns: int, sent: bool, frame: Frame) -> Seen:
        """Take a frame as it passes; what is asked of its content is asked later."""
        if frame.type == REQUEST and sent and frame.payload is not None:
            request = Request.FromString(frame.payload)
            self._methods[frame.stream] = request.service, request.method
        method = self._methods.get(frame.stream)
        if not sent and (frame.type == RESPONSE or frame.flags & REMOTE_CLOSED):
            self._methods.pop(frame.stream, None)
        if frame.length > MAX_KEPT:
            frame = frame._replace(payload=None)
        return Seen(time_ns, sent, frame, method)


def crossing(seen: Seen) -> Crossing:
    """A frame, decoded."""
    frame = seen.frame
    name = f"{seen.method[0].rpartition('.')[2]}.{seen.method[1]}" if seen.method else "a call from before"
    return Crossing(
        seen.time_ns,
        "ttrpc",
        seen.sent,
        f"{name} {_step(frame)}",
        f"#{frame.stream}",
        frame.length,
        _detail(seen),
    )


def _step(frame: Frame) -> str:
    if frame.type == DATA:
        return "end" if frame.flags & NO_DATA else "message"
    return {REQUEST: "request", RESPONSE: "response"}.get(frame.type, f"type {frame.type}")


def _detail(seen: Seen) -> str:
    frame = seen.frame
    if frame.payload is None:
        return f"{frame.length} bytes, not kept"
    try:
        if frame.type == REQUEST:
            request = Request.FromString(frame.payload)
            limit = f"  (within {request.timeout_nano / 1e9:g} s)" if request.timeout_nano else ""
            return _text(seen, request.payload) + limit
        if frame.type == RESPONSE:
            response = Response.FromString(frame.payload)
            if response.status.code:
                return str(StatusError.from_status(response.status))
            return _text(seen, response.payload)
        return "" if frame.flags & NO_DATA else _text(seen, frame.payload)
    except DecodeError as error:
        return f"no message: {error}"


def _text(seen: Seen, payload: bytes) -> str:
    """A message in protobuf's text form, on one line. Raises DecodeError."""
    descriptor = _known().get(seen.method) if seen.method else None
    if descriptor is None:
        return payload[:40].hex(" ")
    kind = descriptor.input_type if seen.sent else descriptor.output_type
    return text_format.MessageToString(GetMessageClass(kind).FromString(payload), as_one_line=True).strip()


@functools.cache
def _known() -> dict[Method, MethodDescriptor]:
    return {(method.containing_service.full_name, method.name): method for method in methods()}
