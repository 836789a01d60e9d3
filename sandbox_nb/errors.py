"""Every error a user of sandbox_nb can meet, in one hierarchy.

::

    SandboxError
    ├── InvalidArgument      (ValueError)       a value is wrong; nothing was changed
    ├── NotFound             (LookupError)      a file, process, sandbox or device is not there
    ├── AlreadyExists                           an id, name or device is taken
    ├── FailedPrecondition                      the right call in the wrong state
    ├── DeadlineExceeded     (TimeoutError)     the time given was not enough
    ├── ResourceExhausted                       a limit was reached
    ├── Unimplemented                           known, and not offered here
    ├── Unavailable          (ConnectionError)  the machine or the way to it is gone
    ├── ProtocolError                           the other side broke a protocol
    ├── RemoteError                             any other status of the agent, kept whole
    └── ProcessFailed        (CalledProcessError)  a checked command ended with an error

    DeadlineExceeded
    └── ProcessTimedOut      (TimeoutExpired)   a command took longer than it was given

    Unavailable
    ├── Killed                                  somebody else has ended QEMU or the vsock device
    ├── Stopped                                 the sandbox was stopped while the call was under way
    └── CapReached           (ResourceExhausted)  the machine wanted more of the host than it may have

Each message says what was wrong, with which value, and what to do. Where a class has a builtin cousin
it is one too, so ``except TimeoutError`` works as people expect.
"""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

__all__ = [
    "AlreadyExists",
    "CapReached",
    "DeadlineExceeded",
    "Explained",
    "FailedPrecondition",
    "InvalidArgument",
    "Killed",
    "NotFound",
    "ProcessFailed",
    "ProcessTimedOut",
    "ProtocolError",
    "RemoteError",
    "ResourceExhausted",
    "SandboxError",
    "Stopped",
    "Unavailable",
    "Unimplemented",
    "from_os_error",
    "from_status",
]


Explained = Callable[[], AbstractAsyncContextManager[None]]
"""Makes a block in which an error that only says that the connection ended becomes one that says why."""


class SandboxError(Exception):
    """Whatever goes wrong with a sandbox."""


class InvalidArgument(SandboxError, ValueError):
    """A value is wrong. Nothing was changed."""


class NotFound(SandboxError, LookupError):
    """What was named is not there."""

    # LookupError's children print the repr of their argument; a message should read as one.
    __str__ = Exception.__str__


class AlreadyExists(SandboxError):
    """What was to be made is there already."""


class FailedPrecondition(SandboxError):
    """The call is right, the state is not. Nothing was changed."""


class DeadlineExceeded(SandboxError, TimeoutError):
    """The time given was not enough."""


class ResourceExhausted(SandboxError):
    """A limit was reached."""


class Unimplemented(SandboxError):
    """Known, and not offered here."""


class Unavailable(SandboxError, ConnectionError):
    """The machine, or the way to it, is gone."""


class Stopped(Unavailable):
    """The sandbox was stopped while the call was under way."""


class CapReached(Unavailable, ResourceExhausted):
    """The machine is gone: it wanted more of the host than it may have."""


class Killed(Unavailable):
    """The machine is gone since somebody else has ended what runs it; nothing that it was given is to blame."""


class ProtocolError(SandboxError):
    """The other side broke a protocol."""


class RemoteError(SandboxError):
    """A status of the agent that has no class of its own.

    ``code`` is its number in google.rpc.Code, ``details`` what it carried beside the message.
    """

    def __init__(self, message: str, code: int, details: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class ProcessFailed(SandboxError, subprocess.CalledProcessError):
    """A command run with ``check=True`` ended with a status other than 0.

    ``returncode``, ``cmd``, ``stdout`` and ``stderr`` are those of ``subprocess.CalledProcessError``.
    """

    def __init__(self, returncode: int, cmd: Any, output: Any = None, stderr: Any = None) -> None:
        subprocess.CalledProcessError.__init__(self, returncode, cmd, output, stderr)

    __str__ = subprocess.CalledProcessError.__str__


class ProcessTimedOut(DeadlineExceeded, subprocess.TimeoutExpired):
    """A command took longer than its ``timeout=``; it was killed.

    ``cmd``, ``timeout``, and what it had written until then, ``stdout`` and ``stderr``, are those of
    ``subprocess.TimeoutExpired``.
    """

    def __init__(self, cmd: Any, timeout: float, output: Any = None, stderr: Any = None) -> None:
        # Said outright: OSError, a base of TimeoutError, would read these as errno and file name.
        subprocess.TimeoutExpired.__init__(self, cmd, timeout, output, stderr)

    __str__ = subprocess.TimeoutExpired.__str__


# google.rpc.Code, as ttrpc carries it. The only table between status codes and classes.
_BY_CODE: dict[int, type[SandboxError]] = {
    3: InvalidArgument,
    4: DeadlineExceeded,
    5: NotFound,
    6: AlreadyExists,
    8: ResourceExhausted,
    9: FailedPrecondition,
    12: Unimplemented,
    14: Unavailable,
}


def from_status(code: int, message: str, details: tuple[Any, ...] = ()) -> SandboxError:
    """Return the error for a google.rpc status; a code without a class of its own becomes a RemoteError."""
    cls = _BY_CODE.get(code)
    if cls is None:
        return RemoteError(message, code, details)
    return cls(message)


_SHORT = {
    errno.EMFILE: "open files are short; ulimit -n raises the limit",
    errno.ENFILE: "open files are short on the whole host",
    errno.ENOMEM: "memory is short",
    errno.EAGAIN: "processes are short; ulimit -u raises the limit",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
}


def from_os_error(error: OSError, what: str) -> SandboxError:
    """Return the error for what the host refused: ResourceExhausted where it is short of something."""
    if error.errno in _SHORT:
        return ResourceExhausted(f"{what}: {_SHORT[error.errno]} ({error})")
    return FailedPrecondition(f"{what}: {error}")
