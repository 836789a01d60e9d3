"""The back end's side of the vhost-user protocol: messages, and what they must look like.

QEMU's docs/interop/vhost-user.rst. A message is a 12-byte header (request, flags, size; each u32 of the
host's byte order, little-endian here), a payload of `size` bytes, and file descriptors beside the first byte.
Only its form is checked here; what it means is the device's affair. Sans-IO: a file descriptor is a number,
to be closed by whoever gets it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

GET_FEATURES = 1
SET_FEATURES = 2
SET_OWNER = 3
RESET_OWNER = 4
SET_MEM_TABLE = 5
SET_VRING_NUM = 8
SET_VRING_ADDR = 9
SET_VRING_BASE = 10
GET_VRING_BASE = 11
SET_VRING_KICK = 12
SET_VRING_CALL = 13
SET_VRING_ERR = 14
GET_PROTOCOL_FEATURES = 15
SET_PROTOCOL_FEATURES = 16
GET_QUEUE_NUM = 17
SET_VRING_ENABLE = 18
GET_CONFIG = 24

VIRTIO_RING_F_INDIRECT_DESC = 1 << 28
VIRTIO_RING_F_EVENT_IDX = 1 << 29
VHOST_USER_F_PROTOCOL_FEATURES = 1 << 30
VIRTIO_F_VERSION_1 = 1 << 32

PROTOCOL_F_MQ = 1 << 0
PROTOCOL_F_REPLY_ACK = 1 << 3
PROTOCOL_F_CONFIG = 1 << 9

VERSION = 1
_VERSION_MASK = 0x3
_REPLY = 0x4
_NEED_REPLY = 0x8

_HEADER = struct.Struct("<III")
_U64 = struct.Struct("<Q")
_VRING_STATE = struct.Struct("<II")
_VRING_ADDR = struct.Struct("<IIQQQQ")
_REGIONS_HEAD = struct.Struct("<II")
_REGION = struct.Struct("<QQQQ")
_CONFIG_HEAD = struct.Struct("<III")

HEADER_SIZE = _HEADER.size
MAX_REGIONS = 8
"""Memory regions in one SET_MEM_TABLE, and so the most file descriptors with one message."""
MAX_PAYLOAD = 4096
"""Well above the largest message known here (a memory table, 264 bytes)."""

_NO_FD = 1 << 8
"""In the u64 of a vring's file descriptor message: none is attached."""


class ProtocolError(Exception):
    """A message whose form is wrong: the connection it came on cannot go on."""


class Message(NamedTuple):
    """One message from the front end."""

    request: int
    need_reply: bool
    payload: bytes
    fds: tuple[int, ...]


class VringState(NamedTuple):
    """SET_VRING_NUM, _BASE, _ENABLE and GET_VRING_BASE: a number for one queue."""

    queue: int
    num: int


class VringAddress(NamedTuple):
    """Where one queue's three parts lie, in the front end's virtual addresses."""

    queue: int
    desc: int
    used: int
    avail: int


class VringFd(NamedTuple):
    """A kick, call or error file descriptor for one queue; None means there is none."""

    queue: int
    fd: int | None


class MemoryRegion(NamedTuple):
    """`size` bytes at `guest` (physical) and `user` (front end's virtual), found at `offset` in the file `fd`."""

    guest: int
    size: int
    user: int
    offset: int
    fd: int


def decode_header(data: bytes) -> tuple[int, bool, int]:
    """(request, need_reply, payload size) of the 12 header bytes."""
    request, flags, size = _HEADER.unpack(data)
    if flags & _VERSION_MASK != VERSION or flags & _REPLY:
        raise ProtocolError(f"request {request} with flags {flags:#x}, not version {VERSION}")
    if size > MAX_PAYLOAD:
        raise ProtocolError(f"request {request} with {size} bytes of payload, more than {MAX_PAYLOAD}")
    return request, bool(flags & _NEED_REPLY), size


