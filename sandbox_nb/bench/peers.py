"""What others' products have in common when they are measured: rounds beside ours, and a program to run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence

from sandbox_nb.bench.machine import live
from sandbox_nb.bench.row import Row, Skipped

ROUNDS = 3
TIMEOUT = 300


def names(peer: str) -> tuple[str, str, str]:
    """The rows of a peer."""
    return f"{peer}_s", f"ours_beside_{peer}_s", f"{peer}_over_ours"


def beside_ours(peer: str, start_command_stop: Callable[[], float]) -> dict[str, Row]:
    """Take a peer's round and ours in turn, both under emulation and in seconds; the ratio is theirs over ours."""
    start_command_stop()  # the first builds what a peer keeps for later
    pairs = [(live(accel="tcg").stopped, start_command_stop()) for _ in range(ROUNDS)]
    ours, theirs = zip(*pairs, strict=True)
    found = Row.of(theirs, "s"), Row.of(ours, "s"), Row.ratio(theirs, ours)
    return dict(zip(names(peer), found, strict=True))


def run(argv: Sequence[str], name: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a peer's program and return what it printed. Raises Skipped with its words when it fails."""
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise Skipped(f"{name} did not finish within {TIMEOUT} s") from error
    if done.returncode:
        raise Skipped(f"{name} failed here: {done.stderr.strip()[-400:]}")
    return done.stdout
