"""What a machine needs to run sandboxes, what of it is there, and how to get the rest."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from sandbox_nb import __version__, binaries, rundir
from sandbox_nb.blocking import run_blocking
from sandbox_nb.errors import NotFound, SandboxError
from sandbox_nb.guest import image
from sandbox_nb.host import choose_accelerator, find_qemu, guest_architecture
from sandbox_nb.options import Options
from sandbox_nb.vm.monitor import MIN_QEMU


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``status`` is ok, note (works, could be better) or bad (does not work without)."""

    subject: str
    status: str
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything and return what was found."""
    return [check() for check in _CHECKS]


def _software() -> Finding:
    return Finding(
        "sandbox_nb", "ok", f"{__version__} on Python {platform.python_version()}, {platform.machine()}"
    )


def _binaries() -> Finding:
    try:
        found = [binaries.agent(platform.machine()), binaries.guard(), binaries.probe()]
    except SandboxError as error:
        return Finding("agent", "bad", str(error))
    return Finding("agent", "ok", ", ".join(path.name for path in found))


def _qemu() -> Finding:
    try:
        arch = guest_architecture(Options())
        path = find_qemu(arch)
    except NotFound:
        return Finding("QEMU", "bad", f"{arch.qemu} is not installed", f"sudo apt-get install {arch.package}")
    except SandboxError as error:
        return Finding("QEMU", "bad", str(error))
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"version (\d+)\.(\d+)\S*", said)
    if version is None:
        return Finding("QEMU", "bad", f"{path} does not say its version", f"reinstall {arch.package}")
    if (int(version[1]), int(version[2])) < MIN_QEMU:
        needed = ".".join(map(str, MIN_QEMU))
        return Finding("QEMU", "bad", f"{path} is {version[1]}.{version[2]}", f"{needed} or newer is needed")
    return Finding("QEMU", "ok", f"{path}, {version[0]}")


def _accelerator() -> Finding:
    try:
        verdict = run_blocking(choose_accelerator(Options()))
    except SandboxError:
        return Finding("accelerator", "note", "not examined: QEMU or the probe is missing")
    if verdict.name == "kvm":
        return Finding("accelerator", "ok", str(verdict))
    detail = f" ({verdict.detail})" if verdict.detail else ""
    return Finding("accelerator", "note", f"emulation, since {verdict.reason}{detail}", verdict.remedy)


def _image() -> Finding:
    images = image.list_images()
    if images:
        return Finding(
            "guest image", "ok", ", ".join(f"{found.name} ({found.arch}, {found.release})" for found in images)
        )
    if shutil.which("apt-get"):
        return Finding("guest image", "note", "none yet; the first start builds it", "sandbox-nb image build")
    remedy = "sandbox-nb image build --kernel FILE --modules DIR --busybox FILE"
    return Finding("guest image", "bad", "none, and no apt-get to take its packages from", remedy)


def _leftovers() -> Finding:
    try:
        swept = rundir.sweep(rundir.base())
    except SandboxError as error:
        return Finding("run folder", "bad", str(error), "set XDG_RUNTIME_DIR or TMPDIR to a short folder of yours")
    detail = f"swept {len(swept)} left by dead processes" if swept else "nothing left behind"
    return Finding("run folder", "ok", f"{rundir.base()}, {detail}")


_CHECKS: list[Callable[[], Finding]] = [_software, _binaries, _qemu, _accelerator, _image, _leftovers]
