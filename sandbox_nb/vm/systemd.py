"""systemd as who holds a machine to its caps: a slice with limits, and in it a scope for each process.

``systemd-run --scope`` becomes what it starts, so descriptors and the parent are kept. The slice is ours to name
and to stop; its limits are set at run time and taken back with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandbox_nb import rundir
from sandbox_nb.errors import FailedPrecondition
from sandbox_nb.vm import cgroup

PREFIX = "sandbox_nb_"

TIMEOUT = 10.0
"""Seconds systemd gets to answer. It takes some 0.02."""

NEEDED = ("systemd-run", "systemctl")


@dataclass(frozen=True)
class Manager:
    """A systemd that listens to us: the system's to root, a user's own to the user. ``runtime``: its folder."""

    user: bool
    runtime: Path

    @property
    def words(self) -> list[str]:
        """What its programs are told for it."""
        return ["--user"] if self.user else []

    def __str__(self) -> str:
        return "the user's systemd" if self.user else "the system's systemd"


def manager(root: Path = Path("/")) -> Manager | None:
    """The systemd that can hold us to limits, on the host whose file system is ``root``; None without one."""
    if not (root / "run/systemd/system").is_dir() or not all(map(shutil.which, NEEDED)):
        return None
    tree = root / "sys/fs/cgroup"
    if os.geteuid() == 0:
        found, group = Manager(False, root / "run/systemd"), tree
    else:
        said = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")
        name = f"user-{os.geteuid()}.slice/user@{os.geteuid()}.service"
        found, group = Manager(True, root / said.lstrip("/") / "systemd"), tree / "user.slice" / name
    try:
        controllers = (group / "cgroup.controllers").read_text().split()
    except OSError:  # no version 2, or no systemd of this user's
        return None
    return found if (found.runtime / "private").exists() and set(controllers).issuperset(cgroup.NEEDED) else None


@dataclass(frozen=True)
class Slice:
    """A slice by its name. It is there once it has a limit, or a scope. Its verbs block."""

    manager: Manager
    name: str

    @property
    def prefix(self) -> list[str]:
        """What stands before a command to have it run in the slice."""
        run = ["systemd-run", *self.manager.words, "--scope", "--quiet", "--collect"]
        return [*run, f"--slice={self.name}", "--"]

    def limit(self, **properties: str) -> None:
        """Set properties of systemd.resource-control(5). Raises FailedPrecondition with systemd's words."""
        words = [f"{name}={value}" for name, value in properties.items()]
        self._control("set-property", "--runtime", self.name, *words)

    def ran_out_of_memory(self) -> bool:
        """Whether its limit of memory has ended a process."""
        with contextlib.suppress(FailedPrecondition, OSError, ValueError, KeyError):
            group = self._control("show", "--property=ControlGroup", "--value", self.name)
            return cgroup.out_of_memory(Path("/sys/fs/cgroup") / group.lstrip("/"))
        return False

    def close(self) -> None:
        """End what is in it, and have systemd forget it. Idempotent."""
        for verb in ("stop", "revert"):
            with contextlib.suppress(FailedPrecondition):
                self._control(verb, self.name)

    def _control(self, *words: str) -> str:
        return _said("systemctl", *self.manager.words, *words)


def slice_for(manager: Manager, name: str) -> Slice:
    """The slice for the machine whose run folder is ``name``. A hyphen would say that it lies in another slice."""
    return Slice(manager, f"{PREFIX}{rundir.namesake(name).replace('-', '_')}.slice")


def leftovers(where: Manager) -> list[Path]:
    """What is kept of the slices of processes that are gone: the folders with their limits."""
    control = where.runtime / ("user.control" if where.user else "system.control")
    left = []
    for folder in control.glob(f"{PREFIX}*.slice.d"):
        name = folder.name.removeprefix(PREFIX).removesuffix(".slice.d")
        if rundir.is_orphan(name.replace("_", "-")):
            left.append(folder)
    return left


def sweep(where: Manager) -> None:
    """Have systemd forget the slices of processes that are gone. Blocks."""
    for folder in leftovers(where):
        Slice(where, folder.name.removesuffix(".d")).close()


def _said(*command: str) -> str:
    """What a program says. Raises FailedPrecondition with its words when it fails, or does not end."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FailedPrecondition(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise FailedPrecondition(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()
