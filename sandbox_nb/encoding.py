"""Text, bytes and paths as the guest gets them."""

from __future__ import annotations

import os
from typing import Any

from sandbox_nb.errors import InvalidArgument

__all__ = ["guest_bytes", "guest_data"]


def guest_bytes(what: str, value: Any, *, errors: str = "surrogateescape") -> bytes:
    """Text, bytes or a path as the guest gets it, UTF-8.

    ``errors`` says whether characters that stand for undecodable bytes may be in it. Raises InvalidArgument, which
    calls it ``what``, for any other value and for a NUL byte.
    """
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise InvalidArgument(f"{what}={value!r}: text is needed")
    path = os.fspath(value)
    try:
        encoded = path.encode(errors=errors) if isinstance(path, str) else path
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{what}={value!r} cannot be UTF-8: {error.reason}") from None
    if b"\0" in encoded:
        raise InvalidArgument(f"{what}={value!r} holds a NUL byte")
    return encoded


def guest_data(what: str, value: Any) -> bytes:
    """Text, as UTF-8, or bytes. Raises InvalidArgument, which calls it ``what``, for anything else."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"{what} cannot be UTF-8: {error.reason} at {error.start}; pass bytes") from None
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise InvalidArgument(f"{what}={value!r}: text or bytes are needed")
    return bytes(value)
