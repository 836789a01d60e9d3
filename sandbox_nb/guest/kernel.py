"""Taking a kernel apart: a bzImage's version, the vmlinux packed in it, and whether that can be booted by PVH.

A bzImage unpacks itself in the guest, and under emulation that costs seconds. Its payload is unpacked here
instead, once, and QEMU starts the ELF at its PVH entry, in 32-bit mode. What boots on arm64 is the plain Image,
which ``arm64`` takes out of what it is shipped in.

Offsets are those of Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header", and of elf(5).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sandbox_nb.errors import InvalidArgument, NotFound
from sandbox_nb.guest import arm64, compression

__all__ = ["Kernel", "Kind", "load"]

Kind = Literal["vmlinux", "bzImage", "Image"]

_BOOT_FLAG = 0x1FE  # u16, always 0xAA55
_HEADER_MAGIC = 0x202  # "HdrS"
_SETUP_SECTS = 0x1F1  # u8, 512-byte sectors of real-mode code after the first; 0 means 4
_VERSION = 0x20E  # u16, where the version string begins, less 0x200
_PAYLOAD = 0x248  # u32 offset from the protected-mode code, u32 length
_HEADER_END = 0x250

_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_EM_X86_64 = b"\x3e\0"
_PT_LOAD, _PT_NOTE = 1, 4
_PVH_NOTE = 18  # XEN_ELFNOTE_PHYS32_ENTRY, of the owner "Xen"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel as QEMU is to boot it; ``note`` tells why it is not a vmlinux when it is not."""

    kind: Kind
    data: bytes
    release: str
    note: str = ""


def load(path: Path, arch: str) -> Kernel:
    """Read a kernel (a bzImage or a vmlinux; an Image, packed or plain) and make it ready to boot.

    Raises:
        NotFound: there is no such file.
        InvalidArgument: it is not a Linux kernel for this architecture.

    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no kernel at {path}") from None
    except OSError as error:
        raise InvalidArgument(f"the kernel {path} cannot be read: {error.strerror}") from error
    return parse(data, str(path), arch)


def parse(data: bytes, name: str, arch: str) -> Kernel:
    """Do as ``load``, on a file's content; ``name`` is for the error."""
    return {"x86_64": _from_x86, "aarch64": _from_arm64}[arch](data, name)


def _from_arm64(data: bytes, name: str) -> Kernel:
    try:
        image = arm64.image(data)
    except compression.Corrupt as error:
        raise InvalidArgument(f"{name} is a kernel that cannot be unpacked: {error}") from error
    if image is None:
        raise InvalidArgument(
            f"{name} is not an arm64 Linux kernel (an Image, packed or plain): {_describe(data)}"
        )
    return Kernel("Image", image, _release_within(image, name))


def _from_x86(data: bytes, name: str) -> Kernel:
    if data.startswith(b"\x7fELF"):
        return _from_elf(data, name)
    if _is_bzimage(data):
        return _from_bzimage(data)
    raise InvalidArgument(f"{name} is not an x86-64 Linux kernel (bzImage or vmlinux): {_describe(data)}")


def _is_bzimage(data: bytes) -> bool:
    whole = len(data) >= _HEADER_END
    return whole and data[_BOOT_FLAG : _BOOT_FLAG + 2] == b"\x55\xaa" and data.startswith(b"HdrS", _HEADER_MAGIC)


def _from_bzimage(data: bytes) -> Kernel:
    release = _bzimage_release(data)
    try:
        vmlinux = compression.decompress(_payload(data))
        if flaw := _flaw(vmlinux):
            return Kernel("bzImage", data, release, f"its vmlinux {flaw}")
        return Kernel("vmlinux", loadable(vmlinux), release)
    except compression.Corrupt as error:
        return Kernel("bzImage", data, release, f"its vmlinux cannot be taken out: {error}")


def _from_elf(data: bytes, name: str) -> Kernel:
    if flaw := _flaw(data):
        raise InvalidArgument(f"{name} {flaw}, so QEMU cannot boot it; give a bzImage")
    return Kernel("vmlinux", loadable(data), _release_within(data, name))


