"""quicksand with its Alpine image and the system's QEMU: start, a first command, stop, beside ours.

Both run under emulation: quicksand takes a ``/dev/kvm`` that is there for one that works, so it is told.
"""

from __future__ import annotations

import importlib.util
import sys

from sandbox_nb.bench import peers
from sandbox_nb.bench.row import Row, Skipped

NAMES = peers.names("quicksand")

# accel=None is its word for emulation.
_PROGRAM = """
import asyncio, time
from quicksand import AlpineSandbox

async def main():
    began = time.perf_counter()
    async with AlpineSandbox(accel=None) as sandbox:
        await sandbox.execute("true")
    print(time.perf_counter() - began)

asyncio.run(main())
"""


def rows() -> dict[str, Row]:
    """Measure all rows."""
    if importlib.util.find_spec("quicksand") is None:
        raise Skipped("it is not installed: pip install 'quick-sandbox[alpine]'")
    return peers.beside_ours("quicksand", _round)


def _round() -> float:
    return float(peers.run([sys.executable, "-c", _PROGRAM], "quicksand").split()[-1])
