"""Frames: a 10-byte header and up to 4 MiB of payload. Bytes in, frames out; bytes out of frames.

::

     0               4               8       9      10
    +---------------+---------------+-------+-------+--------------
    | length (u32)  | stream (u32)  | type  | flags | payload …
    +---------------+---------------+-------+-------+--------------

Both numbers are big-endian; the length counts the payload alone (containerd/ttrpc, PROTOCOL.md).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from .status import Code, StatusError

HEADER_SIZE: Final = 10
MAX_PAYLOAD: Final = 4 << 20
"""The largest payload in bytes. A larger frame costs its stream a ResourceExhausted; the connection goes on."""

# Types. A receiver ignores the ones it does not know.
REQUEST: Final = 1
RESPONSE: Final = 2
DATA: Final = 3

# Flags are said from the receiver's point of view: "remote" is the sender of the frame.
REMOTE_CLOSED: Final = 0x1  # of a request or data frame: the sender's last message
REMOTE_OPEN: Final = 0x2  # of a request: messages follow. With neither of the two, a request is unary
NO_DATA: Final = 0x4  # of a data frame: no message here, where an empty payload alone is an empty message

_HEADER = struct.Struct(">IIBB")


class Frame(NamedTuple):
    """One frame. ``payload`` is None where it was over the limit: ``length`` bytes that were thrown away."""

    stream: int
    type: int
    flags: int
    length: int
    payload: bytes | None


def encode_frame(stream: int, kind: int, flags: int, payload: bytes) -> bytes:
    """Return one frame as bytes; a payload over 4 MiB raises ResourceExhausted."""
    if len(payload) > MAX_PAYLOAD:
        raise oversize(len(payload))
    return _HEADER.pack(len(payload), stream, kind, flags) + payload


def oversize(length: int) -> StatusError:
    """Return the error for a payload of ``length`` bytes, over the limit."""
    return StatusError(
        Code.RESOURCE_EXHAUSTED, f"a message of {length} bytes is over ttrpc's limit of {MAX_PAYLOAD} bytes"
    )


class FrameDecoder:
    """Cuts a byte stream into frames, wherever it was torn.

    Holds at most one unfinished frame, so never more than a header and `MAX_PAYLOAD` bytes: a longer payload is
    dropped as it comes in.
    """

    def __init__(self) -> None:
        self._unfinished = bytearray()
        self._wanted = HEADER_SIZE  # the length at which the unfinished frame can be read further
        self._to_skip = 0

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take the next bytes of the stream; return the frames that can be told by now, oldest first."""
        frames: list[Frame] = []
        with memoryview(data) as view:
            position = 0
            while position < len(view):
                if self._to_skip:
                    position += self._skip(len(view) - position)
                elif self._unfinished:
                    position += self._continue(view[position:], frames)
                else:
                    position = self._cut(view, position, frames)
        return frames

    def _cut(self, view: memoryview, position: int, frames: list[Frame]) -> int:
        """Take whole frames straight out of ``view``, up to one torn or oversize; return where that got."""
        end = len(view)
        while end - position >= HEADER_SIZE:
            length, stream, kind, flags = _HEADER.unpack_from(view, position)
            start = position + HEADER_SIZE
            if length > MAX_PAYLOAD:
                frames.append(Frame(stream, kind, flags, length, None))
                self._to_skip = length
                return start
            if length > end - start:
                self._wanted = HEADER_SIZE + length
                break
            position = start + length
            frames.append(Frame(stream, kind, flags, length, view[start:position].tobytes()))
        self._unfinished += view[position:]
        return end

    def _continue(self, view: memoryview, frames: list[Frame]) -> int:
        """Add to the unfinished frame what it wants; return how many bytes of ``view`` that took."""
        taken = view[: self._wanted - len(self._unfinished)]
        self._unfinished += taken
        if len(self._unfinished) == self._wanted:
            length, stream, kind, flags = _HEADER.unpack_from(self._unfinished)
            if length > MAX_PAYLOAD:
                frames.append(Frame(stream, kind, flags, length, None))
                self._to_skip = length
                self._start_over()
            elif self._wanted < HEADER_SIZE + length:
                self._wanted = HEADER_SIZE + length
            else:
                with memoryview(self._unfinished) as whole:
                    frames.append(Frame(stream, kind, flags, length, whole[HEADER_SIZE:].tobytes()))
                self._start_over()
        return len(taken)

    def _skip(self, available: int) -> int:
        skipped = min(self._to_skip, available)
        self._to_skip -= skipped
        return skipped

    def _start_over(self) -> None:
        self._unfinished.clear()
        self._wanted = HEADER_SIZE
