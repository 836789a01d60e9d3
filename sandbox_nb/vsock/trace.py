"""A trace of the packets: a pcapng file that Wireshark and tshark decode, or a line of text each.

pcapng is draft-ietf-opsawg-pcapng; link type 271 is LINKTYPE_VSOCK, whose packets begin with Linux's vsockmon
header (uapi/linux/vsockmon.h) and, for virtio, the 44-byte packet header.
"""

from __future__ import annotations

import os
import struct
import sys
from time import time_ns
from typing import TYPE_CHECKING

from . import packet
from .packet import HEADER_SIZE, Header, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINKTYPE_VSOCK = 271

_SECTION = struct.Struct("<IIIHHqI")
_INTERFACE = struct.Struct("<IIHHIHHB3xHHI")
_ENHANCED = struct.Struct("<IIIIIII")
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<II")

_PACKET = 6

_BYTE_ORDER = 0x1A2B3C4D
_IF_TSRESOL = 9
_NANOSECONDS = 9

_MONITOR = struct.Struct("<QQIIHHH2x")
_UNKNOWN, _CONNECT, _DISCONNECT, _CONTROL, _PAYLOAD = range(5)
_TRANSPORT_VIRTIO = 2
_MONITOR_OPS = {
    packet.REQUEST: _CONNECT,
    packet.RESPONSE: _CONNECT,
    packet.RST: _DISCONNECT,
    packet.SHUTDOWN: _DISCONNECT,
    packet.RW: _PAYLOAD,
    packet.CREDIT_UPDATE: _CONTROL,
    packet.CREDIT_REQUEST: _CONTROL,
}


def preamble() -> bytes:
    """The blocks a file begins with: one section, one interface with nanosecond timestamps."""
    section = _SECTION.pack(0x0A0D0D0A, _SECTION.size, _BYTE_ORDER, 1, 0, -1, _SECTION.size)
    size = _INTERFACE.size
    return section + _INTERFACE.pack(1, size, LINKTYPE_VSOCK, 0, 0, _IF_TSRESOL, 1, _NANOSECONDS, 0, 0, size)


def block(
    packed: bytes, payload: list[memoryview], nanoseconds: int, snap: int | None = None
) -> list[bytes | memoryview]:
    """The pieces of the block for one packet, with at most `snap` bytes of its payload, to be written in order."""
    header = unpack(packed)
    monitor = _MONITOR.pack(*header[:4], _MONITOR_OPS.get(header.op, _UNKNOWN), _TRANSPORT_VIRTIO, HEADER_SIZE)
    kept = payload if snap is None else _first(payload, snap)
    captured = len(monitor) + HEADER_SIZE + sum(map(len, kept))
    original = len(monitor) + HEADER_SIZE + sum(map(len, payload))
    padding = -captured % 4
    size = _ENHANCED.size + captured + padding + _LENGTH.size
    seconds = divmod(nanoseconds, 1 << 32)
    head = _ENHANCED.pack(_PACKET, size, 0, *seconds, captured, original)
    return [head, monitor, packed, *kept, bytes(padding), _LENGTH.pack(size)]


def packets(data: bytes) -> Iterator[tuple[int, Header, bytes]]:
    """Time in nanoseconds, header and captured payload of each whole packet in a file that was written here."""
    position = 0
    while position + _HEAD.size <= len(data):
        kind, size = _HEAD.unpack_from(data, position)
        if position + size > len(data):  # being written right now
            return
        if kind == _PACKET:
            *_, high, low, captured, _ = _ENHANCED.unpack_from(data, position)
            start = position + _ENHANCED.size + _MONITOR.size
            payload = data[start + HEADER_SIZE : position + _ENHANCED.size + captured]
            yield high << 32 | low, unpack(data[start : start + HEADER_SIZE]), payload
        position += size


class Tap:
    """Where every packet passes. `on_packet` (packed header, payload) is None unless somebody wants to see."""

    __slots__ = ("_fd", "_lines", "_room", "_snap", "on_packet")

    def __init__(self) -> None:
        self.on_packet: Callable[[bytes, list[memoryview]], None] | None = None
        self._fd: int | None = None
        self._lines = False
        self._snap: int | None = None
        self._room: float = 0

    def open(
        self,
        file: str | int | None,
        *,
        lines: bool = False,
        snap: int | None = None,
        limit: float = float("inf"),
    ) -> None:
        """Write packets to a new file, and with `lines` one line each to standard error; neither turns it off.

        `file` is a path, or the descriptor of an empty file.
        The file gets at most `snap` bytes of each payload, and ends before it is longer than `limit` bytes.
        OSError if the file cannot be made; then nothing changes.
        """
        fd = None if file is None else _begun(file)
        self.close()
        self._fd, self._lines, self._snap, self._room = fd, lines, snap, limit
        self.on_packet = self._write if fd is not None or lines else None

    def close(self) -> None:
        """Turn it off."""
        self.on_packet = None
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None

    def _write(self, packed: bytes, payload: list[memoryview]) -> None:
        now = time_ns()
        try:
            if self._lines:
                sys.stderr.write(f"{now / 1e9:.6f} {unpack(packed)}\n")
                sys.stderr.flush()
            if self._fd is not None:
                pieces = block(packed, payload, now, self._snap)
                size = sum(map(len, pieces))
                if size > self._room:
                    raise OSError("the file has the length it may have")
                if os.writev(self._fd, pieces[: os.sysconf("SC_IOV_MAX")]) < size:
                    raise OSError("written in part: the disk is full")
                self._room -= size
        except OSError as error:  # a trace that fails must not harm what it watches
            self.close()
            sys.stderr.write(f"vsock: the trace ends: {error}\n")


def _first(payload: list[memoryview], size: int) -> list[memoryview]:
    kept = []
    for piece in payload:
        kept.append(piece[:size])
        size -= len(kept[-1])
        if size == 0:
            break
    return kept


def _begun(file: str | int) -> int:
    """The descriptor of a file that has its beginning."""
    new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    fd = os.open(file, new, 0o600) if isinstance(file, str) else file
    try:
        os.write(fd, preamble())
    except OSError:
        os.close(fd)
        raise
    return fd
