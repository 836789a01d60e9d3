"""Many starts and stops: nothing is left, and nothing grows."""

from __future__ import annotations

import gc
import os

import psutil
import pytest

from sandbox_nb import Sandbox, rundir


def held():
    """(open descriptors, threads, resident MiB, run folders) of this process."""
    gc.collect()
    process = psutil.Process()
    mine = [entry for entry in rundir.base().iterdir() if entry.name.startswith(f"{os.getpid()}-")]
    return process.num_fds(), process.num_threads(), process.memory_info().rss >> 20, len(mine)


def rounds(number, **options):
    for _ in range(number):
        with Sandbox.started(**options) as sandbox:
            assert sandbox.run("echo up").stdout == "up\n"


@pytest.mark.parametrize(
    ("number", "warm"),
    [(15, True), pytest.param(50, False, marks=pytest.mark.soak), pytest.param(100, True, marks=pytest.mark.soak)],
)
def test_starts_and_stops_leave_nothing_and_memory_is_flat(number, warm):
    rounds(3, warm=warm)
    before = held()
    rounds(number, warm=warm)
    after = held()
    assert after[0] == before[0]
    assert after[1] <= before[1] + 1
    assert after[2] <= before[2] + 8
    assert after[3] == before[3]
