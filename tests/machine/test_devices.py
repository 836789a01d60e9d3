"""Disks, shares and network cards: what was asked for is found inside, at a start and in a running machine."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

import pytest

from sandbox_nb import (
    AlreadyExists,
    Disk,
    DiskFlags,
    FailedPrecondition,
    Filesystem,
    InvalidArgument,
    NotFound,
    Sandbox,
    UserNIC,
)

SIZE = 8 << 20


@pytest.fixture
def secret():
    return secrets.token_hex(16)


@pytest.fixture(params=["cold", "hot"])
def give(request):
    """Gives a machine some devices: when it starts, or later. ``give(device, …)`` returns the running machine."""
    sandbox = Sandbox("devices")

    def give(*devices):
        if request.param == "hot":
            sandbox.start()
            for device in devices:
                sandbox.attach(device)
            return sandbox
        disks = [device for device in devices if isinstance(device, Disk)]
        filesystems = [device for device in devices if isinstance(device, Filesystem)]
        nics = [device for device in devices if isinstance(device, UserNIC)]
        sandbox.start(disks=disks, filesystems=filesystems, nics=nics)
        return sandbox

    with sandbox:
        yield give


def image(path, kind, content=b""):
    """A disk image of ``SIZE`` bytes that begins with ``content``."""
    raw = path.with_suffix(".content")
    raw.write_bytes(content)
    os.truncate(raw, SIZE)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, raw, path], check=True)
    return path


def content(path, kind, length):
    """The first bytes of an image, as qemu-img reads them."""
    command = ["qemu-img", "dd", "-f", kind, "-O", "raw", "bs=512", "count=1", f"if={path}", f"of={path}.out"]
    subprocess.run(command, check=True, capture_output=True)
    return path.with_name(path.name + ".out").read_bytes()[:length]


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_what_the_host_wrote_is_read_and_what_the_guest_writes_is_found(give, tmp_path, secret, kind):
    disk = image(tmp_path / f"disk.{kind}", kind, secret.encode())
    answer = secrets.token_hex(16)
    sandbox = give(Disk("data", disk))
    device = "/dev/disk/by-id/virtio-data"
    assert sandbox.run(f"head -c 32 {device}", check=True).stdout == secret
    assert sandbox.run(f"blockdev --getsize64 {device}", check=True).stdout == f"{SIZE}\n"
    sandbox.run(f"printf %s {answer} | dd of={device} conv=notrunc,fsync", check=True)
    sandbox.stop()
    assert content(disk, kind, 32) == answer.encode()


def test_a_vmdk_is_read(give, tmp_path, secret):
    disk = image(tmp_path / "disk.vmdk", "vmdk", secret.encode())
    sandbox = give(Disk("old", disk, DiskFlags.VMDK))
    assert sandbox.run("head -c 32 /dev/disk/by-id/virtio-old", check=True).stdout == secret
    assert [device.how for device in sandbox.devices()] == ["vmdk"]


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_read_only_disk_refuses_what_is_written(give, tmp_path, secret, kind):
    disk = image(tmp_path / "disk", kind, secret.encode())
    before = disk.read_bytes()
    sandbox = give(Disk("ro", disk, DiskFlags.READONLY))
    assert sandbox.run("head -c 32 /dev/disk/by-id/virtio-ro").stdout == secret
    assert sandbox.run("cat /sys/block/vda/ro").stdout == "1\n"
    assert sandbox.run("echo x > /dev/disk/by-id/virtio-ro").returncode != 0
    sandbox.stop()
    assert disk.read_bytes() == before


def test_a_new_disk_is_made_formatted_mounted_and_keeps_its_files(give, tmp_path, secret):
    disk = tmp_path / "new.qcow2"
    sandbox = give(Disk("home", disk, size="64M", format="ext4", target="/home/me"))
    sandbox.run(f"echo {secret} > /home/me/file", check=True)
    sandbox.stop()
    sandbox.start(disks=[Disk("home", disk, size="64M", format="ext4", target="/other")])
    assert sandbox.read("/other/file") == f"{secret}\n".encode()


def test_a_writable_disk_has_one_machine(tmp_path):
    disk = image(tmp_path / "disk", "qcow2")
    with Sandbox.started(disks=[Disk("one", disk)]), Sandbox() as second:
        with pytest.raises(FailedPrecondition, match="in use, by another machine"):
            second.start(disks=[Disk("two", disk)])
        second.start()


def test_read_only_disks_are_shared(tmp_path, secret):
    disk = image(tmp_path / "disk", "qcow2", secret.encode())
    same = [Disk("same", disk, DiskFlags.READONLY)]
    with Sandbox.started(disks=same) as one, Sandbox.started(disks=same) as two:
        for sandbox in (one, two):
            assert sandbox.run("head -c 32 /dev/disk/by-id/virtio-same").stdout == secret


def test_a_share_shows_each_side_what_the_other_writes(give, tmp_path, secret):
    (tmp_path / "from_host").write_text(secret)
    sandbox = give(Filesystem("work", tmp_path))
    assert sandbox.run("cat /mnt/work/from_host", check=True).stdout == secret
    (tmp_path / "from_host").write_text("changed")
    assert sandbox.run("cat /mnt/work/from_host", check=True).stdout == "changed"
    sandbox.run(f"echo {secret} > /mnt/work/from_guest", check=True)
    found = tmp_path / "from_guest"
    assert found.read_text() == f"{secret}\n"
    assert (found.stat().st_uid, found.stat().st_gid) == (os.getuid(), os.getgid())


def test_a_read_only_share_stays_as_it_is(give, tmp_path, secret):
    (tmp_path / "file").write_text(secret)
    sandbox = give(Filesystem("ro", tmp_path, readonly=True, target="/srv/data"))
    assert sandbox.read("/srv/data/file") == secret.encode()
    for attempt in ("echo x > /srv/data/file", "rm /srv/data/file", "mkdir /srv/data/new"):
        assert sandbox.run(attempt).returncode != 0
    # Also when the guest says otherwise: the host holds it.
    sandbox.run("mount -o remount,rw /srv/data; echo x > /srv/data/file; rm /srv/data/file")
    assert (tmp_path / "file").read_text() == secret
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_nothing_outside_a_share_is_read(give, tmp_path, secret):
    """Links are resolved in the guest, and dots do not climb."""
    (tmp_path / "secret").write_text(secret)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "absolute").symlink_to(tmp_path / "secret")
    (shared / "relative").symlink_to("../secret")
    (shared / "up").symlink_to("..")
    sandbox = give(Filesystem("s", shared))
    for path in ("absolute", "relative", "up/secret", "../secret", "./../secret"):
        assert secret not in sandbox.run(f"cat /mnt/s/{path}").stdout
    sandbox.run("ln -s ../secret /mnt/s/made; ln -s ../../../../../../../etc/passwd /mnt/s/passwd")
    assert secret not in sandbox.run("cat /mnt/s/made").stdout
    assert sandbox.run("cat /mnt/s/passwd").stdout != Path("/etc/passwd").read_text()


def test_a_card_has_its_name_its_address_and_the_mac_that_was_asked_for(give):
    sandbox = give(UserNIC(name="lan", mac="02:00:00:aa:bb:cc"))
    assert sandbox.run("cat /sys/class/net/lan/address").stdout == "02:00:00:aa:bb:cc\n"
    assert "inet 10.0.2.15/24" in sandbox.run("ip addr show lan").stdout
    assert "default via 10.0.2.2 dev lan" in sandbox.run("ip route").stdout
    assert sandbox.run("ping -c 1 -W 5 10.0.2.2").returncode == 0
    (device,) = sandbox.devices()
    assert device.guest.split()[:2] == ["lan", "10.0.2.15/24"]


def test_without_a_card_there_is_no_network():
    with Sandbox.started() as sandbox:
        assert sandbox.run("ls /sys/class/net").stdout == "lo\n"


def test_network_user_is_one_card():
    with Sandbox.started(network="user") as sandbox:
        assert sandbox.run("ls /sys/class/net").stdout.split() == ["lo", "net0"]
        assert sandbox.run("ping -c 1 -W 5 10.0.2.2").returncode == 0


def test_all_kinds_at_once_are_a_table(give, tmp_path):
    disk = image(tmp_path / "disk", "qcow2")
    sandbox = give(Disk("d", disk), Filesystem("f", tmp_path), UserNIC())
    devices = sandbox.devices()
    assert [(device.name, device.kind) for device in devices] == [("d", "disk"), ("f", "share"), ("net0", "nic")]
    assert str(devices).splitlines()[0].split() == ["name", "kind", "how", "host", "guest"]
    assert "<td>net0</td>" in devices._repr_html_()
    for device in devices:
        sandbox.detach(device.name)
    assert str(sandbox.devices()) == "no devices"
    assert sandbox.run("ls /sys/block | grep vd; ls /sys/class/net; mount | grep /mnt").stdout == "lo\n"


def test_a_disk_in_use_is_not_detached_and_says_by_whom(tmp_path):
    disk = tmp_path / "disk.qcow2"
    with Sandbox.started(disks=[Disk("d", disk, size="64M", format="ext4", target="/data")]) as sandbox:
        with sandbox.popen("cd /data && exec sleep 100") as process:
            process.stdin.close()
            sandbox.run(f"until grep -qx sleep /proc/{process.pid}/comm; do sleep 0.1; done")
            with pytest.raises(FailedPrecondition, match=r"/data is in use by process \d+ \(sleep\)"):
                sandbox.detach("d")
        assert [device.name for device in sandbox.devices()] == ["d"]
        sandbox.detach("d")


def test_a_disk_is_unmounted_from_wherever_its_user_has_mounted_it(tmp_path):
    disk = tmp_path / "disk.qcow2"
    with Sandbox.started(disks=[Disk("d", disk, size="64M", format="ext4")]) as sandbox:
        assert [device.guest for device in sandbox.devices()] == ["/dev/vda"]
        by_hand = (
            "mkdir '/a b' /c && mount /dev/disk/by-id/virtio-d '/a b' && mount --bind '/a b' /c && echo x > /c/f"
        )
        sandbox.run(by_hand, check=True)
        sandbox.detach("d")
        assert sandbox.run("mount | grep vda").stdout == ""
        sandbox.attach(Disk("d", disk, target="/d"))
        assert sandbox.read("/d/f") == b"x\n"


def test_what_cannot_be_had_leaves_the_machine_as_it_was(tmp_path):
    disk = image(tmp_path / "disk", "qcow2")
    with Sandbox.started(disks=[Disk("d", disk)]) as sandbox:
        before = sandbox.devices()
        for device, error in (
            (Disk("d", disk), AlreadyExists),
            (Disk("missing", tmp_path / "missing"), NotFound),
            (Disk("folder", tmp_path), InvalidArgument),
            (Disk("unmountable", image(tmp_path / "empty", "qcow2"), target="/data"), FailedPrecondition),
            (Filesystem("f", disk), InvalidArgument),
            (Filesystem("f", tmp_path / "missing"), NotFound),
            (UserNIC(mac="01:00:00:00:00:00"), InvalidArgument),
        ):
            with pytest.raises(error):
                sandbox.attach(device)
            assert sandbox.devices() == before
        with pytest.raises(NotFound, match="attached is d"):
            sandbox.detach("nobody")
        assert sandbox.run("ls /sys/block | grep vd").stdout == "vda\n"
        assert not (tmp_path / "missing").exists()


def test_two_devices_never_have_one_address_or_one_place(tmp_path):
    mac = "02:00:00:00:00:0a"
    with Sandbox.started(nics=[UserNIC(mac=mac)], filesystems=[Filesystem("one", tmp_path)]) as sandbox:
        before = sandbox.devices()
        for device in (UserNIC(mac=mac.upper()), Filesystem("two", tmp_path, target="/mnt//one/")):
            with pytest.raises(AlreadyExists, match="would both have"):
                sandbox.attach(device)
        assert sandbox.devices() == before


def test_a_start_that_fails_removes_the_image_it_made(tmp_path):
    new = Disk("new", tmp_path / "new.qcow2", size="16M")
    with Sandbox() as sandbox:
        with pytest.raises(NotFound):
            sandbox.start(disks=[new, Disk("missing", tmp_path / "missing")])
        with pytest.raises(FailedPrecondition):  # it is empty, and the machine is up when that shows
            sandbox.start(disks=[new, Disk("empty", image(tmp_path / "e", "raw"), target="/data")])
        assert not (tmp_path / "new.qcow2").exists()


def test_a_folder_that_is_not_there_is_said_before_an_image_is_built(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    built = []
    with Sandbox() as sandbox, pytest.raises(NotFound, match=str(tmp_path / "missing")):
        sandbox.start(
            filesystems=[Filesystem("work", tmp_path / "missing")], progress=lambda *stage: built.append(stage)
        )
    assert built == []
    assert not (tmp_path / "cache").exists()


def test_devices_need_a_machine(tmp_path):
    with Sandbox() as sandbox:
        for verb in (sandbox.devices, lambda: sandbox.detach("d"), lambda: sandbox.attach(UserNIC())):
            with pytest.raises(FailedPrecondition, match="new"):
                verb()


def test_a_machine_that_stood_by_gets_its_devices_too(tmp_path, secret):
    from sandbox_nb import standby

    (tmp_path / "file").write_text(secret)
    with Sandbox.started(standby=1), Sandbox() as second:
        while not standby.ready():
            pass
        second.start(standby=1, filesystems=[Filesystem("f", tmp_path)])
        assert second.boot.kind == "standby"
        assert second.run("cat /mnt/f/file").stdout == secret


def run_rounds(tmp_path, rounds):
    disk, share = Disk("d", image(tmp_path / "disk", "qcow2")), Filesystem("f", tmp_path)
    with Sandbox.started() as sandbox:
        child = sandbox.asynchronous._life.running.machine.child

        def descriptors():
            return len(os.listdir(f"/proc/{child.pid}/fd")), len(os.listdir("/proc/self/fd"))

        sandbox.attach(share), sandbox.detach("f")  # what is opened once for all
        before = descriptors()
        for _ in range(rounds):
            for device in (disk, share, UserNIC()):
                sandbox.attach(device)
            for name in ("net0", "d", "f"):
                sandbox.detach(name)
        assert descriptors() == before
        assert str(sandbox.devices()) == "no devices"
        assert sandbox.run("ls /sys/class/net").stdout == "lo\n"


def test_attaching_and_detaching_over_and_over_leaks_nothing(tmp_path):
    run_rounds(tmp_path, 5)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_two_hundred_rounds_of_attaching_and_detaching_leak_nothing(tmp_path):
    run_rounds(tmp_path, 200)
