"""Which accelerator really works here, and why.

``/dev/kvm`` may exist, open and answer, and still be unable to run a guest (nested and para-virtual hosts):
QEMU aborts, or the guest hangs before its first message. So KVM is believed when the probe, a tiny kernel of
ours, has run under it; the verdict is remembered for this boot of the host, this QEMU and this device. One that a
busy host may be to blame for is remembered for minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import hashlib
import json
import os
import platform
import pwd
import re
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sandbox_nb.errors import FailedPrecondition
from sandbox_nb.vm import command
from sandbox_nb.vm.architecture import Architecture
from sandbox_nb.vm.process import Child

KVM = Path("/dev/kvm")

PROBE_TIMEOUT = 1.8
"""Seconds. A probe that works takes 0.1; the promise is that a broken KVM costs at most 2, once in RETRY."""

RETRY = 300.0
"""Seconds after which a verdict that the host's load may have made is no longer believed."""

PROOF = b"proven!\n"
"""What the probe writes (probe.h). QEMU's own last words are others."""

_REFUSAL = re.compile(
    "failed to initialize kvm|invalid accelerator kvm|kvm_init_vcpu|kvm run failed|KVM internal error"
    "|KVM: entry failed",
    re.IGNORECASE,
)
"""What QEMU says of a KVM that runs no guest (its accel/ and target/i386/kvm)."""

_SHORT = re.compile(
    "|".join(map(os.strerror, (errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOMEM)))
    + "|failed to allocate"
)
"""What it says of what the host has too little of just now, or another hypervisor holds."""

_CRASHES = (128 + signal.SIGABRT, 128 + signal.SIGSEGV)
"""How it ends where KVM does what it holds to be impossible."""


@dataclass(frozen=True)
class Accelerator:
    """``name`` is QEMU's (kvm, tcg), ``reason`` says why it was chosen, ``remedy`` how to get KVM.

    ``detail`` is what the proof saw, for a closer look; ``passing`` whether the host's load may be to blame.
    """

    name: str
    reason: str
    remedy: str = ""
    detail: str = ""
    passing: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.reason}{'; ' + self.remedy if self.remedy else ''})"


async def choose(
    requested: str, arch: Architecture, *, qemu: Path, probe: Path, guard: Path, cache: Path
) -> Accelerator:
    """Return the accelerator for ``requested`` (auto, kvm, tcg); verdicts are kept in the folder ``cache``.

    ``probe`` is the host's; KVM runs no guest of another architecture.

    Raises FailedPrecondition when KVM was asked for by name and does not work.
    """
    if requested == "tcg":
        return Accelerator("tcg", "asked for")
    verdict = _foreign(arch) or access_verdict(KVM)
    if verdict is None:
        verdict = await _proven(arch, qemu=qemu, probe=probe, guard=guard, cache=cache)
    if requested == "kvm" and verdict.name != "kvm":
        raise FailedPrecondition(f"accel='kvm' does not work here: {verdict.reason}. {verdict.remedy}".strip())
    return verdict


def _foreign(arch: Architecture) -> Accelerator | None:
    host = platform.machine()
    return None if arch.name == host else Accelerator("tcg", f"a guest of {arch.name} is emulated on {host}")


def access_verdict(device: Path) -> Accelerator | None:
    """Say why ``device`` cannot be used at all, or return None when it opens."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return Accelerator("tcg", f"{device} is missing", _enabling())
        if error.errno in (errno.EACCES, errno.EPERM):
            return _no_permission(device)
        return Accelerator("tcg", f"{device} does not open: {error.strerror}", _enabling())
    return None


def _enabling() -> str:
    """How a host gets its /dev/kvm."""
    if platform.machine() == "aarch64":  # KVM is no module there
        return "the kernel must be started in EL2, by the firmware or the hypervisor above it"
    return "enable virtualisation in the firmware, load kvm_intel or kvm_amd"


def _no_permission(device: Path) -> Accelerator:
    group, user = _group_name(device.stat().st_gid), _user_name()
    if user in _members(group):
        return Accelerator(
            "tcg", f"your membership of the group {group} is not yet effective", "log out and in again"
        )
    join = f"sudo usermod -aG {group} {user}, then log in again"
    if group == "root":  # nobody should be told to join that one
        join = f"sudo chgrp kvm {device}, sudo chmod g+rw {device}, and join the group kvm"
    return Accelerator("tcg", f"no permission for {device}", join)


async def _proven(arch: Architecture, *, qemu: Path, probe: Path, guard: Path, cache: Path) -> Accelerator:
    record = cache / f"kvm-{_verdict_key(qemu)}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        remembered = Accelerator(**json.loads(record.read_text()))
        if not remembered.passing or abs(time.time() - record.stat().st_mtime) < RETRY:
            return remembered
    verdict = await run_probe("kvm", arch, qemu=qemu, probe=probe, guard=guard)
    # A cache that cannot be written costs the next start a probe, nothing more.
    with contextlib.suppress(OSError):
        _write_atomically(record, json.dumps(asdict(verdict)))
    return verdict


async def run_probe(accel: str, arch: Architecture, *, qemu: Path, probe: Path, guard: Path) -> Accelerator:
    """Run guest code under ``accel`` and say whether it ran."""
    child = Child.spawn(command.probe_argv(arch, qemu, accel, probe), name="accelerator probe", guard=guard)
    status = None
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROBE_TIMEOUT):
                status = await child.wait()
    finally:
        child.kill()
        await child.wait()
    if PROOF in bytes(child.log):
        return Accelerator(accel, "proven by running guest code")
    detail = f"guest code did not run within {PROBE_TIMEOUT:g} s"
    if status is not None:
        detail = child.log.tail(1) or f"QEMU ended with status {status}"
    return _broken(accel, detail, passing=not _is_refusal(bytes(child.log).decode(errors="replace"), status))


def _is_refusal(words: str, status: int | None) -> bool:
    """Whether QEMU itself says no, and for good: in words, or by a crash. Who hangs or is killed says nothing."""
    return _SHORT.search(words) is None and (status in _CRASHES or _REFUSAL.search(words) is not None)


def _broken(accel: str, detail: str, *, passing: bool) -> Accelerator:
    remedy = f"the host may only have been busy, it is tried again after {RETRY / 60:g} minutes" if passing else ""
    return Accelerator("tcg", f"/dev/{accel} is there but cannot run a guest", remedy, detail, passing)


def processor_flags() -> list[str]:
    """What the host's processor is and can do: a machine saved under KVM fits no other."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return sorted({line for line in lines if line.startswith(("flags", "Features", "CPU "))})


def _verdict_key(qemu: Path) -> str:
    """A key for this boot of the host, this QEMU binary and this device; any change asks for a new proof."""
    binary, device = qemu.stat(), KVM.stat()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    parts = (boot, str(qemu), binary.st_size, binary.st_mtime_ns, device.st_ino, device.st_ctime_ns)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent)
    os.close(fd)
    try:
        Path(name).write_text(text)
        Path(name).replace(path)
    except BaseException:  # on a full disk there is still room for an empty file
        Path(name).unlink()
        raise


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _members(group: str) -> list[str]:
    try:
        return grp.getgrnam(group).gr_mem
    except KeyError:
        return []


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