class Decoder:
    """Messages out of a stream of bytes and file descriptors. At most one message's worth of either is kept."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._fds: list[int] = []

    @property
    def wanted(self) -> int:
        """Bytes to read next: no further, or the next message's file descriptors would come along."""
        if len(self._data) < HEADER_SIZE:
            return HEADER_SIZE - len(self._data)
        _, _, size = decode_header(bytes(self._data[:HEADER_SIZE]))
        return HEADER_SIZE + size - len(self._data)

    def feed(self, data: bytes, fds: list[int]) -> Message | None:
        """Add at most `wanted` bytes, and what came beside them; a message if they complete one."""
        self._data += data
        self._fds += fds
        if len(self._fds) > MAX_REGIONS:
            raise ProtocolError(f"{len(self._fds)} file descriptors with one message, more than {MAX_REGIONS}")
        if len(self._data) < HEADER_SIZE or self.wanted:
            return None
        request, need_reply, _ = decode_header(bytes(self._data[:HEADER_SIZE]))
        message = Message(request, need_reply, bytes(self._data[HEADER_SIZE:]), tuple(self._fds))
        self._data.clear()
        self._fds.clear()
        return message

    def abandon(self) -> list[int]:
        """The file descriptors of a message that will never be complete, for closing."""
        fds, self._fds = self._fds, []
        return fds


def reply(request: int, payload: bytes) -> bytes:
    """The answer to a request."""
    return _HEADER.pack(request, VERSION | _REPLY, len(payload)) + payload


def ack(request: int) -> bytes:
    """The REPLY_ACK answer to a request that has no other: zero is success. What fails ends the connection."""
    return reply(request, encode_u64(0))


def _unpack(layout: struct.Struct, message: Message) -> tuple[int, ...]:
    if len(message.payload) != layout.size:
        raise ProtocolError(f"request {message.request} with {len(message.payload)} bytes, not {layout.size}")
    return layout.unpack(message.payload)


def decode_u64(message: Message) -> int:
    """The payload as one number."""
    return _unpack(_U64, message)[0]


def encode_u64(value: int) -> bytes:
    """One number as a payload."""
    return _U64.pack(value)


def decode_vring_state(message: Message) -> VringState:
    """The payload as a queue's number."""
    return VringState(*_unpack(_VRING_STATE, message))


def encode_vring_state(state: VringState) -> bytes:
    """A queue's number as a payload."""
    return _VRING_STATE.pack(*state)


def decode_vring_address(message: Message) -> VringAddress:
    """The payload as a queue's place. Its flags and log address serve migration, which vsock does not offer."""
    index, _, desc, used, avail, _ = _unpack(_VRING_ADDR, message)
    if desc % 16 or used % 4 or avail % 2:
        raise ProtocolError(f"queue {index} misaligned: desc {desc:#x}, used {used:#x}, avail {avail:#x}")
    return VringAddress(index, desc, used, avail)


def decode_vring_fd(message: Message) -> VringFd:
    """The payload and its descriptor as a queue's event file."""
    value = decode_u64(message)
    expected = 0 if value & _NO_FD else 1
    if len(message.fds) != expected:
        raise ProtocolError(f"request {message.request} with {len(message.fds)} file descriptors, not {expected}")
    return VringFd(value & 0xFF, message.fds[0] if expected else None)


def decode_mem_table(message: Message) -> list[MemoryRegion]:
    """The payload and its descriptors as memory regions."""
    if len(message.payload) < _REGIONS_HEAD.size:
        raise ProtocolError(f"memory table of {len(message.payload)} bytes")
    count, _ = _REGIONS_HEAD.unpack_from(message.payload)
    size = _REGIONS_HEAD.size + _REGION.size * count
    # A front end may send room for all eight regions and use fewer.
    if count > MAX_REGIONS or len(message.payload) < size or len(message.fds) != count:
        sizes = f"{len(message.payload)} bytes and {len(message.fds)} file descriptors"
        raise ProtocolError(f"memory table of {count} regions in {sizes}")
    layouts = _REGION.iter_unpack(message.payload[_REGIONS_HEAD.size : size])
    regions = [
        MemoryRegion(guest, length, user, offset, fd)
        for (guest, length, user, offset), fd in zip(layouts, message.fds, strict=True)
    ]
    for region in regions:
        if not region.size or max(region.guest, region.user, region.offset) + region.size > 1 << 64:
            raise ProtocolError(f"memory region {region} does not fit into 64 bits")
    return regions


def decode_config(message: Message) -> tuple[int, int]:
    """(offset, size) of the configuration bytes asked for."""
    if len(message.payload) < _CONFIG_HEAD.size:
        raise ProtocolError(f"configuration request of {len(message.payload)} bytes")
    offset, size, _ = _CONFIG_HEAD.unpack_from(message.payload)
    return offset, size


def encode_config(offset: int, data: bytes) -> bytes:
    """Configuration bytes as a payload."""
    return _CONFIG_HEAD.pack(offset, len(data), 0) + data
