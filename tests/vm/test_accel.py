"""Which accelerator: decided by proof, remembered, and explained."""

from __future__ import annotations

import errno
import grp
import os
import platform
import pwd
import resource
import shutil
from pathlib import Path

import pytest

from sandbox_nb import binaries
from sandbox_nb.errors import FailedPrecondition
from sandbox_nb.vm import accel
from sandbox_nb.vm.accel import Accelerator
from sandbox_nb.vm.architecture import AARCH64, X86_64


@pytest.fixture
def parts(tmp_path):
    return {
        "qemu": Path(shutil.which("qemu-system-x86_64")),
        "probe": binaries.probe(),
        "guard": binaries.guard(),
        "cache": tmp_path / "cache",
    }


@pytest.mark.parametrize(("machine", "remedy"), [("x86_64", "load kvm_intel"), ("aarch64", "started in EL2")])
def test_a_missing_device_says_so_and_how_to_get_it(tmp_path, monkeypatch, machine, remedy):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    verdict = accel.access_verdict(tmp_path / "kvm")
    assert verdict.name == "tcg"
    assert "missing" in verdict.reason
    assert remedy in verdict.remedy


def test_a_device_that_does_not_open_says_why(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "open", refuse)
    verdict = accel.access_verdict(tmp_path / "kvm")
    assert str(verdict).startswith(f"tcg ({tmp_path}/kvm does not open: Device or resource busy; ")
    assert verdict.remedy == accel._enabling()


@pytest.mark.parametrize(
    ("members", "reason", "remedy"),
    [(["somebody"], "no permission", "usermod -aG"), (["me"], "not yet effective", "log out")],
)
def test_no_permission_tells_apart_what_to_do(tmp_path, monkeypatch, members, reason, remedy):
    device = tmp_path / "kvm"
    device.touch()

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(accel, "_user_name", lambda: "me")
    monkeypatch.setattr(accel, "_group_name", lambda gid: "kvm")
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", 100, members)))
    verdict = accel.access_verdict(device)
    assert reason in verdict.reason
    assert remedy in verdict.remedy


def test_nobody_is_told_to_join_the_group_root(tmp_path, monkeypatch):
    monkeypatch.setattr(accel, "_group_name", lambda gid: "root")
    monkeypatch.setattr(accel, "_members", lambda group: [])
    device = tmp_path / "kvm"
    device.touch()
    assert "usermod" not in accel._no_permission(device).remedy


def test_who_has_no_name_is_said_by_number(tmp_path, monkeypatch):
    def nobody(*args):
        raise KeyError(*args)

    for table, look_up in ((grp, "getgrgid"), (grp, "getgrnam"), (pwd, "getpwuid")):
        monkeypatch.setattr(table, look_up, nobody)
    device = tmp_path / "kvm"
    device.touch()
    assert f"usermod -aG {os.getgid()} {os.getuid()}," in accel._no_permission(device).remedy


def test_a_device_that_opens_needs_proof(tmp_path):
    device = tmp_path / "kvm"
    device.touch()
    assert accel.access_verdict(device) is None


@pytest.mark.parametrize("arch", [X86_64, AARCH64], ids=lambda arch: arch.name)
async def test_the_probe_passes_where_guest_code_runs(arch):
    """Under emulation guest code always runs, so this proves the probe, and with it the proof."""
    qemu = shutil.which(arch.qemu)
    if qemu is None:
        pytest.skip(f"{arch.qemu} is not installed")
    probe = binaries.FOLDER / f"probe-{arch.name}"
    verdict = await accel.run_probe("tcg", arch, qemu=Path(qemu), probe=probe, guard=binaries.guard())
    assert (verdict.reason, verdict.detail) == ("proven by running guest code", "")


@pytest.mark.parametrize("requested", ["auto", "kvm"])
async def test_a_guest_of_another_architecture_is_emulated_and_nothing_is_probed(parts, monkeypatch, requested):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(accel, "KVM", Path("/dev/null"))
    monkeypatch.setattr(accel, "run_probe", lambda *_, **__: pytest.fail("the probe was run"))
    said = "a guest of aarch64 is emulated on x86_64"
    if requested == "kvm":
        with pytest.raises(FailedPrecondition, match=f"accel='kvm' does not work here: {said}"):
            await accel.choose(requested, AARCH64, **parts)
    else:
        assert await accel.choose(requested, AARCH64, **parts) == Accelerator("tcg", said)


async def test_a_device_that_runs_no_guest_is_found_out(parts, tmp_path):
    del parts["cache"]
    not_a_kernel = tmp_path / "probe"
    not_a_kernel.write_bytes(b"\x7fELF" + bytes(60))
    verdict = await accel.run_probe("tcg", X86_64, **{**parts, "probe": not_a_kernel})
    assert verdict.name == "tcg"
    assert "cannot run a guest" in verdict.reason


async def test_a_probe_that_hangs_is_given_up(parts, monkeypatch):
    del parts["cache"]
    monkeypatch.setattr(accel, "PROBE_TIMEOUT", 0.001)
    verdict = await accel.run_probe("tcg", X86_64, **parts)
    assert "did not run within" in verdict.detail
    assert verdict.passing


