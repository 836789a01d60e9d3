"""Others that start a machine for a command, on this host, today, on the same accelerator: emulation.

Each round takes ours and theirs in turn, from start over a first command to the end. A peer not installed is
skipped: quicksand (``pip install 'quick-sandbox[alpine]'``; it uses the system's QEMU), and libguestfs (``apt-get
install libguestfs-tools``; it boots the kernel in /boot, or the one that SUPERMIN_KERNEL and its like name).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

from sandbox_nb.bench import Row, Skipped
from sandbox_nb.blocking import Sandbox

ROUNDS = 3
TIMEOUT = 300

# accel=None is its word for emulation; what it detects is the file /dev/kvm, not whether it works.
_QUICKSAND = """
import asyncio, time
from quicksand import AlpineSandbox

async def main():
    began = time.perf_counter()
    async with AlpineSandbox(accel=None) as sandbox:
        await sandbox.execute("true")
    print(time.perf_counter() - began)

asyncio.run(main())
"""


def rows(tell: Callable[[str], None]) -> dict[str, Row]:
    """Measure the peers that are here; ``tell`` hears which are not, and why. All figures are in seconds."""
    found: dict[str, Row] = {}
    for name, measure in (("quicksand", quicksand), ("libguestfs", libguestfs)):
        try:
            measure()  # the first builds what a peer keeps for later
            pairs = [(ours(), measure()) for _ in range(ROUNDS)]
        except Skipped as reason:
            tell(f"{name} was skipped: {reason}")
            continue
        found[f"{name}_s"] = Row.of([theirs for _, theirs in pairs], "s")
        found[f"ours_beside_{name}_s"] = Row.of([mine for mine, _ in pairs], "s")
        found[f"{name}_over_ours"] = Row.of([theirs / mine for mine, theirs in pairs], "ratio")
    return found


def ours() -> float:
    """A sandbox under emulation, restored from its template."""
    began = time.perf_counter()
    with Sandbox() as sandbox:
        sandbox.start(accel="tcg")
        sandbox.run(["true"], check=True)
    return time.perf_counter() - began


def quicksand() -> float:
    """A quicksand with its Alpine image."""
    if importlib.util.find_spec("quicksand") is None:
        raise Skipped("pip install 'quick-sandbox[alpine]'")
    return float(_run([sys.executable, "-c", _QUICKSAND], "quicksand").split()[-1])


def libguestfs() -> float:
    """The appliance of libguestfs."""
    if shutil.which("guestfish") is None:
        raise Skipped("apt-get install libguestfs-tools")
    emulated = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
    began = time.perf_counter()
    _run(["guestfish", "-a", "/dev/null", "run", ":", "debug", "sh", "true"], "libguestfs", emulated)
    return time.perf_counter() - began


def _run(argv: list[str], name: str, environment: dict[str, str] | None = None) -> str:
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
