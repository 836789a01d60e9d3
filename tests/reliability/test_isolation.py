"""Who may look into a machine: nobody but who started it. Root's QEMU is nobody who owns anything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support import descendants, qemu_as_who_we_are

from sandbox_nb import Disk, FailedPrecondition, Filesystem, Sandbox
from sandbox_nb.vm import users, virtiofsd

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else"),
]

STRANGER = 54_321

LOOK = r"""
import os, socket, sys
def look(what, path):
    try:
        if what == "connect":
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
        elif what == "list":
            os.listdir(path)
        else:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return
    print(what, path)
uid = int(sys.argv[1])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
for line in sys.stdin.read().splitlines():
    look(*line.split("\t"))
"""


def seen_by(uid, wanted):
    """What of (verb, path) pairs a process of the user can do."""
    words = "\n".join("\t".join(map(str, pair)) for pair in wanted)
    # Python itself may lie where the user may not look.
    looking = [sys.executable, "-I", "-S", "-c", LOOK, str(uid)]
    done = subprocess.run(looking, input=words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def qemu(sandbox):
    (pid,) = descendants(sandbox.asynchronous._life.running.machine.child.pid)
    return pid


def device(sandbox):
    (pid,) = descendants(sandbox.asynchronous._life.running.link.device.pid)
    return pid


def ids(pid):
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: lines[name].split() for name in ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "NoNewPrivs")}


@pytest.mark.parametrize("warm", [False, True])
def test_roots_qemu_and_vsock_device_run_as_a_user_of_their_own(warm):
    with Sandbox.started(warm=warm) as one, Sandbox.started(warm=warm) as two:
        for sandbox in (one, two):
            given_up, qemus = ids(device(sandbox)), ids(qemu(sandbox))
            assert {**given_up, "NoNewPrivs": None} == {**qemus, "NoNewPrivs": None}
            with sandbox.trace() as lens:
                sandbox.run("true", check=True)
                assert lens.crossings(layers=["vsock"]), "its packets are seen, in a file it could not make"
        found = [ids(qemu(sandbox)) for sandbox in (one, two)]
        for who in found:
            uids = set(who["Uid"])
            assert len(uids) == 1
            assert any(int(next(iter(uids))) in ids for ids in users.RANGES)
            assert (who["Gid"], who["Groups"]) == (who["Uid"], [])
            assert {int(who[name][0], 16) for name in ("CapEff", "CapPrm")} == {0}
            assert who["NoNewPrivs"] == ["1"], "set by its seccomp sandbox"
        assert found[0]["Uid"] != found[1]["Uid"]


@pytest.fixture
def open_folder():
    """A folder that all may list and enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_nobody_else_can_connect_read_or_look_in(open_folder):
    state = open_folder
    with Sandbox.started(state_dir=state) as sandbox:
        sandbox.run("echo secret > /dev/console", check=True)
        running, pid = sandbox.asynchronous._life.running, qemu(sandbox)
        folder = running.machine._attachments._host.folder
        sockets = [path for path in folder.rglob("*") if path.is_socket()]
        assert len(sockets) >= 2
        wanted = [
            ("list", state),
            ("list", folder),
            ("list", folder.parent),
            *(("connect", path) for path in sockets),
            *(("read", path) for path in state.iterdir()),
            ("read", Path(f"/proc/{os.getpid()}/fd/{running.machine._ram}")),
            ("read", Path(f"/proc/{pid}/mem")),
            *(("read", path) for path in Path(f"/proc/{pid}/fd").iterdir()),
            ("read", Path(f"/proc/{device(sandbox)}/mem")),
            *(("read", path) for path in Path(f"/proc/{device(sandbox)}/fd").iterdir()),
        ]
        known = [pair for pair in wanted if pair[0] == "list" or pair[1].parent == state]
        assert len(seen_by(0, known)) == len(known) >= 5, "the way to look is a way to see"
        assert seen_by(STRANGER, wanted) == [f"list {state}"]
        as_qemu = seen_by(int(ids(pid)["Uid"][0]), wanted)
        assert not [line for line in as_qemu if str(state) in line and line != f"list {state}"]
        assert not [line for line in as_qemu if str(folder.parent) in line]


def test_what_the_vsock_device_says_is_in_the_folder_for_logs(tmp_path):
    with Sandbox.started(state_dir=tmp_path) as sandbox:
        path = sandbox.asynchronous._life.running.machine._attachments._host.folder / "vhost"
        with socket.socket(socket.AF_UNIX) as second:
            second.connect(str(path))
            assert second.recv(1) == b""
        log = tmp_path / "device.log"
        assert log.stat().st_mode & 0o777 == 0o600
    assert "a second front end was refused" in log.read_text()


def test_a_disk_that_is_roots_alone_is_read_and_written(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"host".ljust(1 << 20, b"\0"))
    image.chmod(0o600)
    tmp_path.chmod(0o700)
    with Sandbox.started(disks=[Disk("d", image)]) as sandbox:
        device = sandbox.devices()[0].guest
        assert sandbox.run(f"head -c 4 {device}").stdout == "host"
        sandbox.run(f"echo guest > {device} && sync", check=True)
    assert image.read_bytes().startswith(b"guest\n")
    assert image.stat().st_uid == 0


