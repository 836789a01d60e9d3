"""What a disk image says of itself: format, size, and the other files it names. Nothing but the image is read.

QEMU follows what an image names by itself: a backing file, an external data file, the extents and the parent of a
VMDK, each of which may also be a URL or ``json:``. So headers are read here first, and QEMU is then told every
file it may open. Sources: QEMU's ``docs/interop/qcow2.txt``, and VMware's "Virtual Disk Format 5.0".
"""

from __future__ import annotations

import os
import re
import struct
from array import array
from dataclasses import dataclass
from typing import BinaryIO

SECTOR = 512

# What may be mistaken for a raw disk and is none, by its first bytes.
_FOREIGN = {b"vhdxfile": "VHDX", b"QED\0": "QED", b"conectix": "VHD", b"COWD": "VMDK 3", b"<<< ": "VDI"}

_QCOW2_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")  # up to snapshots_offset, 72 bytes
_QCOW2_DATA_FILE = 1 << 2
_QCOW2_EXTENDED_L2 = 1 << 4
_QCOW2_KNOWN = 0x1F
_QCOW2_MAX_L1 = 32 << 20
_QCOW2_NAME = {0xE2792ACA: "backing format", 0x44415441: "data file"}
_OFFSET_MASK = 0x00FFFFFFFFFFFE00
_COMPRESSED = 1 << 62

_VMDK_HEADER = struct.Struct("<4sIIQQQQIQQQ")  # up to grainOffset, 72 bytes
_VMDK_GD_AT_END = 0xFFFFFFFFFFFFFFFF
_VMDK_MAX_TABLE = 64 << 20
_VMDK_DESCRIPTOR = b"# disk descriptorfile"
_VMDK_MAX_DESCRIPTOR = 1 << 20
_VMDK_EXTENT = re.compile(
    rb"^[ \t]*RW[ \t]+(?P<sectors>\d+)[ \t]+(?P<type>\S+)"
    rb'(?:[ \t]+"(?P<name>[^"\r\n]*)"(?:[ \t]+(?P<offset>\d+))?)?',
    re.MULTILINE,
)
_VMDK_PARENT = re.compile(rb'parentFileNameHint[^"\r\n]*"([^"\r\n]*)"')


class BadImageError(ValueError):
    """An image that is broken, or of a kind that is not taken; says what about it."""


@dataclass(frozen=True)
class Extent:
    """A file that holds a part of a VMDK, ``size`` bytes at least."""

    name: str
    size: int


@dataclass(frozen=True)
class Facts:
    """What an image says of itself. Names are as it says them; ``allocated``: parts of it may hold data."""

    format: str
    virtual_size: int
    backing: str | None = None
    backing_format: str | None = None
    data_file: str | None = None
    extents: tuple[Extent, ...] = ()
    allocated: bool = True


def read(image: BinaryIO) -> Facts:
    """Read the headers and tables of an image. Raises BadImageError, OSError."""
    size = image.seek(0, os.SEEK_END)
    start = _at(image, 0, SECTOR)
    if start.startswith(b"QFI\xfb"):
        return _qcow2(image, size)
    if start.startswith(b"KDMV"):
        return _vmdk_sparse(image, size)
    if start.lower().startswith(_VMDK_DESCRIPTOR):
        return _vmdk_descriptor(_at(image, 0, _VMDK_MAX_DESCRIPTOR))
    for magic, name in _FOREIGN.items():
        if start.startswith(magic):
            raise BadImageError(f"it is a {name} image; qemu-img convert makes a qcow2 of it")
    return Facts("raw", size)


