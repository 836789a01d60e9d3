"""Records of a stream, each behind its length (uint32, big-endian); one of length 0 ends what it stands in."""

from __future__ import annotations

import struct
from typing import BinaryIO

from google.protobuf.message import DecodeError

from sandbox_nb.errors import ProtocolError
from sandbox_nb.guest.proto.files_pb2 import Entry

__all__ = ["LENGTH", "RECORD_MAX", "read_entry", "read_record", "tree_name"]

RECORD_MAX = 256 * 1024
"""Bytes of a record, at most."""

NAME_MAX = 255
"""Bytes of a name, at most: Linux's limit, whatever the file system."""

MAX_DEPTH = 256
"""Folders that may lie in each other. One is open for each, and a process may have few files open."""

LENGTH = struct.Struct(">I")


def tree_name(path: bytes) -> bytes:
    """What the tree at ``path`` is called where it is put: its last name, nothing for "/", "." and ".."."""
    name = path.rstrip(b"/").rpartition(b"/")[2]
    return b"" if name in (b".", b"..") else name


def read_record(source: BinaryIO) -> bytes:
    """Return the next record. Raises ConnectionResetError when the stream ends before its end."""
    (length,) = LENGTH.unpack(_exactly(source, LENGTH.size))
    if length > RECORD_MAX:
        raise ProtocolError(f"the guest announced a record of {length} bytes; {RECORD_MAX} are the most")
    return _exactly(source, length)


def read_entry(source: BinaryIO) -> Entry | None:
    """Return the next record as an Entry, None for the one that ends a folder.

    Raises ProtocolError for what no file system could hold: an Entry has a name, never a path.
    """
    record = read_record(source)
    if not record:
        return None
    try:
        entry = Entry.FromString(record)
    except DecodeError:
        raise ProtocolError(f"the guest sent a record of {len(record)} bytes that is no Entry") from None
    name = entry.name
    if len(name) > NAME_MAX or b"/" in name or b"\0" in name + entry.target + entry.link or name in (b".", b".."):
        raise ProtocolError(f"the guest sent {name[:80]!r}, which cannot be the name of a file")
    if entry.mtime_nanos > 999_999_999:
        raise ProtocolError(f"the guest sent {entry.mtime_nanos} nanoseconds with {name[:80]!r}")
    return entry


def _exactly(source: BinaryIO, length: int) -> bytes:
    data = source.read(length)
    if len(data) < length:
        raise ConnectionResetError("the stream ended before its end")
    return data
