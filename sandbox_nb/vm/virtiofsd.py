"""virtiofsd: find one that works here, and run it.

There are two programs of that name. QEMU's own in C (Debian 12) works for root alone and cannot share read-only;
its successor in Rust works for anybody, and has ``--readonly`` since 1.13. Whether one works is found out by
starting it and asking it a question: it may lack privileges, namespaces or seccomp.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import socket
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from sandbox_nb.errors import SandboxError
from sandbox_nb.vm.caps import UNCONFINED, Confinement
from sandbox_nb.vm.process import Child

_PLACES = ("/usr/libexec", "/usr/lib/qemu", "/usr/lib/virtiofsd", "/usr/lib", "/usr/local/libexec")

PROOF_TIMEOUT = 3.0
"""Seconds a virtiofsd gets to answer; it takes some 0.05."""

# vhost-user's header: request, flags (version 1), size. QEMU's docs/interop/vhost-user.rst.
_HEADER = struct.Struct("<III")
_GET_FEATURES = _HEADER.pack(1, 0x1, 0)
_FEATURES = 8

RETRY = 300.0
"""Seconds after which a program that did not work is asked again: the host may just have been busy."""

_verdicts: dict[tuple[Path, int, int], tuple[Virtiofsd | None, float]] = {}
"""Programs that work, or None, and until when that is believed, in seconds of the monotonic clock."""


@dataclass(frozen=True)
class Virtiofsd:
    """A program that works. ``rust``: the successor; ``readonly``: it can refuse writes."""

    path: Path
    rust: bool
    readonly: bool

    def argv(self, folder: Path, fd: int, *, readonly: bool) -> list[str]:
        """The command line that serves ``folder`` to who connects to the listening socket ``fd``."""
        if self.rust:
            # Without a cache of attributes a change on the host is seen at once.
            shared = [f"--shared-dir={folder}", "--cache=never", f"--fd={fd}"]
            return [str(self.path), *shared, *(["--readonly"] if readonly else [])]
        escaped = str(folder).replace("\\", "\\\\").replace(",", "\\,")
        # Attributes are asked for every time, and pages kept while a file is open, so that mmap works.
        return [str(self.path), "-f", "-o", f"source={escaped},cache=auto,timeout=0", f"--fd={fd}"]


async def find(folder: Path, guard: Path) -> Virtiofsd | None:
    """A virtiofsd that works for this user, or None. ``folder`` is a private one.

    A program that works is asked once, another again after RETRY.
    """
    for path in _candidates():
        key = (path, path.stat().st_mtime_ns, os.geteuid())
        found, until = _verdicts.get(key, (None, 0.0))
        if time.monotonic() >= until:
            found = await _prove(path, folder, guard)
            _verdicts[key] = found, time.monotonic() + RETRY if found is None else math.inf
        if found is not None:
            return found
    return None


def spawn(
    program: Virtiofsd,
    folder: Path,
    path: Path,
    guard: Path,
    *,
    readonly: bool,
    confinement: Confinement = UNCONFINED,
) -> Child:
    """Serve ``folder`` on the socket ``path``, which listens when this returns."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(1)
        fd = listening.fileno()
        argv = program.argv(folder, fd, readonly=readonly)
        # Root has one that cannot refuse writes see the folder read-only.
        by_mount = folder if readonly and not program.readonly else None
        return Child.spawn(
            argv, name="virtiofsd", guard=guard, pass_fds=(fd,), readonly=by_mount, confinement=confinement
        )


def _candidates() -> list[Path]:
    places = [Path(found).parent for found in [shutil.which("virtiofsd")] if found]
    paths = [place / "virtiofsd" for place in (*places, *map(Path, _PLACES))]
    return [path for path in paths if path.is_file() and os.access(path, os.X_OK)]


async def _prove(path: Path, folder: Path, guard: Path) -> Virtiofsd | None:
    """Ask a program what it is, start it on an empty folder, and ask it for its features."""
    if not (words := await _help(path, guard)):
        return None
    program = Virtiofsd(path, rust="--shared-dir" in words, readonly="--readonly" in words)
    with tempfile.TemporaryDirectory(dir=folder) as shared, tempfile.TemporaryDirectory(dir=folder) as place:
        sock = Path(place, "socket")
        try:
            child = spawn(program, Path(shared), sock, guard, readonly=False)
        except SandboxError:
            return None
        try:
            return program if await _answers(sock) else None
        finally:
            await child.stop()


async def _help(path: Path, guard: Path) -> str:
    """What a program says of itself; nothing where it does not come to an end of it."""
    child = Child.spawn([path, "--help"], name="virtiofsd --help", guard=guard)
    try:
        async with asyncio.timeout(PROOF_TIMEOUT):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
        return ""
    return child.log.tail(200)


async def _answers(path: Path) -> bool:
    """Whether who listens at ``path`` answers as a vhost-user back end does; the set-up is done by then."""
    writer = None
    try:
        async with asyncio.timeout(PROOF_TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(_GET_FEATURES)
            request, _, size = _HEADER.unpack(await reader.readexactly(_HEADER.size))
            return (request, size) == (1, _FEATURES)
    except (OSError, EOFError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