def _qcow2(image: BinaryIO, size: int) -> Facts:
    header = _at(image, 0, 112)
    if len(header) < _QCOW2_HEADER.size:
        raise BadImageError("it is a truncated qcow2: the header is not whole")
    fields = _QCOW2_HEADER.unpack_from(header)
    _, version, name_offset, name_size, cluster_bits, virtual_size, encrypted, l1_size, l1_offset = fields[:9]
    if version not in (2, 3) or not 9 <= cluster_bits <= 21:
        raise BadImageError(
            f"it is a qcow of version {version} with clusters of 2^{cluster_bits} bytes, not a qcow2"
        )
    if encrypted:
        raise BadImageError("it is an encrypted qcow2; qemu-img convert can decrypt it")
    features, header_size = 0, _QCOW2_HEADER.size
    if version == 3:
        if len(header) < 104:
            raise BadImageError("it is a truncated qcow2: the header is not whole")
        (features,), (header_size,) = struct.unpack_from(">Q", header, 72), struct.unpack_from(">I", header, 100)
    if unknown := features & ~_QCOW2_KNOWN:
        raise BadImageError(f"it is a qcow2 with unknown incompatible features {unknown:#x}")
    names = _qcow2_names(_at(image, header_size, 1 << cluster_bits))
    last = _qcow2_last(image, _Mapping(l1_offset, l1_size, cluster_bits, bool(features & _QCOW2_EXTENDED_L2)))
    data_file = names.get("data file", "") if features & _QCOW2_DATA_FILE else None
    if data_file is None and last >= size:
        raise BadImageError(f"it is a truncated qcow2: data is at {last}, and the file ends at {size}")
    return Facts(
        "qcow2",
        virtual_size,
        backing=_text(_at(image, name_offset, min(name_size, 1023))) if name_offset else None,
        backing_format=names.get("backing format"),
        data_file=data_file,
        allocated=last > 0,
    )


def _qcow2_names(extensions: bytes) -> dict[str, str]:
    """The header extensions that hold a name: type u32, length u32, data padded to 8 bytes; type 0 ends them."""
    found = {}
    position = 0
    while position + 8 <= len(extensions):
        kind, length = struct.unpack_from(">II", extensions, position)
        if kind == 0:
            break
        if kind in _QCOW2_NAME:
            found[_QCOW2_NAME[kind]] = _text(extensions[position + 8 : position + 8 + length])
        position += 8 + (length + 7 & ~7)
    return found


@dataclass(frozen=True)
class _Mapping:
    """Where a qcow2 says which clusters hold its data: a table of tables."""

    l1_offset: int
    l1_size: int
    cluster_bits: int
    extended: bool


