"""What the doctor says of a host that lacks something: what it is, how bad that is, and how to get it."""

from __future__ import annotations

import os
import resource
import shutil

import pytest

from sandbox_nb import binaries, doctor, limits, rundir, standby
from sandbox_nb.doctor import Finding
from sandbox_nb.errors import FailedPrecondition, NotFound
from sandbox_nb.guest import image
from sandbox_nb.vm import caps, users, virtiofsd
from sandbox_nb.vm.accel import Accelerator


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def answering(value):
    async def answer(*_):
        return value

    return answer


@pytest.fixture
def qemu(tmp_path, monkeypatch):
    """Makes QEMU a script that says these words, whatever it is asked."""

    def make(words):
        path = tmp_path / "qemu"
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{words}\nEND\n")
        path.chmod(0o755)
        monkeypatch.setattr(doctor, "find_qemu", lambda arch: path)
        return path

    return make


@pytest.mark.parametrize(
    ("words", "status", "detail", "remedy"),
    [
        ("QEMU emulator version 9.1.0 (Debian)", "ok", ", version 9.1.0", ""),
        ("QEMU emulator version 5.2.0", "bad", " is 5.2", "or newer is needed"),
        ("what?", "bad", " does not say its version", "reinstall qemu-system-"),
    ],
)
def test_a_qemu_is_judged_by_its_version(qemu, words, status, detail, remedy):
    path = qemu(words)
    found = doctor._qemu()
    assert (found.status, found.detail) == (status, f"{path}{detail}")
    assert remedy in found.remedy


def test_without_qemu_all_that_needs_it_says_so(monkeypatch):
    missing = NotFound("qemu-system-x86_64 is not installed")
    monkeypatch.setattr(doctor, "find_qemu", raising(missing))
    monkeypatch.setattr(doctor, "choose_accelerator", raising(missing))
    found = doctor._qemu()
    assert found.status == "bad"
    assert found.remedy.startswith("sudo apt-get install qemu-system-")
    assert doctor._devices() == Finding("devices", "note", "not examined: QEMU is missing")
    assert doctor._accelerator() == Finding("accelerator", "note", "not examined: QEMU or the probe is missing")


def test_a_host_of_which_there_are_no_guests_has_no_qemu(monkeypatch):
    monkeypatch.setattr(doctor, "guest_architecture", raising(FailedPrecondition("no guests for riscv64")))
    assert doctor._qemu() == Finding("QEMU", "bad", "no guests for riscv64")


def test_devices_that_a_qemu_lacks_are_named(qemu):
    present = [name for name in doctor.DEVICES if "net" not in name]
    path = qemu("\n".join(f'name "{name}", bus PCI' for name in present))
    found = doctor._devices()
    assert (found.status, found.detail) == ("bad", f"{path} lacks virtio-net-pci")
    qemu("\n".join(f'name "{name}", bus PCI' for name in doctor.DEVICES))
    assert doctor._devices().status == "ok"


@pytest.mark.parametrize(
    ("verdict", "status", "detail"),
    [
        (Accelerator("kvm", "proven"), "ok", "kvm (proven)"),
        (Accelerator("tcg", "it is missing", "load kvm"), "note", "emulation, since it is missing"),
        (Accelerator("tcg", "it broke", detail="no ioctl"), "note", "emulation, since it broke (no ioctl)"),
    ],
)
def test_emulation_is_a_note_with_the_reason(monkeypatch, verdict, status, detail):
    monkeypatch.setattr(doctor, "choose_accelerator", answering(verdict))
    found = doctor._accelerator()
    assert (found.status, found.detail, found.remedy) == (status, detail, verdict.remedy)


def test_a_missing_agent_is_bad(monkeypatch, tmp_path):
    monkeypatch.setattr(binaries, "FOLDER", tmp_path)
    found = doctor._binaries()
    assert found.status == "bad"
    assert f"{tmp_path}/agent-" in found.detail
    assert "hatch_build.py" in found.detail
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "'riscv64': x86_64 and aarch64 are supported" in doctor._binaries().detail


@pytest.mark.parametrize(
    ("apt", "status", "remedy"),
    [
        ("/usr/bin/apt-get", "note", "sandbox-nb image build"),
        (None, "bad", "sandbox-nb image build --kernel FILE --modules DIR --busybox FILE"),
    ],
)
def test_where_no_image_is_it_depends_on_apt(monkeypatch, apt, status, remedy):
    monkeypatch.setattr(image, "list_images", list)
    monkeypatch.setattr(shutil, "which", lambda name: apt)
    found = doctor._image()
    assert (found.status, found.remedy) == (status, remedy)


