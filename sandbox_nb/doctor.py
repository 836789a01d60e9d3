"""What a machine needs to run sandboxes, what of it is there, and how to get the rest."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandbox_nb import __version__, binaries, limits, link, rundir, standby
from sandbox_nb.background import run_blocking
from sandbox_nb.errors import NotFound, SandboxError
from sandbox_nb.guest import image
from sandbox_nb.host import cache_dir, choose_accelerator, find_qemu, guest_architecture, templates_dir
from sandbox_nb.options import DEFAULT_MEMORY, Options
from sandbox_nb.vm import caps, template, users, virtiofsd
from sandbox_nb.vm.monitor import MIN_QEMU

DEVICES = ("vhost-user-vsock-pci", "virtio-blk-pci", "virtio-9p-pci", "vhost-user-fs-pci", "virtio-net-pci")
"""What a machine may want of QEMU. Distributions put some into packages of their own."""

ENOUGH_FILES = 256

CACHE_REMEDY = "set XDG_CACHE_HOME to a folder of yours"


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``status`` is ok, note (works, could be better) or bad (does not work without)."""

    subject: str
    status: str
    detail: str
    remedy: str = ""


def examine(*, fix: bool = False) -> list[Finding]:
    """Look at everything and return what was found.

    With ``fix`` what dead processes left is removed first; nothing else is touched.
    """
    if fix:
        _fix()
    return [check() for check in _CHECKS]


def _fix() -> None:
    rundir.sweep(rundir.base())
    caps.sweep()
    template.prune(templates_dir(), keep="")


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
    if (obstacle := _obstacle(cache_dir() / "images", mode=0o777)) is not None:
        return Finding("guest image", "bad", f"none yet, and {obstacle}", CACHE_REMEDY)
    if shutil.which("apt-get"):
        return Finding("guest image", "note", "none yet; the first start builds it", "sandbox-nb image build")
    remedy = "sandbox-nb image build --kernel FILE --modules DIR --busybox FILE"
    return Finding("guest image", "bad", "none, and no apt-get to take its packages from", remedy)


def _devices() -> Finding:
    try:
        path = find_qemu(guest_architecture(Options()))
    except SandboxError:
        return Finding("devices", "note", "not examined: QEMU is missing")
    said = subprocess.run([path, "-device", "help"], capture_output=True, text=True, check=False).stdout
    missing = [name for name in DEVICES if f'"{name}"' not in said]
    if missing:
        return Finding("devices", "bad", f"{path} lacks {', '.join(missing)}", "install a QEMU built with them")
    return Finding("devices", "ok", ", ".join(DEVICES))


def _transport() -> Finding:
    choice = link.choose("auto")
    return Finding("vsock", "ok", f"{choice.transport}: {choice.reason}")


def _shares() -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = run_blocking(virtiofsd.find(Path(folder), binaries.guard()))
        except SandboxError as error:
            return Finding("shared folders", "note", f"not examined: {error}")
    if found is None:
        install = "a virtiofsd that works without root shares faster: sudo apt-get install virtiofsd"
        return Finding("shared folders", "note", "through 9p; no virtiofsd works for this user", install)
    readonly = "" if found.readonly or os.geteuid() == 0 else "; read-only ones through 9p"
    return Finding("shared folders", "ok", f"through {found.path}{readonly}")


def _user() -> Finding:
    if os.geteuid() != 0:
        return Finding("user", "ok", f"QEMU runs as you, uid {os.geteuid()}")
    if (obstacle := users.obstacle("tcg")) is not None:
        return Finding("user", "note", f"QEMU runs as root: {obstacle}", "start as another user than root")
    return Finding(
        "user", "ok", "you are root; QEMU and the vsock device run as a user of their own who owns nothing"
    )


def _caps() -> Finding:
    by, always = caps.who()
    if always:
        return Finding("caps", "ok", f"every machine is held to its memory by {by}")
    return Finding("caps", "ok", f"a machine with host_memory= or host_cpus= is held to them by {by}, no other is")


def _templates() -> Finding:
    found = template.list_templates(templates_dir())
    size = sum(one.disk_usage() for one in found) >> 20
    detail = f"{len(found)} in {templates_dir()}, {size} of at most {template.MAX_CACHE >> 20} MiB"
    if (obstacle := _obstacle(templates_dir(), mode=0o700)) is not None:
        return Finding("templates", "note", obstacle, f"{CACHE_REMEDY}, or every start boots")
    return Finding("templates", "ok", detail)


def _obstacle(folder: Path, *, mode: int) -> str | None:
    """Why nothing can be put into a folder, which is made where it is missing; None when it can."""
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        return f"{folder} cannot be made: {error.strerror}"
    return None if os.access(folder, os.W_OK) else f"{folder} cannot be written"


def _memory() -> Finding:
    available, whole = standby.memory_mib()
    machines = min(available // DEFAULT_MEMORY, limits.most_machines())
    detail = f"{available} of {whole} MiB are available: {machines} machines of {DEFAULT_MEMORY} MiB"
    if not machines:
        return Finding("memory", "bad", detail, "stop something, or raise the memory limit of this container")
    return Finding("memory", "ok", detail)


def _open_files() -> Finding:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < ENOUGH_FILES:
        remedy = f"ulimit -Hn {ENOUGH_FILES}, or LimitNOFILE= of the service"
        return Finding("open files", "note", f"{hard} at most: few connections to a guest at once", remedy)
    return Finding("open files", "ok", f"{hard} at most")


def _leftovers() -> Finding:
    try:
        base = rundir.base()
    except SandboxError as error:
        return Finding("run folder", "bad", str(error), "set XDG_RUNTIME_DIR or TMPDIR to a short folder of yours")
    left = sum(map(len, (rundir.leftovers(base), template.unfinished(templates_dir()), caps.leftovers())))
    if left:
        detail = f"{base}; {left} left by processes that were killed"
        return Finding("run folder", "note", detail, "sandbox-nb doctor --fix; the next start does it, too")
    return Finding("run folder", "ok", f"{base}, nothing left behind")


_CHECKS: list[Callable[[], Finding]] = [
    *(_software, _binaries, _qemu, _devices, _accelerator, _user, _transport, _shares, _image, _templates),
    *(_memory, _caps, _open_files, _leftovers),
]
