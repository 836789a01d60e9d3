"""What several test modules need."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_nb import bringup


def descendants(pid: int) -> set[int]:
    """The children of a process, whichever of its threads started them, and theirs."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found |= {child} | descendants(child)
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still run; a zombie does not."""
    found = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):  # the latter when it ends while its file is read
            continue
        if state != "Z":
            found.add(pid)
    return found


@contextlib.contextmanager
def qemu_as_who_we_are():
    """Have root's QEMU stay root's, for folders shared through 9p later: the guest gets its rights to them."""
    before, bringup._user = bringup._user, lambda *_: None
    try:
        yield
    finally:
        bringup._user = before


class Guest:
    """A running AsyncSandbox, with the machine's plugs at hand."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.machine = sandbox._life.running.machine

    async def sh(self, command):
        """What a command that succeeds says."""
        done = await self.sandbox.run(command)
        assert done.returncode == 0, done.stderr
        return done.stdout


def path_with(packages: list[str], folder: Path) -> str:
    """A PYTHONPATH on which these come before what is installed; the test is skipped when they cannot be had."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *packages]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"{packages} could not be had: {installed.stderr.strip().splitlines()[-1]}")
    return os.pathsep.join([str(folder), *filter(None, sys.path)])
