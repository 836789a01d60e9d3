"""Run folders: where the sockets of one sandbox live, and how what a dead process left is swept.

A UNIX socket's path holds at most 107 bytes, so sockets do not live in the caller's ``state_dir`` but in a short
folder of the user's, readable by nobody else. Its name says who owns it, by pid *and* start time, since pids are
used again.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import stat
from pathlib import Path

from sandbox_nb.errors import FailedPrecondition

_OWN: set[Path] = set()

LONGEST_BASE = 60
"""Bytes. A base longer than this would leave no room for our own names below the limit of 107."""


def create(parent: Path | None = None) -> Path:
    """Make a run folder of this process, in ``base()`` when not said, sweeping what dead processes left.

    Raises FailedPrecondition when there is nowhere to put it.
    """
    parent = parent or base()
    sweep(parent)
    folder = parent / f"{os.getpid()}-{_start_time(os.getpid())}-{secrets.token_hex(3)}"
    folder.mkdir(mode=0o700)
    _OWN.add(folder)
    return folder


def remove(folder: Path) -> None:
    """Remove a run folder. Idempotent."""
    shutil.rmtree(folder, ignore_errors=True)
    _OWN.discard(folder)


@atexit.register
def _remove_own() -> None:
    """Remove what machines that were just starting leave when the interpreter ends."""
    for folder in list(_OWN):
        if folder.name.startswith(f"{os.getpid()}-"):  # a forked child has the set, and not the machines
            remove(folder)


def sweep(parent: Path) -> list[Path]:
    """Remove the run folders of processes that are gone; return them."""
    left = leftovers(parent)
    for folder in left:
        remove(folder)
    return left


def leftovers(parent: Path) -> list[Path]:
    """The run folders of processes that are gone."""
    return [entry for entry in parent.iterdir() if is_orphan(entry.name)]


def base() -> Path:
    """The folder run folders are made in. Raises FailedPrecondition when there is nowhere to put it."""
    candidates = []
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        candidates.append(Path(runtime) / "sandbox_nb")
    temporary = (os.environ.get("TMPDIR"), "/tmp")  # noqa: S108 - the uid is in the name, the owner checked
    candidates += [Path(folder) / f"sandbox_nb-{os.getuid()}" for folder in temporary if folder]
    reasons = []
    for candidate in candidates:
        try:
            return _private(candidate)
        except OSError as error:
            reasons.append(f"{candidate}: {error.strerror or error}")
    raise FailedPrecondition("no folder for the sandbox's sockets: " + "; ".join(reasons))


def _private(folder: Path) -> Path:
    """Return ``folder`` as one that is ours and nobody else's; raise OSError when it cannot be."""
    if len(os.fsencode(folder)) > LONGEST_BASE:
        raise OSError(f"the path is longer than {LONGEST_BASE} bytes, too long for sockets below it")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(1, "it belongs to somebody else, or is no folder")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    if not os.access(folder, os.W_OK):
        raise PermissionError(13, "it cannot be written to")
    return folder


def is_orphan(name: str) -> bool:
    """Whether ``name`` is that of a run folder whose process is gone."""
    pid, _, rest = name.partition("-")
    started, _, token = rest.partition("-")
    if not (pid.isdigit() and started.isdigit() and token):
        return False
    return _start_time(int(pid)) != int(started)


def _start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot, field 22 of proc(5)'s stat; None when it is gone."""
    with contextlib.suppress(OSError):
        # The command name, field 2, is in parentheses and may hold anything; the last ")" ends it.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return int(fields[19])
    return None