def _release_within(data: bytes, name: str) -> str:
    """Return the release in the banner that a kernel greets with."""
    match = re.search(rb"Linux version (\S+) \(", data)
    if match is None:
        raise InvalidArgument(f"{name} is not a Linux kernel: it has no version string")
    return match[1].decode()


def _bzimage_release(data: bytes) -> str:
    (offset,) = struct.unpack_from("<H", data, _VERSION)
    text = data[offset + 0x200 : offset + 0x200 + 256].split(b"\0", 1)[0]
    return text.decode("ascii", "replace").split(" ", 1)[0]


def _payload(data: bytes) -> bytes:
    """Return the packed vmlinux of a bzImage, without the four bytes behind it that tell its unpacked size."""
    code = ((data[_SETUP_SECTS] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", data, _PAYLOAD)
    payload = data[code + offset : code + offset + length]
    if compression.detect(payload) is None and not payload.startswith(b"\x7fELF"):
        raise compression.Corrupt("its payload is packed in an unknown way")
    return payload if payload.startswith(b"\x7fELF") else payload[:-4]


def _flaw(elf: bytes) -> str:
    """Say what keeps QEMU from booting this by PVH; "" when nothing does."""
    if elf[:6] != b"\x7fELF\x02\x01" or elf[18:20] != _EM_X86_64:
        return "is not a 64-bit x86 ELF file"
    try:
        headers = _program_headers(elf)
    except struct.error:
        return "is torn"
    if any(offset + size > len(elf) for _, _, offset, _, _, size, _, _ in headers):
        return "is torn"
    notes = [elf[header[2] : header[2] + header[5]] for header in headers if header[0] == _PT_NOTE]
    if (b"Xen\0", _PVH_NOTE) not in [found for note in notes for found in _notes(note)]:
        return "has no PVH entry (CONFIG_PVH is off)"
    return ""


def loadable(elf: bytes) -> bytes:
    """Return the ELF with only what has to be loaded: no sections, no zeros at a segment's end.

    A segment's memory behind its data is zero anyway. Debian's kernel shrinks from 66 to 41 MB: it starts 5 ms
    earlier, and QEMU holds 22 MB less. Segments keep their offsets, so nothing that refers to them has to
    change.
    """
    fields = list(_ELF_HEADER.unpack_from(elf))
    fields[6] = fields[12] = fields[13] = 0  # e_shoff, e_shnum, e_shstrndx
    out = bytearray(elf)
    out[: _ELF_HEADER.size] = _ELF_HEADER.pack(*fields)
    end = 0
    for index, header in enumerate(_program_headers(elf)):
        kind, flags, offset, vaddr, paddr, size, memory, align = header
        if kind == _PT_LOAD:
            size = len(elf[offset : offset + size].rstrip(b"\0"))
        _PROGRAM_HEADER.pack_into(
            out,
            fields[5] + index * _PROGRAM_HEADER.size,
            *(kind, flags, offset, vaddr, paddr, size, memory, align),
        )
        end = max(end, offset + size)
    return bytes(out[:end])


def _program_headers(elf: bytes) -> list[tuple[int, ...]]:
    """Return (type, flags, offset, vaddr, paddr, filesz, memsz, align) of each segment."""
    fields = _ELF_HEADER.unpack_from(elf)
    offset, count = fields[5], fields[10]
    return [_PROGRAM_HEADER.unpack_from(elf, offset + index * _PROGRAM_HEADER.size) for index in range(count)]


def _notes(data: bytes) -> list[tuple[bytes, int]]:
    """Return (owner, type) of each note: sizes of owner and content, type, then both padded to four bytes."""
    notes = []
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        notes.append((data[at + 12 : at + 12 + name_size], kind))
        at += 12 + (name_size + 3) // 4 * 4 + (size + 3) // 4 * 4
    return notes


def _describe(data: bytes) -> str:
    """Say what a file that is no kernel is, as far as its first bytes tell."""
    if not data:
        return "it is empty"
    if data.startswith(b"MZ") and data[0x38:0x3C] == b"ARMd":
        return "it is a kernel for arm64"
    if _is_bzimage(data):
        return "it is a kernel for x86"
    kind = compression.detect(data)
    return f"it is {kind} data" if kind else f"it begins with {data[:8]!r}"
