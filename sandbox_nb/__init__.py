"""A real Linux machine in a notebook cell.

::

    from sandbox_nb import Sandbox

    with Sandbox.started(cpu=2, memory=512) as sb:
        print(sb.run("uname -a").stdout)

In a notebook, ``%load_ext sandbox_nb`` brings ``%sandbox`` and ``%%sandbox``.

Names are loaded when they are first asked for (PEP 562): importing this package costs next to nothing, and
never imports IPython.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from sandbox_nb.blocking import Sandbox
    from sandbox_nb.boot import Boot
    from sandbox_nb.errors import (
        AlreadyExists,
        CapReached,
        DeadlineExceeded,
        FailedPrecondition,
        InvalidArgument,
        Killed,
        NotFound,
        ProcessFailed,
        ProcessTimedOut,
        ProtocolError,
        RemoteError,
        ResourceExhausted,
        SandboxError,
        Stopped,
        Unavailable,
        Unimplemented,
    )
    from sandbox_nb.files.info import Copied, FileInfo
    from sandbox_nb.forward import AsyncForward, Forward
    from sandbox_nb.hardware import AttachedDevice, Devices
    from sandbox_nb.lens.crossings import Crossing, Crossings
    from sandbox_nb.lens.recorder import AsyncLens, Lens
    from sandbox_nb.life import State
    from sandbox_nb.options import (
        NIC,
        Disk,
        DiskFlags,
        Filesystem,
        NetworkFlags,
        NetworkMode,
        Options,
        UserNIC,
        with_disk,
        with_fs,
        with_init_args,
        with_nic,
        with_resources,
        with_state_dir,
    )
    from sandbox_nb.pool import SandboxPool, in_fresh_sandbox
    from sandbox_nb.popen import AsyncProcess, Process
    from sandbox_nb.run import Completed
    from sandbox_nb.sandbox import AsyncSandbox, SandboxProtocol
    from sandbox_nb.stats import Connection, Stats

__version__ = "0.1.0"

# From what most people need to what few do.
_ROOMS: dict[str, tuple[str, ...]] = {
    "blocking": ("Sandbox",),
    "sandbox": ("AsyncSandbox", "SandboxProtocol"),
    "life": ("State",),
    "run": ("Completed",),
    "popen": ("Process", "AsyncProcess"),
    "files.info": ("Copied", "FileInfo"),
    "forward": ("Forward", "AsyncForward"),
    "pool": ("SandboxPool", "in_fresh_sandbox"),
    "boot": ("Boot",),
    "hardware": ("AttachedDevice", "Devices"),
    "stats": ("Stats", "Connection"),
    "lens.recorder": ("Lens", "AsyncLens"),
    "lens.crossings": ("Crossings", "Crossing"),
    "options": (
        "Options",
        "Disk",
        "DiskFlags",
        "Filesystem",
        "NIC",
        "NetworkMode",
        "NetworkFlags",
        "UserNIC",
        "with_resources",
        "with_disk",
        "with_fs",
        "with_nic",
        "with_init_args",
        "with_state_dir",
    ),
    "errors": (
        "SandboxError",
        "InvalidArgument",
        "NotFound",
        "AlreadyExists",
        "FailedPrecondition",
        "DeadlineExceeded",
        "ResourceExhausted",
        "Unimplemented",
        "Unavailable",
        "Stopped",
        "CapReached",
        "Killed",
        "ProtocolError",
        "RemoteError",
        "ProcessFailed",
        "ProcessTimedOut",
    ),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [  # noqa: RUF022 - ordered by importance; a test holds it equal to _ROOMS
    "Sandbox",
    "AsyncSandbox",
    "SandboxProtocol",
    "State",
    "Completed",
    "Process",
    "AsyncProcess",
    "Copied",
    "FileInfo",
    "Forward",
    "AsyncForward",
    "SandboxPool",
    "in_fresh_sandbox",
    "Boot",
    "AttachedDevice",
    "Devices",
    "Stats",
    "Connection",
    "Lens",
    "AsyncLens",
    "Crossings",
    "Crossing",
    "Options",
    "Disk",
    "DiskFlags",
    "Filesystem",
    "NIC",
    "NetworkMode",
    "NetworkFlags",
    "UserNIC",
    "with_resources",
    "with_disk",
    "with_fs",
    "with_nic",
    "with_init_args",
    "with_state_dir",
    "SandboxError",
    "InvalidArgument",
    "NotFound",
    "AlreadyExists",
    "FailedPrecondition",
    "DeadlineExceeded",
    "ResourceExhausted",
    "Unimplemented",
    "Unavailable",
    "Stopped",
    "CapReached",
    "Killed",
    "ProtocolError",
    "RemoteError",
    "ProcessFailed",
    "ProcessTimedOut",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its room."""
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics: ``%load_ext sandbox_nb``."""
    from sandbox_nb.notebook import magics

    magics.load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the magics away again, and stop the machines they started."""
    from sandbox_nb.notebook import magics

    magics.unload(shell)
