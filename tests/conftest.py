"""What all tests share: after each of them nothing may be left running, open or lying about."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sandbox_nb import rundir

PROGRAMS = ("qemu-system", "sandbox_nb/vsock", "_bin/guard-", "virtiofsd")


def pytest_configure() -> None:
    """Take back what a shell's script has its background jobs ignore: all that tests start would ignore it too."""
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _children() -> set[str]:
    """Command lines of our descendants that belong to the product."""
    found = set()
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (OSError, IndexError):
                continue
            parents[int(entry.name)] = (parent, command)
    for pid, (parent, command) in parents.items():
        while parent not in (0, 1, os.getpid()) and parent in parents:
            parent = parents[parent][0]
        if parent == os.getpid() and any(program in command for program in PROGRAMS):
            found.add(f"{pid} {command[:120]}")
    return found


def _run_folders() -> set[str]:
    mine = f"{os.getpid()}-"
    return {entry.name for entry in rundir.base().iterdir() if entry.name.startswith(mine)}


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    """Fail a test that leaves a process or a run folder behind. Fixtures of a wider scope may keep theirs."""
    before = _children(), _run_folders()
    yield
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        left = _children() - before[0], _run_folders() - before[1]
        if not any(left):
            return
        time.sleep(0.05)
    pytest.fail(f"left behind: {left}")
