"""Disks that come to a real machine and go: what the guest has is what the host has."""

from __future__ import annotations

import hashlib
import os
import subprocess

import pytest

from sandbox_nb.devices import Disk, DiskFlags
from sandbox_nb.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

pytestmark = pytest.mark.vm

MIB = 1 << 20


def qemu_img(*arguments):
    subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, check=True)


def content_of(image, kind):
    raw = image.with_suffix(".out")
    qemu_img("convert", "-f", kind, "-O", "raw", image, raw)
    data = raw.read_bytes()
    raw.unlink()
    return data


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_bytes_written_on_either_side_are_found_on_the_other(machine, tmp_path, kind):
    source, image = tmp_path / "source", tmp_path / "image"
    source.write_bytes(os.urandom(4 * MIB))
    qemu_img("convert", "-f", "raw", "-O", kind, source, image)
    attached = machine.attach(Disk("data", image))
    assert (attached.kind, attached.how, attached.name) == ("disk", kind, "data")
    disk = machine.disk("data")
    assert machine.sh(f"sha256sum < {disk}").split()[0] == hashlib.sha256(source.read_bytes()).hexdigest()
    written = os.urandom(MIB)
    machine.sh(f"dd of={disk} bs=64k seek=16 conv=notrunc,fsync 2>&1", input=written)
    machine.detach("data")
    assert content_of(image, kind) == source.read_bytes()[:MIB] + written + source.read_bytes()[2 * MIB :]


def test_a_vmdk_is_read_and_written(machine, tmp_path):
    source, image = tmp_path / "source", tmp_path / "image"
    source.write_bytes(os.urandom(2 * MIB))
    qemu_img("convert", "-f", "raw", "-O", "vmdk", source, image)
    for flags in (DiskFlags.VMDK | DiskFlags.READONLY, DiskFlags.NONE):
        assert machine.attach(Disk("v", image, flags)).how == "vmdk"
        disk = machine.disk("v")
        assert machine.sh(f"sha256sum < {disk}").split()[0] == hashlib.sha256(source.read_bytes()).hexdigest()
        machine.detach("v")


def test_read_only_is_held_by_the_host(machine, tmp_path):
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", image, "8M")
    before = image.read_bytes()
    machine.attach(Disk("ro", image, DiskFlags.READONLY))
    disk = machine.disk("ro")
    assert machine.sh(f"cat /sys/block/{disk[5:]}/ro") == "1"
    assert machine.sandbox.run(f"blockdev --setrw {disk}; echo x > {disk}; sync").stderr
    machine.detach("ro")
    assert image.read_bytes() == before


def test_what_the_guest_frees_the_host_gets_back(machine, tmp_path):
    image = tmp_path / "image"
    machine.attach(Disk("d", image, size="64M", format="ext4"))
    disk = machine.disk("d")
    machine.sh(f"mount {disk} /mnt && head -c 33554432 /dev/urandom > /mnt/f && sync")
    full = image.stat().st_blocks
    machine.sh("rm /mnt/f && sync && fstrim /mnt && umount /mnt")
    machine.detach("d")
    assert image.stat().st_blocks < full / 2


def test_a_chain_is_read_where_every_file_is_allowed(machine, tmp_path):
    base, image = tmp_path / "base", tmp_path / "image"
    base.write_bytes(os.urandom(MIB))
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "raw", image)
    with pytest.raises(InvalidArgument, match="backing file"):
        machine.attach(Disk("c", image))
    machine.attach(Disk("c", image, backing=[base]))
    disk = machine.disk("c")
    assert machine.sh(f"sha256sum < {disk}").split()[0] == hashlib.sha256(base.read_bytes()).hexdigest()
    machine.sh(f"echo changed > {disk} && sync")
    machine.detach("c")
    assert content_of(image, "qcow2")[:8] == b"changed\n"
    assert not base.read_bytes().startswith(b"changed")