@pytest.mark.parametrize(
    ("says", "passing"),
    [
        ("echo 'qemu: -accel kvm: failed to initialize kvm: Operation not permitted'; exit 1", False),
        ("echo 'error: kvm run failed Bad address'; seq 100; exec sleep 60", False),
        ("kill -ABRT $$", False),
        ("echo 'qemu: -accel kvm: failed to initialize kvm: Cannot allocate memory'; exit 1", True),
        ("echo 'ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy'; kill -ABRT $$", True),
        ("kill -KILL $$", True),
        ("exec sleep 60", True),
        ("exit 1", True),
    ],
)
async def test_only_what_qemu_says_itself_is_said_for_good(parts, tmp_path, monkeypatch, says, passing):
    del parts["cache"]
    monkeypatch.setattr(accel, "PROBE_TIMEOUT", 1.0)
    qemu = tmp_path / "qemu"
    qemu.write_text(f"#!/bin/sh\n{says}\n")
    qemu.chmod(0o755)
    verdict = await accel.run_probe("kvm", X86_64, **{**parts, "qemu": qemu})
    assert (verdict.name, verdict.passing) == ("tcg", passing)
    assert ("it is tried again after 5 minutes" in str(verdict)) is passing


async def test_guest_code_that_ran_is_proof_also_of_a_qemu_that_is_slow_to_end(parts, tmp_path, monkeypatch):
    del parts["cache"]
    monkeypatch.setattr(accel, "PROBE_TIMEOUT", 1.0)
    qemu = tmp_path / "qemu"
    qemu.write_text(f"#!/bin/sh\necho '{accel.PROOF.decode().strip()}'\nexec sleep 60\n")
    qemu.chmod(0o755)
    assert (await accel.run_probe("kvm", X86_64, **{**parts, "qemu": qemu})).name == "kvm"


async def test_a_verdict_is_remembered(parts, monkeypatch):
    runs = []

    async def probe(name, arch, **keywords):
        runs.append(name)
        return Accelerator("tcg", "broken", "none")

    monkeypatch.setattr(accel, "KVM", Path("/dev/null"))
    monkeypatch.setattr(accel, "run_probe", probe)
    first = await accel.choose("auto", X86_64, **parts)
    assert await accel.choose("auto", X86_64, **parts) == first == Accelerator("tcg", "broken", "none")
    assert runs == ["kvm"]


async def test_a_verdict_of_a_busy_moment_is_remembered_for_minutes_and_no_longer(parts, monkeypatch):
    verdicts = [Accelerator("tcg", "busy", passing=True), Accelerator("kvm", "proven")]

    async def probe(name, arch, **keywords):
        return verdicts.pop(0)

    monkeypatch.setattr(accel, "KVM", Path("/dev/null"))
    monkeypatch.setattr(accel, "run_probe", probe)
    assert [(await accel.choose("auto", X86_64, **parts)).name for _ in range(2)] == ["tcg", "tcg"]
    (record,) = parts["cache"].iterdir()
    long_ago = record.stat().st_mtime - accel.RETRY - 1
    os.utime(record, (long_ago, long_ago))
    assert (await accel.choose("auto", X86_64, **parts)).name == "kvm"
    os.utime(record, (long_ago, long_ago))
    assert (await accel.choose("auto", X86_64, **parts)).name == "kvm"


async def test_a_verdict_that_cannot_be_kept_leaves_nothing(parts, monkeypatch):
    async def probe(name, arch, **keywords):
        return Accelerator("kvm", "proven")

    monkeypatch.setattr(accel, "KVM", Path("/dev/null"))
    monkeypatch.setattr(accel, "run_probe", probe)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
    try:
        assert (await accel.choose("auto", X86_64, **parts)).name == "kvm"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(parts["cache"].iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", '{"nme": "kvm"}', '"kvm"'])
async def test_a_torn_memory_of_a_verdict_is_not_trusted(parts, monkeypatch, content):
    async def probe(name, arch, **keywords):
        return Accelerator("kvm", "proven")

    monkeypatch.setattr(accel, "KVM", Path("/dev/null"))
    monkeypatch.setattr(accel, "run_probe", probe)
    await accel.choose("auto", X86_64, **parts)
    (record,) = parts["cache"].iterdir()
    record.write_text(content)
    assert (await accel.choose("auto", X86_64, **parts)).reason == "proven"


async def test_tcg_by_name_asks_nobody(parts):
    assert (await accel.choose("tcg", X86_64, **{**parts, "qemu": Path("/nowhere")})).name == "tcg"


async def test_kvm_by_name_is_refused_with_the_reason_where_it_is_not(parts, monkeypatch):
    monkeypatch.setattr(accel, "KVM", Path("/nowhere/kvm"))
    with pytest.raises(FailedPrecondition, match="missing"):
        await accel.choose("kvm", X86_64, **parts)


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="/dev/kvm cannot be opened here")
async def test_the_real_device_gets_a_verdict_with_its_reason(parts):
    verdict = await accel.choose("auto", X86_64, **parts)
    assert verdict.name in ("kvm", "tcg")
    assert verdict.reason
