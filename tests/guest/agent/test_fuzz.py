"""The agent's readers under mutated input; see fuzz.c."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SOURCES = ("address.c", "bytes.c", "entry.c", "handshake.c", "mount_options.c", "pb.c", "text.c", "ttrpc.c")


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory, tools, agent_sources):
    out = tmp_path_factory.mktemp("fuzz") / "fuzz"
    return tools.compile_native(out, Path(__file__).parent / "fuzz.c", *(agent_sources / name for name in SOURCES))


@pytest.mark.parametrize("seed", range(4))
def test_no_input_leaves_the_bounds_and_pieces_make_no_difference(fuzzer, seed):
    done = subprocess.run([fuzzer, str(seed), "20000"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "20000 rounds\n"), done.stderr


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 104))
def test_the_same_for_minutes(fuzzer, seed):
    done = subprocess.run([fuzzer, str(seed), "2000000"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2000000 rounds\n"), done.stderr
