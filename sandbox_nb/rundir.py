"""Run folders: where the sockets of one sandbox live, and how what a dead process left is swept.

A UNIX socket's path holds at most 107 bytes, so sockets do not live in the caller's ``state_dir`` but in a short
folder of the user's, readable by nobody else. Its name says who owns it, by pid *and* start time, since pids are
used again; and its owner keeps it locked, since a process of another PID namespace that has the same folder, as
containers with one ``/tmp`` have, is not seen.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from sandbox_nb.errors import FailedPrecondition

_OWN: dict[Path, int] = {}
"""The run folders of this process, and the descriptors that keep them locked."""

LONGEST_BASE = 60
"""Bytes. A base longer than this would leave no room for our own names below the limit of 107."""


def create(parent: Path | None = None) -> Path:
    """Make a run folder of this process, in ``base()`` when not said, sweeping what dead processes left.

    Raises FailedPrecondition when there is nowhere to put it.
    """
    parent = parent or base()
    sweep(parent)
    while True:
        folder = parent / f"{os.getpid()}-{_start_time(os.getpid())}-{secrets.token_hex(3)}"
        folder.mkdir(mode=0o700)
        try:
            _OWN[folder] = _lock(folder, fcntl.LOCK_EX)
        except FileNotFoundError:  # swept by who does not see us, before it was locked
            continue
        except BaseException:
            folder.rmdir()
            raise
        return folder


def remove(folder: Path) -> None:
    """Remove a run folder of this process. Idempotent."""
    if (lock := _OWN.pop(folder, None)) is not None:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


@atexit.register
def _remove_own() -> None:
    """Remove what machines that were just starting leave when the interpreter ends."""
    for folder in list(_OWN):
        remove(folder)


def _disown() -> None:
    """Have a forked child own nothing. It shares the locks, which its parent is to keep, and only closes them."""
    for lock in _OWN.values():
        os.close(lock)
    _OWN.clear()


os.register_at_fork(after_in_child=_disown)


def sweep(parent: Path) -> list[Path]:
    """Remove the run folders of processes that are gone; return them."""
    swept = []
    for folder in _orphans(parent):
        shutil.rmtree(folder, ignore_errors=True)
        swept.append(folder)
    return swept


def leftovers(parent: Path) -> list[Path]:
    """The run folders of processes that are gone."""
    return list(_orphans(parent))


def _orphans(parent: Path) -> Iterator[Path]:
    """The run folders of processes that are gone, each locked until the next is asked for."""
    for folder in list(parent.iterdir()):
        if _is_unseen(folder.name):
            with contextlib.suppress(OSError):  # its process lives where we do not see it, or another sweeps it
                lock = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                try:
                    yield folder
                finally:
                    _unlock(lock)


def _lock(folder: Path, how: int) -> int:
    """Lock a run folder until the descriptor is closed. Raises OSError: FileNotFoundError when it is gone."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, how)
        folder.stat()  # who had it locked may have swept it, and its name is not used again
    except BaseException:
        os.close(lock)
        raise
    return lock


def _unlock(lock: int) -> None:
    """Unlock outright: closed alone, it would stay locked by what was forked meanwhile."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


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


def namesake(name: str) -> str:
    """The name of what belongs to the run folder ``name`` and has no lock: it says our PID namespace, too."""
    return f"{name}-{_namespace()}"


def is_orphan(name: str) -> bool:
    """Whether ``name`` is a ``namesake`` whose process is gone. What is of another namespace is swept in there."""
    folder, _, namespace = name.rpartition("-")
    return namespace == str(_namespace()) and _is_unseen(folder)


def _namespace() -> int:
    """The inode of our PID namespace, 0 on a kernel without them."""
    with contextlib.suppress(FileNotFoundError):
        return Path("/proc/self/ns/pid").stat().st_ino
    return 0


def _is_unseen(name: str) -> bool:
    """Whether ``name`` is that of a run folder whose process is gone, or in another PID namespace."""
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
