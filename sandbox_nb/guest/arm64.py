"""Taking an arm64 kernel apart: the plain Image that QEMU boots, out of what distributions ship.

Debian ships the Image itself, Ubuntu the Image in gzip, Fedora a "zboot": a small EFI program that carries it
packed. QEMU 7.2 knows the first two, and unpacking with each start what can be unpacked once is a waste.

Offsets are those of Documentation/arch/arm64/booting.rst and of drivers/firmware/efi/libstub/zboot-header.S.
"""

from __future__ import annotations

import struct

from sandbox_nb.guest import compression

__all__ = ["image"]

_MAGIC = b"ARMd"
_MAGIC_OFFSET = 0x38
_HEADER_SIZE = 0x40

_ZBOOT_MAGIC = b"zimg"  # behind "MZ" and two zeros
_ZBOOT_PAYLOAD = 0x08  # u32 offset from the file's start, u32 length
_ZBOOT_PACKING = 0x18  # its name, closed by NUL


def image(data: bytes) -> bytes | None:
    """Return the Image in a kernel's file; None when that is no arm64 kernel.

    Raises:
        Corrupt: it is one, and the Image cannot be taken out.

    """
    if data[4:8] == _ZBOOT_MAGIC:
        return _checked(compression.decompress(_payload(data)))
    if compression.detect(data) is not None:
        data = compression.decompress(data)
    return data if _is_image(data) else None


def _payload(zboot: bytes) -> bytes:
    """Return what a zboot carries; the unpacked size behind it is not counted in its length."""
    if len(zboot) < _HEADER_SIZE:
        raise compression.Corrupt("its header is torn")
    offset, length = struct.unpack_from("<II", zboot, _ZBOOT_PAYLOAD)
    payload = zboot[offset : offset + length]
    if len(payload) < length or compression.detect(payload) is None:
        name = zboot[_ZBOOT_PACKING:_MAGIC_OFFSET].split(b"\0", 1)[0].decode("ascii", "replace")
        raise compression.Corrupt(f"its payload ({name}) is torn or packed in an unknown way")
    return payload


def _checked(data: bytes) -> bytes:
    if not _is_image(data):
        raise compression.Corrupt("its payload is no Image for arm64")
    return data


def _is_image(data: bytes) -> bool:
    return data.startswith(_MAGIC, _MAGIC_OFFSET)
