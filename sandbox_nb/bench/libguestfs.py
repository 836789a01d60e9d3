"""The appliance of libguestfs, a kernel from ``/boot`` under emulation: start, a first command, stop, beside ours.

Where ``/boot`` has no kernel, SUPERMIN_KERNEL and SUPERMIN_MODULES in the environment name one, and an empty
``/lib/modules`` has to be there.
"""

from __future__ import annotations

import shutil
import time

from sandbox_nb.bench import peers
from sandbox_nb.bench.row import Row, Skipped

NAMES = peers.names("libguestfs")

_EMULATED = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}


def rows() -> dict[str, Row]:
    """Measure all rows."""
    if shutil.which("guestfish") is None:
        raise Skipped("it is not installed: sudo apt-get install libguestfs-tools")
    return peers.beside_ours("libguestfs", _round)


def _round() -> float:
    began = time.perf_counter()
    peers.run(["guestfish", "-a", "/dev/null", "run", ":", "debug", "sh", "true"], "libguestfs", _EMULATED)
    return time.perf_counter() - began
