"""How long a machine takes to be ready, to run a first command and to be gone; and what calls take on one.

A start is held against a bare boot: the same QEMU, kernel, command line, devices, memory and modules, with an init
that does nothing but write one byte to the console. What a cold start takes beyond that is ours. A command is held
against the same one that a program in the guest starts by vfork and exec, in turn with it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sandbox_nb import standby
from sandbox_nb.bench.bare_boot import bare_boot, bare_spec
from sandbox_nb.bench.row import Row
from sandbox_nb.blocking import Sandbox

IMPORTS = 11
ROUNDS = 7
WARM_ROUNDS = 20
STANDBY_ROUNDS = 20
STANDBY_TIMEOUT = 30.0
TOGETHER = 8
CALLS = 100
BARE_EXECS = 10
COMMANDS = 30

NAMES = (
    "import_s",
    "import_sandbox_s",
    "cold_ready_s",
    "bare_boot_s",
    "cold_over_bare",
    "warm_over_bare",
    "warm_ready_s",
    "warm_exec_s",
    "first_exec_s",
    "stop_s",
    "start_exec_stop_s",
    "standby_ready_s",
    "standby_exec_s",
    "eight_over_one",
    "exec_ms",
    "bare_exec_ms",
    "exec_over_bare",
    "ping_ms",
)


@dataclass(frozen=True)
class Life:
    """Seconds from the call of ``start`` to the agent's first answer, the first command's result, the end."""

    ready: float
    executed: float
    stopped: float


def rows() -> dict[str, Row]:
    """Measure bare boots beside starts; then warm starts; those that find a machine; calls on one."""
    live(warm=True)  # makes the template when there is none
    return {
        "import_s": Row.of([_import("import sandbox_nb") for _ in range(IMPORTS)], "s"),
        "import_sandbox_s": Row.of([_import("from sandbox_nb import Sandbox") for _ in range(IMPORTS)], "s"),
        **_beside_bare(),
        **_warm(),
        **_standby(),
        "eight_over_one": Row.ratio(*zip(*(_eight_and_one() for _ in range(ROUNDS)), strict=True)),
        **_calls(),
    }


def live(**options: Any) -> Life:
    """Start a machine, have it answer, run a command in it, and stop it."""
    with Sandbox() as sandbox:
        began = time.perf_counter()
        sandbox.start(**options)
        sandbox.info()
        ready = time.perf_counter()
        sandbox.run(["true"])
        executed = time.perf_counter()
        sandbox.stop()
        return Life(ready - began, executed - began, time.perf_counter() - began)


def _import(statement: str) -> float:
    """Seconds that ``statement`` adds to a Python that does nothing."""

    def run(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    nothing = run("")
    return run(statement) - nothing


def _beside_bare() -> dict[str, Row]:
    bare, cold, warm = [], [], []
    with bare_spec() as spec:
        for _ in range(ROUNDS):
            bare.append(bare_boot(spec))
            cold.append(live(warm=False).ready)
            warm.append(live(warm=True).ready)
    return {
        "cold_ready_s": Row.of(cold, "s"),
        "bare_boot_s": Row.of(bare, "s"),
        "cold_over_bare": Row.ratio(cold, bare),
        "warm_over_bare": Row.ratio(warm, bare),
    }


def _warm() -> dict[str, Row]:
    lives = [live(warm=True) for _ in range(WARM_ROUNDS)]
    return {
        "warm_ready_s": Row.of([life.ready for life in lives], "s"),
        "warm_exec_s": Row.of([life.executed for life in lives], "s"),
        "first_exec_s": Row.of([life.executed - life.ready for life in lives], "s"),
        "stop_s": Row.of([life.stopped - life.executed for life in lives], "s"),
        "start_exec_stop_s": Row.of([life.stopped for life in lives], "s"),
    }


def _standby() -> dict[str, Row]:
    """Starts with a machine standing by, each after it has had the time to be made."""
    lives: list[Life] = []
    with Sandbox.started(standby=1):
        while len(lives) < STANDBY_ROUNDS:
            deadline = time.monotonic() + STANDBY_TIMEOUT
            while not standby.ready() and time.monotonic() < deadline:
                time.sleep(0.05)
            lives.append(live(standby=1))
    return {
        "standby_ready_s": Row.of([life.ready for life in lives], "s"),
        "standby_exec_s": Row.of([life.executed for life in lives], "s"),
    }


def _eight_and_one() -> tuple[float, float]:
    """Seconds until eight machines, started at the same time, are all ready; and one alone."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(TOGETHER) as pool:
        sandboxes = [stack.enter_context(Sandbox()) for _ in range(TOGETHER)]
        began = time.perf_counter()
        for _ in pool.map(lambda sandbox: (sandbox.start(), sandbox.info()), sandboxes):
            pass
        eight = time.perf_counter() - began
    return eight, live(warm=True).ready


def _calls() -> dict[str, Row]:
    with Sandbox.started() as sandbox:
        sandbox.run(["true"])
        by_run, bare = zip(*(_run_and_bare(sandbox) for _ in range(BARE_EXECS)), strict=True)
        return {
            "exec_ms": Row.of([_milliseconds(lambda: sandbox.run(["true"])) for _ in range(CALLS)], "ms"),
            "bare_exec_ms": Row.of(bare, "ms"),
            "exec_over_bare": Row.ratio(by_run, bare),
            "ping_ms": Row.of([_milliseconds(sandbox.info) for _ in range(CALLS)], "ms"),
        }


def _run_and_bare(sandbox: Sandbox) -> tuple[float, float]:
    """Milliseconds that ``true`` takes by ``run``, and by the guest's xargs, which starts it by vfork and exec."""

    def xargs(commands: int) -> float:
        numbers = " ".join(map(str, range(commands)))
        return _milliseconds(lambda: sandbox.run(f"echo {numbers} | xargs -n 1 /bin/true"))

    by_run = _milliseconds(lambda: [sandbox.run(["true"]) for _ in range(COMMANDS)])
    return by_run / COMMANDS, (xargs(COMMANDS + 1) - xargs(1)) / COMMANDS


def _milliseconds(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000