def test_a_vmdk_of_several_files_has_to_be_open_to_all_and_says_how_else(open_folder):
    """QEMU opens its extents by name, and can be handed none of them."""
    disk = open_folder / "a disk.vmdk"
    make = ["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", disk, "1M"]
    subprocess.run(make, check=True)
    (extent,) = set(open_folder.iterdir()) - {disk}
    with Sandbox.started() as sandbox:
        for secret in (extent, disk):
            for path in (extent, disk):
                path.chmod(0o600 if path == secret else 0o666)
            with pytest.raises(
                FailedPrecondition, match=f"{secret.name}.*qemu-img convert -O qcow2 '{disk}' a disk"
            ):
                sandbox.attach(Disk("d", disk, backing=[extent]))
            assert sandbox.devices() == ()
        secret.chmod(0o666)
        device = sandbox.attach(Disk("d", disk, backing=[extent])).guest
        sandbox.run(f"echo guest > {device} && sync && grep -q guest {device}", check=True)


def test_files_to_boot_that_are_roots_alone_are_booted(tmp_path):
    """An umask of 077 makes them so."""
    with Sandbox.started() as sandbox:
        image = sandbox.asynchronous._life.running.image
    modes = {path: path.stat().st_mode for path in (image.kernel, image.initrd)}
    try:
        for path in modes:
            path.chmod(0o600)
        with Sandbox.started(warm=False) as sandbox:
            assert ids(qemu(sandbox))["Uid"][0] != "0"
            assert sandbox.run("echo up").stdout == "up\n"
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def test_a_share_is_roots_through_virtiofsd_also_read_only(tmp_path):
    (tmp_path / "deep").mkdir(mode=0o700)
    (tmp_path / "deep/file").write_text("roots alone")
    (tmp_path / "deep/file").chmod(0o600)
    with Sandbox.started() as sandbox:
        running = sandbox.asynchronous._life.running
        folder, guard = running.machine._attachments._host.folder, running.machine._attachments._host.guard
        if sandbox.runner.wait(virtiofsd.find(folder, guard)) is None:
            pytest.skip("no virtiofsd works here")
        for readonly in (False, True):
            attached = sandbox.attach(Filesystem("s", tmp_path, readonly=readonly))
            assert attached.how == "virtiofs"
            assert sandbox.run("cat /mnt/s/deep/file").stdout == "roots alone"
            # The host holds it, whatever the guest mounts it as.
            sandbox.run("mount -o remount,rw /mnt/s")
            wrote = sandbox.run("echo guest > /mnt/s/deep/new").returncode == 0
            assert wrote is not readonly
            assert (tmp_path / "deep/new").exists() is not readonly
            (tmp_path / "deep/new").unlink(missing_ok=True)
            sandbox.detach("s")


def test_where_only_9p_is_left_qemu_stays_roots_and_says_so(tmp_path, monkeypatch):
    async def none(folder, guard):
        return None

    monkeypatch.setattr(virtiofsd, "find", none)
    (tmp_path / "file").write_text("roots alone")
    tmp_path.chmod(0o700)
    with Sandbox.started(filesystems=[Filesystem("s", tmp_path)]) as sandbox:
        assert "QEMU runs as root: a folder is shared through 9p" in sandbox.boot.note
        assert ids(qemu(sandbox))["Uid"] == ["0"] * 4
        assert sandbox.run("cat /mnt/s/file").stdout == "roots alone"
    with Sandbox.started() as sandbox:
        with pytest.raises(FailedPrecondition, match="not open to all.*give the share at the start"):
            sandbox.attach(Filesystem("s", tmp_path))
        assert sandbox.devices() == ()


def test_why_qemu_stays_roots_is_known(tmp_path, monkeypatch):
    table = tmp_path / "map"
    table.write_text("         0     100000      65536\n")
    assert users._mapped(table) == users.RANGES[1], "a container's user namespace"
    table.write_text("         0       1000          1\n")
    assert users._mapped(table) is None
    device = tmp_path / "kvm"
    device.touch()
    os.chown(device, 0, 123)
    device.chmod(0o660)
    monkeypatch.setattr(users, "KVM", device)
    assert users.obstacle("kvm") is None
    assert users.for_machine("kvm").gid == 123
    os.chown(device, 0, 0)
    assert "is for root alone" in users.obstacle("kvm")
    assert users.obstacle("tcg") is None


def test_a_crash_leaves_no_core_with_the_guests_memory(tmp_path):
    with Sandbox.started() as sandbox:
        limits = Path(f"/proc/{qemu(sandbox)}/limits").read_text()
        (line,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert line.split()[4:6] == ["0", "0"]


def test_the_one_who_shares_through_9p_can_be_asked_for(tmp_path):
    """What the other tests of 9p rely on."""
    with Sandbox("root") as sandbox:
        with qemu_as_who_we_are():
            sandbox.start()
        assert ids(qemu(sandbox))["Uid"] == ["0"] * 4
