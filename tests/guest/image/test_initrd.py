"""What the initial file system holds, and where."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from sandbox_nb.errors import InvalidArgument
from sandbox_nb.guest import initrd, modules

from . import fakes


def test_every_applet_is_found_in_the_binary_without_running_it():
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("busybox is not installed")
    listed = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    with open(program, "rb") as file:
        assert initrd.applets(file.read()) == sorted({*listed} - {"busybox"})


@pytest.mark.parametrize("data", [b"", b"\x7fELF" + bytes(1000), b"\0[\0[[\0ls\0\0"])
def test_what_is_no_busybox_is_refused(data):
    with pytest.raises(InvalidArgument, match="no table of applets"):
        initrd.applets(data)


def entries(tmp_path):
    """Return the initrd unpacked by GNU cpio."""
    selection = modules.select(fakes.modules_tree(), fakes.RELEASE, signed=False)
    for archive in (initrd.system_archive(fakes.busybox("ls"), selection), initrd.agent_archive(b"the agent")):
        subprocess.run(["cpio", "-i", "--quiet"], input=archive, cwd=tmp_path, check=True)
    return tmp_path, selection


@pytest.mark.skipif(shutil.which("cpio") is None, reason="GNU cpio is not installed")
def test_the_initrd_is_laid_out_as_the_agent_and_modprobe_expect(tmp_path):
    root, selection = entries(tmp_path)
    assert (root / "init").read_bytes() == b"the agent"
    for program in ("bin/sh", "sbin/modprobe", "usr/bin/ls", "usr/sbin/modprobe"):
        assert (root / program).resolve() == root / "bin/busybox"
    boot = (root / "etc/sandbox_nb/modules.boot").read_text().splitlines()
    late = (root / "etc/sandbox_nb/modules.late").read_text().splitlines()
    assert [path.split("/")[-1] for path in boot[:2]] == ["virtio_ring.ko", "virtio.ko"]
    assert len(boot) == len(selection.boot)
    for path in boot + late:
        assert path.startswith(f"/lib/modules/{fakes.RELEASE}/kernel/")
        assert (root / path[1:]).is_file()
    for line in (root / f"lib/modules/{fakes.RELEASE}/modules.dep").read_text().splitlines():
        assert (root / f"lib/modules/{fakes.RELEASE}" / line.split(":")[0]).is_file()
    assert (root / f"lib/modules/{fakes.RELEASE}/modules.builtin").read_text() == fakes.BUILTIN
    assert (root / "root").stat().st_mode & 0o777 == 0o700
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert "user:x:1000:1000" in (root / "etc/passwd").read_text()
    assert (root / "etc/resolv.conf").read_text() == ""


def test_a_new_agent_changes_only_the_second_archive():
    selection = modules.select(fakes.modules_tree(), fakes.RELEASE, signed=False)
    one = initrd.system_archive(fakes.busybox("ls"), selection)
    assert one == initrd.system_archive(fakes.busybox("ls"), selection)
    assert initrd.agent_archive(b"1") != initrd.agent_archive(b"2")
