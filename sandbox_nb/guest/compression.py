"""Which compression some data has, and a reader for each that kernels, modules and packages come in."""

from __future__ import annotations

import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import IO, Literal, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Corrupt", "copy", "decompress", "detect"]

_MAGIC = {
    "gzip": b"\x1f\x8b\x08",
    "xz": b"\xfd7zXZ\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
    "bzip2": b"BZh",
    "lzma": b"\x5d\x00\x00",
    "lz4": b"\x02\x21\x4c\x18",  # the legacy frame, the one a kernel's build makes
    "lzo": b"\x89LZO\x00",
}
_READERS: dict[str, Callable[[IO[bytes], Literal["rb"]], object]] = {
    "gzip": gzip.open,
    "xz": lzma.open,
    "zstd": zstd.open,
}
_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstd.ZstdError)


class Corrupt(ValueError):
    """The data is torn, damaged, or packed in a way that is not read here."""


def detect(head: bytes) -> str | None:
    """Return the name of the compression whose magic number ``head`` begins with, None for plain data."""
    return next((kind for kind, magic in _MAGIC.items() if head.startswith(magic)), None)


def decompress(data: bytes) -> bytes:
    """Return ``data`` unpacked, or as it is when it is not packed.

    Raises:
        Corrupt: it is torn or damaged, or its compression is not read here.

    """
    sink = io.BytesIO()
    copy(data, sink)
    return sink.getvalue()


def copy(data: bytes, sink: IO[bytes]) -> None:
    """Write ``data`` to ``sink`` unpacked, a MiB at a time, or as it is when it is not packed. Raises Corrupt."""
    with _reader(data) as source:
        while chunk := _read(source):
            sink.write(chunk)


def _reader(data: bytes) -> IO[bytes]:
    kind = detect(data)
    if kind is None:
        return io.BytesIO(data)
    if kind not in _READERS:
        raise Corrupt(f"it is packed with {kind}; only {', '.join(_READERS)} are read here")
    return cast("IO[bytes]", _READERS[kind](io.BytesIO(data), "rb"))


def _read(source: IO[bytes]) -> bytes:
    try:
        return source.read(1 << 20)
    except _ERRORS as error:
        raise Corrupt(f"its compressed data is damaged: {error}") from error