def _qcow2_last(image: BinaryIO, mapping: _Mapping) -> int:
    """Where the furthest cluster of data is; 0 when there is none. Raises BadImageError for a lost table."""
    if mapping.l1_size * 8 > _QCOW2_MAX_L1:
        raise BadImageError(
            f"it is a qcow2 with a level 1 table of {mapping.l1_size} entries, more than QEMU takes"
        )
    last = 0
    for entry in _table(image, "Q", mapping.l1_offset, mapping.l1_size, "qcow2"):
        if not (l2_offset := entry & _OFFSET_MASK):
            continue
        table = _table(image, "Q", l2_offset, (1 << mapping.cluster_bits) // 8, "qcow2")
        # With sub-clusters every second word is a bitmap. Flags are the same for most entries, so that the
        # largest is the furthest.
        highest = max(table[::2] if mapping.extended else table)
        if highest & _COMPRESSED:
            last = max(last, highest & (1 << 62 - (mapping.cluster_bits - 8)) - 1)
        else:
            last = max(last, highest & _OFFSET_MASK)
    return last


def _vmdk_sparse(image: BinaryIO, size: int) -> Facts:
    header = _at(image, 0, SECTOR)
    if len(header) < SECTOR:
        raise BadImageError("it is a truncated VMDK: the header is not whole")
    fields = _VMDK_HEADER.unpack_from(header)
    capacity, grain, descriptor_offset, descriptor_size, entries, _, directory = fields[3:10]
    descriptor = _at(
        image, descriptor_offset * SECTOR, min(max(descriptor_size, 20) * SECTOR, _VMDK_MAX_DESCRIPTOR)
    )
    if not descriptor_offset:
        descriptor = b""
    if capacity == 0:  # then QEMU takes the extents that the descriptor names
        return _vmdk_descriptor(descriptor)
    if directory == _VMDK_GD_AT_END:
        footer = _at(image, max(size - 2 * SECTOR, 0), SECTOR)
        if not footer.startswith(b"KDMV"):
            raise BadImageError("it is a truncated VMDK: the footer is not there")
        directory = _VMDK_HEADER.unpack_from(footer)[9]
    if not 1 <= grain <= 1 << 20 or not 1 <= entries <= 1 << 16:
        raise BadImageError(f"it is a broken VMDK: grains of {grain} sectors, tables of {entries} entries")
    tables = -(-capacity // (grain * entries))
    if tables * 4 > _VMDK_MAX_TABLE:
        raise BadImageError(f"it is a broken VMDK: {tables} grain tables")
    last = 0
    for sector in _table(image, "I", directory * SECTOR, tables, "VMDK"):
        if sector:
            last = max(last, *_table(image, "I", sector * SECTOR, entries, "VMDK"))
    if last * SECTOR >= size:
        raise BadImageError(f"it is a truncated VMDK: data is at {last * SECTOR}, and the file ends at {size}")
    return Facts("vmdk", capacity * SECTOR, backing=_vmdk_parent(descriptor), allocated=last > 1)


def _vmdk_descriptor(text: bytes) -> Facts:
    """A VMDK that is a text naming its extents."""
    if len(text) >= _VMDK_MAX_DESCRIPTOR or not text:
        raise BadImageError("it is a broken VMDK: the descriptor has no end")
    extents, total = [], 0
    for found in _VMDK_EXTENT.finditer(text):
        kind, sectors = found["type"], int(found["sectors"])
        if kind not in (b"FLAT", b"VMFS", b"SPARSE", b"ZERO"):
            raise BadImageError(f"it is a VMDK with an extent of type {_text(kind)}; qemu-img convert may read it")
        total += sectors * SECTOR
        if kind != b"ZERO":
            flat = kind in (b"FLAT", b"VMFS")
            extents.append(
                Extent(_text(found["name"] or b""), (sectors + int(found["offset"] or 0)) * SECTOR if flat else 0)
            )
    if not total:
        raise BadImageError("it is a truncated VMDK: the descriptor names no extent")
    return Facts("vmdk", total, backing=_vmdk_parent(text), extents=tuple(extents))


def _vmdk_parent(descriptor: bytes) -> str | None:
    if b"parentFileNameHint" not in descriptor:
        return None
    found = _VMDK_PARENT.search(descriptor)
    return _text(found[1]) if found else ""


def holds_data(image: BinaryIO, facts: Facts) -> bool:
    """Whether an image holds any data. A raw one is read, but for its holes, up to a byte that is not zero."""
    if facts.format != "raw":
        return facts.allocated
    position = 0
    while position < facts.virtual_size:
        try:
            position = os.lseek(image.fileno(), position, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole follows
            return False
        end = os.lseek(image.fileno(), position, os.SEEK_HOLE)
        while position < end:
            piece = os.pread(image.fileno(), min(end - position, 1 << 20), position)
            if piece.strip(b"\0"):
                return True
            position += len(piece) or end
    return False


def _table(image: BinaryIO, code: str, offset: int, count: int, what: str) -> array[int]:
    """Numbers of the image, in the byte order of its format. Raises BadImageError when the file ends before."""
    table = array(code)
    data = _at(image, offset, count * table.itemsize)
    if len(data) < count * table.itemsize:
        raise BadImageError(f"it is a truncated {what}: a table at {offset} is beyond the file's end")
    table.frombytes(data)
    if what == "qcow2":  # big-endian; every host of ours is little-endian, and so is VMDK
        table.byteswap()
    return table


def _at(image: BinaryIO, offset: int, size: int) -> bytes:
    return os.pread(image.fileno(), size, offset) if offset < 1 << 63 else b""


def _text(name: bytes) -> str:
    return os.fsdecode(name)
