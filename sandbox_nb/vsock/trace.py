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
from .packet import HEADER_SIZE, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

LINKTYPE_VSOCK = 271

_SECTION = struct.Struct("<IIIHHqI")
_INTERFACE = struct.Struct("<IIHHIHHB3xHHI")
_ENHANCED = struct.Struct("<IIIIIII")
_LENGTH = struct.Struct("<I")

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


def block(packed: bytes, payload: list[memoryview], nanoseconds: int) -> list[bytes | memoryview]:
    """The pieces of the block for one packet, to be written one after the other."""
    header = unpack(packed)
    monitor = _MONITOR.pack(*header[:4], _MONITOR_OPS.get(header.op, _UNKNOWN), _TRANSPORT_VIRTIO, HEADER_SIZE)
    captured = len(monitor) + HEADER_SIZE + sum(map(len, payload))
    padding = -captured % 4
    size = _ENHANCED.size + captured + padding + _LENGTH.size
    seconds = divmod(nanoseconds, 1 << 32)
    head = _ENHANCED.pack(6, size, 0, *seconds, captured, captured)
    return [head, monitor, packed, *payload, bytes(padding), _LENGTH.pack(size)]


class Tap:
    """Where every packet passes. `on_packet` (packed header, payload) is None unless somebody wants to see."""

    __slots__ = ("_fd", "_lines", "on_packet")

    def __init__(self) -> None:
        self.on_packet: Callable[[bytes, list[memoryview]], None] | None = None
        self._fd: int | None = None
        self._lines = False

    def open(self, path: str | None, *, lines: bool = False) -> None:
        """Write packets to a new file, and with `lines` one line each to standard error; neither turns it off.

        OSError if the file cannot be made; then nothing changes.
        """
        fd = None if path is None else _create(path)
        self.close()
        self._fd, self._lines = fd, lines
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
                pieces = block(packed, payload, now)
                if os.writev(self._fd, pieces[: os.sysconf("SC_IOV_MAX")]) < sum(map(len, pieces)):
                    raise OSError("written in part: the disk is full")
        except OSError as error:  # a trace that fails must not harm what it watches
            self.close()
            sys.stderr.write(f"vsock: the trace ends: {error}\n")


def _create(path: str) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.write(fd, preamble())
    return fd
