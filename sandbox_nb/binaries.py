"""Where the compiled parts are: made by ``hatch_build.py``, carried by the wheel."""

from __future__ import annotations

import platform
from pathlib import Path

from sandbox_nb.errors import FailedPrecondition

FOLDER = Path(__file__).parent / "_bin"
ARCHITECTURES = ("x86_64", "aarch64")


def agent(arch: str) -> Path:
    """The agent for a guest of this architecture. Raises FailedPrecondition when it is not there."""
    return _find("agent", arch)


def guard() -> Path:
    """The guard for this host. Raises FailedPrecondition when it is not there."""
    return _find("guard", platform.machine())


def probe() -> Path:
    """The kernel that proves KVM on this host. Raises FailedPrecondition when it is not there."""
    return _find("probe", platform.machine())


def _find(name: str, arch: str) -> Path:
    if arch not in ARCHITECTURES:
        raise FailedPrecondition(f"there is no {name} for {arch!r}: {' and '.join(ARCHITECTURES)} are supported")
    path = FOLDER / f"{name}-{arch}"
    if not path.exists():
        remedy = "run `python hatch_build.py` in the checkout, or install sandbox_nb again"
        raise FailedPrecondition(f"{path} is missing: {remedy}")
    return path
