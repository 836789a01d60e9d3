"""What the host's file system answers, as an error of ours."""

from __future__ import annotations

import errno
import os

from sandbox_nb.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SandboxError,
)

__all__ = ["explain"]

_BY_ERRNO: dict[int, type[SandboxError]] = {
    errno.ENOENT: NotFound,
    errno.ENOTDIR: NotFound,
    errno.EEXIST: AlreadyExists,
    errno.EINVAL: InvalidArgument,
    errno.EISDIR: InvalidArgument,
    errno.ELOOP: InvalidArgument,
    errno.ENAMETOOLONG: InvalidArgument,
    errno.ENOSPC: ResourceExhausted,
    errno.EDQUOT: ResourceExhausted,
    errno.EFBIG: ResourceExhausted,
    errno.EMFILE: ResourceExhausted,
    errno.ENFILE: ResourceExhausted,
    errno.EMLINK: ResourceExhausted,
}


def explain(error: OSError, path: str | bytes) -> SandboxError:
    """Return the error for what went wrong with a path of the host."""
    cls = _BY_ERRNO.get(error.errno or 0, FailedPrecondition)
    return cls(f"{printable(path)}: {error.strerror or error}")


def printable(path: str | bytes) -> str:
    """A path for a message: one line, and text whatever its bytes."""
    text = os.fsencode(path).decode(errors="replace")
    return text if text.isprintable() else repr(text)
