"""Control groups of our own: where they may be made, what they hold their processes to, and their removal.

The kernel has two kinds (cgroups(7)). In version 2 one tree has every controller, and a group that others are made
in must hold no processes itself. Version 1 has a tree for each controller, and a machine a group in each of them.

Where systemd runs, the trees are its own but for what it delegates to a service or scope (its CGROUP_DELEGATION
document): it would take a controller away again that it knows of no use for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox_nb import rundir

logger = logging.getLogger(__name__)

PREFIX = "sandbox_nb-"
"""Names begin so; behind it stands the namesake of the machine's run folder, which says whose it is."""

NEEDED = ("memory", "cpu")
OPTIONAL = ("pids",)
"""Controllers a place must have, and those that are used where it has them."""

PERIOD = 100_000
"""Microseconds over which the use of processors is counted, the kernel's default."""

LOOK_AGAIN, LOOKS = 0.01, 200
"""Seconds between two looks whether a group is empty, and how many: the kernel takes ended processes out of it at
its leisure, mostly at once."""


@dataclass(frozen=True)
class Place:
    """Where groups may be made: the folder to make them in for each controller, one and the same in version 2."""

    folders: dict[str, Path]
    version: int

    def __str__(self) -> str:
        return f"{self.folders['memory']} (version {self.version})"


@dataclass(frozen=True)
class _Mount:
    """A mounted tree of groups: the path of its top inside the whole tree, and where that is to be found."""

    top: str
    at: Path
    writable: bool
    controllers: frozenset[str]

    def folder(self, group: str) -> Path | None:
        """Where a group is to be found; None when it is outside of what is mounted."""
        inside = os.path.relpath(group, self.top)
        return None if inside.startswith("..") else self.at / inside


def place(root: Path = Path("/")) -> Place | None:
    """Where groups for machines may be made on the host whose file system is ``root``; None when nowhere."""
    try:
        groups = dict(_groups(root))
        mounts = {kind: list(_mounts(root, kind)) for kind in ("cgroup2", "cgroup")}
    except OSError:
        return None
    by_systemd = (root / "run/systemd/system").is_dir()
    for mount in mounts["cgroup2"]:
        if (found := _place_v2(mount, groups.get("", "/"), by_systemd)) is not None:
            return found
    return None if by_systemd else _place_v1(mounts["cgroup"], groups)


def make(where: Place, name: str, *, cpu: bool) -> Group:
    """Make a group for the machine whose run folder is ``name``, sweeping what dead processes left.

    ``cpu`` says whether processors are to be limited. Else that controller is let be: a group that has it gets its
    processors as if it were one thread, a machine on a busy host a fraction of what its threads would get.

    Raises OSError.
    """
    sweep(where)
    parents = {kind: folder for kind, folder in where.folders.items() if cpu or kind != "cpu"}
    if where.version == 2:
        _enable(where.folders["memory"], parents)
    folders = {kind: folder / f"{PREFIX}{rundir.namesake(name)}" for kind, folder in parents.items()}
    group = Group(folders, where.version)
    try:
        for folder in group.unique:
            folder.mkdir()
        group.prepare()
    except BaseException:
        group.remove()
        raise
    return group


def leftovers(where: Place) -> list[Path]:
    """The groups of processes that are gone."""
    found = []
    for parent in set(where.folders.values()):
        with contextlib.suppress(OSError):
            names = [entry for entry in parent.iterdir() if entry.name.startswith(PREFIX)]
            found += [entry for entry in names if rundir.is_orphan(entry.name.removeprefix(PREFIX))]
    return found


def sweep(where: Place) -> None:
    """Remove the groups of processes that are gone. The kernel refuses it for one that has processes yet."""
    for folder in leftovers(where):
        with contextlib.suppress(OSError):
            folder.rmdir()


@dataclass(frozen=True)
class Group:
    """A group that was made; ``folders`` are those of each controller."""

    folders: dict[str, Path]
    version: int

    @property
    def unique(self) -> list[Path]:
        """The folders, each once."""
        return list(dict.fromkeys(self.folders.values()))

    @property
    def guard_flags(self) -> list[str]:
        """What has the guard start its command in the group."""
        if self.version == 2:
            return ["--cgroup", str(self.folders["memory"])]
        return [word for folder in self.unique for word in ("--tasks", str(folder / "tasks"))]

    def prepare(self) -> None:
        """Where memory is not enough for one of its processes, none is of use."""
        if self.version == 2:
            self._write_where_there("memory", "memory.oom.group", 1)

    def limit_memory(self, size: int) -> None:
        """Hold all processes together to so many bytes, and to as many of swap. Raises OSError."""
        if self.version == 2:
            self._write("memory", "memory.max", size)
            self._write_where_there("memory", "memory.swap.max", size)
        else:
            self._write("memory", "memory.limit_in_bytes", size)

    def limit_cpus(self, cpus: float) -> None:
        """Hold them to the time of so many processors. Raises OSError."""
        quota = round(cpus * PERIOD)
        if self.version == 2:
            self._write("cpu", "cpu.max", f"{quota} {PERIOD}")
        else:
            self._write("cpu", "cpu.cfs_period_us", PERIOD)
            self._write("cpu", "cpu.cfs_quota_us", quota)

    def limit_tasks(self, most: int) -> None:
        """Hold them to so many threads, where that controller is there. Raises OSError."""
        if "pids" in self.folders:
            self._write("pids", "pids.max", most)

    def ran_out_of_memory(self) -> bool:
        """Whether its limit of memory has ended a process."""
        try:
            return out_of_memory(self.folders["memory"], self.version)
        except (OSError, ValueError, KeyError):
            return False

    async def close(self) -> None:
        """Remove it, ending whoever is in it yet."""
        with contextlib.suppress(OSError):
            self._write_where_there("memory", "cgroup.kill", 1)
        for _ in range(LOOKS):
            if self.remove():
                return
            await asyncio.sleep(LOOK_AGAIN)
        logger.warning("the control group %s is not empty and stays for the next start to remove", self.unique[0])

    def remove(self) -> bool:
        """Remove it if it is empty; whether it is gone."""
        for folder in self.unique:
            with contextlib.suppress(OSError):
                folder.rmdir()
        return not any(folder.exists() for folder in self.unique)

    def _write(self, controller: str, name: str, value: object) -> None:
        # In one call, as the kernel wants it, and making no file: it is the kernel's.
        fd = os.open(self.folders[controller] / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)

    def _write_where_there(self, controller: str, name: str, value: object) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._write(controller, name, value)