def test_where_no_image_is_and_none_can_be_kept_no_start_can_work(monkeypatch, tmp_path):
    monkeypatch.setattr(image, "list_images", list)
    monkeypatch.setattr(doctor, "cache_dir", lambda: tmp_path / "file")
    (tmp_path / "file").touch()
    found = doctor._image()
    assert (found.status, found.remedy) == ("bad", "set XDG_CACHE_HOME to a folder of yours")
    assert found.detail == f"none yet, and {tmp_path}/file/images cannot be made: Not a directory"
    (tmp_path / "file").unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert doctor._image().detail == f"none yet, and {tmp_path}/file/images cannot be written"


def test_shares_without_a_virtiofsd_are_slower_and_it_says_so(monkeypatch):
    monkeypatch.setattr(virtiofsd, "find", answering(None))
    found = doctor._shares()
    assert found.status == "note"
    assert "through 9p" in found.detail
    assert "apt-get install virtiofsd" in found.remedy
    monkeypatch.setattr(virtiofsd, "find", raising(FailedPrecondition("it hangs")))
    assert doctor._shares() == Finding("shared folders", "note", "not examined: it hangs")


@pytest.mark.parametrize(
    ("uid", "obstacle", "status", "detail"),
    [
        (1000, None, "ok", "QEMU runs as you, uid 1000"),
        (0, None, "ok", "a user of their own who owns nothing"),
        (0, "no ids to spare", "note", "QEMU runs as root: no ids to spare"),
    ],
)
def test_whom_qemu_runs_as(monkeypatch, uid, obstacle, status, detail):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(users, "obstacle", lambda accel: obstacle)
    found = doctor._user()
    assert found.status == status
    assert found.detail.endswith(detail)
    assert bool(found.remedy) == (obstacle is not None)


def test_a_cache_that_cannot_be_used_makes_every_start_boot(monkeypatch, tmp_path):
    place = tmp_path / "file" / "templates"
    monkeypatch.setattr(doctor, "templates_dir", lambda: place)
    (tmp_path / "file").touch()
    found = doctor._templates()
    assert (found.status, found.detail) == ("note", f"{place} cannot be made: Not a directory")
    assert "XDG_CACHE_HOME" in found.remedy
    (tmp_path / "file").unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = doctor._templates()
    assert found.status == "note"
    assert found.detail == f"{place} cannot be written"
    assert "XDG_CACHE_HOME" in found.remedy


@pytest.mark.parametrize(
    ("available", "most", "status", "machines"), [(1000, 8, "ok", 3), (9000, 8, "ok", 8), (200, 8, "bad", 0)]
)
def test_memory_is_said_in_machines(monkeypatch, available, most, status, machines):
    monkeypatch.setattr(standby, "memory_mib", lambda: (available, 16_000))
    monkeypatch.setattr(limits, "most_machines", lambda: most)
    found = doctor._memory()
    assert found.status == status
    assert found.detail == f"{available} of 16000 MiB are available: {machines} machines of 256 MiB"


@pytest.mark.parametrize(("hard", "status"), [(100, "note"), (4096, "ok")])
def test_few_open_files_are_a_note(monkeypatch, hard, status):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (hard, hard))
    found = doctor._open_files()
    assert found.status == status
    assert found.detail.startswith(f"{hard} at most")


def test_nowhere_to_keep_sockets_is_bad(monkeypatch):
    monkeypatch.setattr(rundir, "base", raising(FailedPrecondition("no folder is short enough")))
    found = doctor._leftovers()
    assert (found.status, found.detail) == ("bad", "no folder is short enough")
    assert "XDG_RUNTIME_DIR or TMPDIR" in found.remedy


def test_what_is_left_behind_is_counted_and_swept_when_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(rundir, "base", lambda: tmp_path)
    monkeypatch.setattr(doctor, "templates_dir", lambda: tmp_path / "templates")
    monkeypatch.setattr(caps, "leftovers", list)  # of all that use this host
    left = tmp_path / "4194304-1-dead"  # no process has that number: pid_max is at most that
    left.mkdir()
    found = doctor._leftovers()
    assert (found.status, found.remedy.partition(";")[0]) == ("note", "sandbox-nb doctor --fix")
    assert "1 left by processes that were killed" in found.detail
    doctor._fix()
    assert not left.exists()
    assert doctor._leftovers() == Finding("run folder", "ok", f"{tmp_path}, nothing left behind")