def test_one_writable_disk_has_one_machine(machine, tmp_path):
    image, tools = tmp_path / "image", tmp_path / "shared"
    for path in (image, tools):
        qemu_img("create", "-f", "qcow2", path, "8M")
    machine.attach(Disk("mine", image))
    with pytest.raises(FailedPrecondition, match="in use"):
        machine.attach(Disk("again", image))
    with pytest.raises(FailedPrecondition, match="in use"):
        machine.attach(Disk("reader", image, DiskFlags.READONLY))
    machine.attach(Disk("one", tools, DiskFlags.READONLY))
    machine.attach(Disk("two", tools, DiskFlags.READONLY))
    assert [device.name for device in machine.machine.devices] == ["mine", "one", "two"]


def test_what_was_made_for_a_disk_that_did_not_come_is_gone(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(machine.machine._ports, "_free", [])
    with pytest.raises(ResourceExhausted, match="no root port is free"):
        machine.attach(Disk("d", tmp_path / "image", size="8M"))
    assert list(tmp_path.iterdir()) == []
    nodes = machine.wait(machine.machine.execute("query-named-block-nodes"))
    assert not [node for node in nodes if node["node-name"].startswith("disk")]


def test_names_are_taken_once_and_known(machine, tmp_path):
    machine.attach(Disk("d", tmp_path / "image", size="8M"))
    with pytest.raises(AlreadyExists, match="'d'"):
        machine.attach(Disk("d", tmp_path / "other", size="8M"))
    with pytest.raises(NotFound, match="'e' is not attached; attached is d"):
        machine.detach("e")
    machine.detach("d")
    with pytest.raises(NotFound, match="attached is nothing"):
        machine.detach("d")


def test_sixteen_ports_are_the_most_and_said(machine, tmp_path):
    qemu_img("create", "-f", "qcow2", tmp_path / "image", "8M")
    names = [f"d{index}" for index in range(15)]  # the vsock device has one
    for name in names:
        machine.attach(Disk(name, tmp_path / "image", DiskFlags.READONLY))
    with pytest.raises(ResourceExhausted, match="a machine has 16, of which vsock takes one"):
        machine.attach(Disk("d15", tmp_path / "image", DiskFlags.READONLY))
    assert [device.name for device in machine.machine.devices] == names
    machine.disk(names[-1])
    assert int(machine.sh("ls -d /sys/block/vd* | wc -l")) == 15
    machine.detach(names[3])
    machine.attach(Disk("last", tmp_path / "image", DiskFlags.READONLY))
    machine.disk("last")


def test_a_guest_that_does_not_let_go_is_waited_for_in_bounds(machine, tmp_path):
    """Paused, it cannot answer. Once it can, the same call succeeds."""
    machine.attach(Disk("d", tmp_path / "image", size="8M"))
    machine.disk("d")
    machine.wait(machine.machine.pause())
    try:
        with pytest.raises(DeadlineExceeded, match="within 0.3 s, and it is still attached"):
            machine.wait(machine.machine.detach("d", timeout=0.3))
        assert [device.name for device in machine.machine.devices] == ["d"]
    finally:
        machine.wait(machine.machine.resume())
    machine.detach("d")
    assert machine.machine.devices == []


@pytest.mark.parametrize("block_id", ["ü" * 10, "a,b=\"c\\d'$e", "x" * 20])
def test_any_block_id_is_the_serial_number(machine, tmp_path, block_id):
    machine.attach(Disk(block_id, tmp_path / "image", size="8M"))
    machine.until("ls /sys/block/vda/serial >/dev/null 2>&1")
    assert machine.sandbox.read("/sys/block/vda/serial").rstrip(b"\0\n") == block_id.encode()


@pytest.fixture
def small(tmp_path):
    """A folder of the host with room for 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "small", folder], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_of_the_host_is_an_error_of_the_guests_disk(machine, small):
    machine.attach(Disk("d", small / "image", size="64M"))
    disk = machine.disk("d")
    done = machine.sandbox.run(f"dd if=/dev/urandom of={disk} bs=1M count=16 conv=fsync", timeout=60)
    assert done.returncode != 0
    assert machine.sh("echo lives") == "lives"
    machine.detach("d")
