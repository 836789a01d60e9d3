"""Which accelerator: decided by proof, remembered, and explained."""

from __future__ import annotations

import grp
import os
import shutil
from pathlib import Path

import pytest

from sandbox_nb import binaries
from sandbox_nb.errors import FailedPrecondition
from sandbox_nb.vm import accel
from sandbox_nb.vm.accel import Accelerator


@pytest.fixture
def parts(tmp_path):
    return {
        "qemu": Path(shutil.which("qemu-system-x86_64")),
        "probe": binaries.probe(),
        "guard": binaries.guard(),
        "cache": tmp_path / "cache",
    }


def test_a_missing_device_says_so_and_how_to_get_it(tmp_path):
    verdict = accel.access_verdict(tmp_path / "kvm")
    assert verdict.name == "tcg"
    assert "missing" in verdict.reason
    assert "kvm_intel" in verdict.remedy


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


def test_a_device_that_opens_needs_proof(tmp_path):
    device = tmp_path / "kvm"
    device.touch()
    assert accel.access_verdict(device) is None


async def test_the_probe_passes_where_guest_code_runs(parts):
    """Under emulation guest code always runs, so this proves the probe, and with it the proof."""
    del parts["cache"]
    assert (await accel.run_probe("tcg", **parts)).reason == "proven by running guest code"


async def test_a_device_that_runs_no_guest_is_found_out(parts, tmp_path):
    del parts["cache"]
    not_a_kernel = tmp_path / "probe"
    not_a_kernel.write_bytes(b"\x7fELF" + bytes(60))
    verdict = await accel.run_probe("tcg", **{**parts, "probe": not_a_kernel})
    assert verdict.name == "tcg"
    assert "cannot run a guest" in verdict.reason


async def test_a_probe_that_hangs_is_given_up(parts, monkeypatch):
    del parts["cache"]
    monkeypatch.setattr(accel, "PROBE_TIMEOUT", 0.001)
    verdict = await accel.run_probe("tcg", **parts)
    assert "did not run within" in verdict.detail


async def test_a_verdict_is_remembered(parts, monkeypatch):
    runs = []

    async def probe(name, **keywords):
        runs.append(name)
        return Accelerator("tcg", "broken", "none")

    monkeypatch.setattr(accel, "KVM", Path("/dev/null"))
    monkeypatch.setattr(accel, "run_probe", probe)
    first = await accel.choose("auto", **parts)
    assert await accel.choose("auto", **parts) == first == Accelerator("tcg", "broken", "none")
    assert runs == ["kvm"]


@pytest.mark.parametrize("content", ["", "{", '{"nme": "kvm"}', '"kvm"'])
async def test_a_torn_memory_of_a_verdict_is_not_trusted(parts, monkeypatch, content):
    async def probe(name, **keywords):
        return Accelerator("kvm", "proven")

    monkeypatch.setattr(accel, "KVM", Path("/dev/null"))
    monkeypatch.setattr(accel, "run_probe", probe)
    await accel.choose("auto", **parts)
    (record,) = parts["cache"].iterdir()
    record.write_text(content)
    assert (await accel.choose("auto", **parts)).reason == "proven"


async def test_tcg_by_name_asks_nobody(parts):
    assert (await accel.choose("tcg", **{**parts, "qemu": Path("/nowhere")})).name == "tcg"


async def test_kvm_by_name_is_refused_with_the_reason_where_it_is_not(parts, monkeypatch):
    monkeypatch.setattr(accel, "KVM", Path("/nowhere/kvm"))
    with pytest.raises(FailedPrecondition, match="missing"):
        await accel.choose("kvm", **parts)


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="/dev/kvm cannot be opened here")
async def test_the_real_device_gets_a_verdict_with_its_reason(parts):
    verdict = await accel.choose("auto", **parts)
    assert verdict.name in ("kvm", "tcg")
    assert verdict.reason
