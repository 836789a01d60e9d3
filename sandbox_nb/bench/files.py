"""How fast trees are copied, beside what one would do without: ``tar | sb.run("tar x")``, ``cp -r`` from a share.

The files have 100 KiB, as those of a GiB in 10,000 do; in the guest they lie in memory, so that no disk is
measured. A share is mounted before; the time is that of the guest's ``cp``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from sandbox_nb.bench.row import Row
from sandbox_nb.blocking import Sandbox
from sandbox_nb.devices import Filesystem
from sandbox_nb.vm import virtiofsd

FILES = 200
FILE_SIZE = 100 * 1024
ROUNDS = 5
MEMORY = 1024

_THERE = "/tmp/bench"  # noqa: S108 - in the guest, which is ours alone

THEIRS = ("tar", "9p", "virtiofs")

NAMES = (
    *(f"{way}_{direction}_mb_s" for way in ("copy", *THEIRS) for direction in ("to", "from")),
    *(f"copy_{direction}_over_{way}" for way in THEIRS for direction in ("to", "from")),
)


@dataclass(frozen=True)
class Way:
    """A way to copy the tree: all of ``source`` into ``_THERE``, and all that is there into ``target``."""

    to_guest: Callable[[], object]
    from_guest: Callable[[], object]


def rows() -> dict[str, Row]:
    """Copy the same tree by turns, ours and theirs, each way. Ratios are of the time: ours over theirs."""
    with tempfile.TemporaryDirectory() as name, Sandbox.started(cpu=1, memory=MEMORY) as sandbox:
        bench = _Bench(sandbox, Path(name))
        ways = bench.ways()
        there = [{title: bench.to(way) for title, way in ways.items()} for _ in range(ROUNDS)]
        back = [{title: bench.back(way) for title, way in ways.items()} for _ in range(ROUNDS)]
    return _summed_up("to", there) | _summed_up("from", back)


def _summed_up(direction: str, taken: list[dict[str, float]]) -> dict[str, Row]:
    """Rows of the seconds that each way took, turn by turn."""
    found, megabytes = {}, FILES * FILE_SIZE / 1e6
    ours = [turn["copy"] for turn in taken]
    for way in taken[0]:
        seconds = [turn[way] for turn in taken]
        found[f"{way}_{direction}_mb_s"] = Row.of([megabytes / one for one in seconds], "MB/s")
        if way != "copy":
            found[f"copy_{direction}_over_{way}"] = Row.ratio(ours, seconds)
    return found


class _Bench:
    """A machine, the tree to copy, and where it comes back to; both in a folder that the machine can share."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self._sandbox = sandbox
        self._folder = folder
        self._source, self._target = folder / "source", folder / "back"
        folder.chmod(0o777)  # root's QEMU is a user of its own
        _make_tree(self._source)

    def ways(self) -> dict[str, Way]:
        """Ours, and the others that there are here."""
        ways = {"copy": Way(self._copy_to, self._copy_from), "tar": Way(self._tar_to, self._tar_from)}
        # Which of the two carries a share is nothing a user has to choose: 9p is what there is without virtiofsd.
        with mock.patch.object(virtiofsd, "find", mock.AsyncMock(return_value=None)):
            self._share(ways)
        self._share(ways)
        return ways

    def to(self, way: Way) -> float:
        """Seconds that a copy into the guest takes, where the last one is removed before."""
        self._sandbox.run(f"rm -rf {_THERE}", check=True)
        self._sandbox.mkdir(_THERE)
        return _timed(way.to_guest)

    def back(self, way: Way) -> float:
        """The same out of it."""
        shutil.rmtree(self._target, ignore_errors=True)
        self._target.mkdir()
        self._target.chmod(0o777)
        return _timed(way.from_guest)

    def _copy_to(self) -> None:
        self._sandbox.copy_to(f"{self._source}/.", _THERE)

    def _copy_from(self) -> None:
        self._sandbox.copy_from(f"{_THERE}/.", self._target)

    def _tar_to(self) -> None:
        archive = subprocess.run(["tar", "c", "-C", self._source, "."], capture_output=True, check=True).stdout
        self._sandbox.run(["tar", "x", "-C", _THERE], input=archive, check=True)

    def _tar_from(self) -> None:
        archive = self._sandbox.run(["tar", "c", "-C", _THERE, "."], text=False, check=True).stdout
        subprocess.run(["tar", "x", "-C", self._target], input=archive, check=True)

    def _share(self, ways: dict[str, Way]) -> None:
        """Share the folder, and add that way under the name of what carries it, unless it is there."""
        share = self._sandbox.attach(Filesystem(f"bench{len(ways)}", self._folder))

        def copy(source: str, target: str) -> Callable[[], object]:
            return lambda: self._sandbox.run(f"cp -r {source}/. {target}", check=True)

        there = copy(f"{share.guest}/{self._source.name}", _THERE)
        ways.setdefault(share.how, Way(there, copy(_THERE, f"{share.guest}/{self._target.name}")))


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _make_tree(top: Path) -> None:
    for number in range(FILES):
        folder = top / str(number // 100)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(os.urandom(FILE_SIZE))