def out_of_memory(folder: Path, version: int = 2) -> bool:
    """Whether a group's own limit has ended a process. Raises OSError, ValueError or KeyError."""
    if version == 2:
        events = _numbers(folder / "memory.events")
        return events["oom"] > 0 and events["oom_kill"] > 0
    reached = int((folder / "memory.failcnt").read_text()) > 0
    return reached and _numbers(folder / "memory.oom_control")["oom_kill"] > 0


def _numbers(path: Path) -> dict[str, int]:
    return {name: int(number) for name, number in (line.split() for line in path.read_text().splitlines())}


def _place_v2(mount: _Mount, group: str, by_systemd: bool) -> Place | None:
    """The nearest group above ours, or ours, that others may be made in."""
    own = mount.folder(group)
    if own is None or not mount.writable:
        return None
    depth = len(own.relative_to(mount.at).parts)
    for folder in [own, *own.parents][: depth + 1]:
        if not by_systemd or _is_delegated(folder, mount.at):
            controllers = _usable(folder)
            if controllers.issuperset(NEEDED):
                return Place({name: folder for name in (*NEEDED, *OPTIONAL) if name in controllers}, 2)
    return None


def _usable(folder: Path) -> set[str]:
    """The controllers that groups made in this one have or can be given; none where we may make none."""
    if not os.access(folder, os.W_OK | os.X_OK) or not os.access(folder / "cgroup.procs", os.W_OK):
        return set()
    try:
        enabled = set((folder / "cgroup.subtree_control").read_text().split())
        # Only the root of all, which has no type, may have processes and still hand controllers down.
        may_enable = not (folder / "cgroup.type").exists() or not (folder / "cgroup.procs").read_text().strip()
        if may_enable and os.access(folder / "cgroup.subtree_control", os.W_OK):
            enabled |= set((folder / "cgroup.controllers").read_text().split())
    except OSError:
        return set()
    return enabled


def _enable(folder: Path, controllers: Iterable[str]) -> None:
    control = folder / "cgroup.subtree_control"
    enabled = control.read_text().split()
    for controller in controllers:
        if controller not in enabled:
            control.write_text(f"+{controller}")


def _is_delegated(folder: Path, top: Path) -> bool:
    """Whether the service or scope a folder belongs to is left to itself by systemd, which marks it so.

    A user's own systemd is such a service, and its tree is that systemd's.
    """
    while folder != top:
        if folder.suffix in (".service", ".scope", ".slice"):
            return folder.suffix != ".slice" and not folder.name.startswith("user@") and _is_marked(folder)
        folder = folder.parent
    return False


def _is_marked(folder: Path) -> bool:
    for attribute in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, attribute) == b"1":
                return True
    return False


def _place_v1(mounts: list[_Mount], groups: dict[str, str]) -> Place | None:
    """Our own groups, of each controller."""
    found = {}
    for mount in mounts:
        for controller in mount.controllers.intersection((*NEEDED, *OPTIONAL)):
            folder = mount.folder(groups.get(controller, "/"))
            if folder is not None and mount.writable and os.access(folder, os.W_OK | os.X_OK):
                found[controller] = folder
    return Place(found, 1) if set(found).issuperset(NEEDED) else None


def _groups(root: Path) -> Iterator[tuple[str, str]]:
    """Controller and group of each tree we are in, by /proc/self/cgroup; version 2 has no controller's name."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, group


def _mounts(root: Path, kind: str) -> Iterator[_Mount]:
    """The trees of a kind that are mounted, by proc(5)'s mountinfo."""
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        (_, _, _, top, at, options), (found, _, *more) = before.split()[:6], after.split()
        if found == kind:
            writable = "ro" not in options.split(",")
            yield _Mount(top, root / at.lstrip("/"), writable, frozenset(",".join(more).split(",")))
