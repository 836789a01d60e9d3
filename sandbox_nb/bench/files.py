"""How fast trees are copied, beside what one would do without: ``tar | sb.run("tar x")`` and back.

The files have 100 KiB, as those of a GiB in 10,000 do; in the guest they lie in memory, so that no disk is
measured.
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

from sandbox_nb.bench import Row
from sandbox_nb.blocking import Sandbox

FILES = 400
FILE_SIZE = 100 * 1024
ROUNDS = 5
MEMORY = 1024

_THERE = "/tmp/bench"  # noqa: S108 - in the guest, which is ours alone

NAMES = ("copy_to_mb_s", "copy_from_mb_s", "copy_to_over_tar", "copy_from_over_tar")


def rows() -> dict[str, Row]:
    """Copy the same tree by turns, ours and theirs, each way. Ratios are of the time: ours over theirs."""
    with tempfile.TemporaryDirectory() as name, Sandbox.started(cpu=1, memory=MEMORY) as sandbox:
        bench = _Bench(sandbox, Path(name) / "source", Path(name) / "back")
        _make_tree(bench.source)
        there = [(bench.to(bench.copy_to), bench.to(bench.tar_to)) for _ in range(ROUNDS)]
        back = [(bench.back(bench.copy_from), bench.back(bench.tar_from)) for _ in range(ROUNDS)]
    megabytes = FILES * FILE_SIZE / 1e6
    return {
        "copy_to_mb_s": Row.of([megabytes / ours for ours, _ in there], "MB/s"),
        "copy_from_mb_s": Row.of([megabytes / ours for ours, _ in back], "MB/s"),
        "copy_to_over_tar": Row.of([ours / theirs for ours, theirs in there], "ratio"),
        "copy_from_over_tar": Row.of([ours / theirs for ours, theirs in back], "ratio"),
    }


@dataclass(frozen=True)
class _Bench:
    """A machine, the tree to copy, and where it comes back to."""

    sandbox: Sandbox
    source: Path
    target: Path

    def to(self, copy: Callable[[], None]) -> float:
        """Seconds that a copy into the guest takes, where the last one is removed before."""
        self.sandbox.run(f"rm -rf {_THERE}", check=True)
        self.sandbox.mkdir(_THERE)
        return _timed(copy)

    def back(self, copy: Callable[[], None]) -> float:
        """The same out of it."""
        shutil.rmtree(self.target, ignore_errors=True)
        self.target.mkdir()
        return _timed(copy)

    def copy_to(self) -> None:
        self.sandbox.copy_to(f"{self.source}/.", _THERE)

    def tar_to(self) -> None:
        archive = subprocess.run(["tar", "c", "-C", self.source, "."], capture_output=True, check=True).stdout
        self.sandbox.run(["tar", "x", "-C", _THERE], input=archive, check=True)

    def copy_from(self) -> None:
        self.sandbox.copy_from(f"{_THERE}/.", self.target)

    def tar_from(self) -> None:
        archive = self.sandbox.run(["tar", "c", "-C", _THERE, "."], text=False, check=True).stdout
        subprocess.run(["tar", "x", "-C", self.target], input=archive, check=True)


def _timed(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _make_tree(top: Path) -> None:
    for number in range(FILES):
        folder = top / str(number // 100)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(os.urandom(FILE_SIZE))
