"""The vsock packet: a 44-byte little-endian header, then payload.

Virtio 1.2, section 5.10.6 "Device Operation". Sans-IO: bytes in, values out.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HOST_CID = 2
"""The well-known context id of the host (virtio 1.2, 5.10.4)."""

HEADER_SIZE = 44
_HEADER = struct.Struct("<QQIIIHHIII")

STREAM = 1
"""The one socket type served here; virtio also defines SEQPACKET (2), a feature this device does not offer."""

REQUEST = 1
RESPONSE = 2
RST = 3
SHUTDOWN = 4
RW = 5
CREDIT_UPDATE = 6
CREDIT_REQUEST = 7

OP_NAMES = {
    REQUEST: "REQUEST",
    RESPONSE: "RESPONSE",
    RST: "RST",
    SHUTDOWN: "SHUTDOWN",
    RW: "RW",
    CREDIT_UPDATE: "CREDIT_UPDATE",
    CREDIT_REQUEST: "CREDIT_REQUEST",
}

SHUTDOWN_RECEIVE = 1
"""Flag of SHUTDOWN: its sender will receive no more."""
SHUTDOWN_SEND = 2
"""Flag of SHUTDOWN: its sender will send no more."""
SHUTDOWN_BOTH = SHUTDOWN_RECEIVE | SHUTDOWN_SEND


class Header(NamedTuple):
    """One packet header, fields in wire order. `len` counts payload bytes; credits count bytes modulo 2**32."""

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    len: int
    type: int
    op: int
    flags: int
    buf_alloc: int
    fwd_cnt: int

    def pack(self) -> bytes:
        """The 44 bytes of this header."""
        return _HEADER.pack(*self)

    def __str__(self) -> str:
        op = OP_NAMES.get(self.op, f"op {self.op}")
        return (
            f"{self.src_cid}:{self.src_port} > {self.dst_cid}:{self.dst_port} {op} len={self.len} "
            f"flags={self.flags} buf_alloc={self.buf_alloc} fwd_cnt={self.fwd_cnt}"
        )


def unpack(data: bytes | bytearray | memoryview) -> Header:
    """The header in the first 44 bytes of `data`; `struct.error` if there are fewer."""
    return Header._make(_HEADER.unpack_from(data))
