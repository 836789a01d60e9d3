"""The Mount service in a machine: disks and shares that have just been plugged, and what is on them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import struct
import subprocess

import pytest
import support
from devices import VIRTIOFSD, Disk, Share9p, ShareVirtiofs
from support import qemu_as_who_we_are

from sandbox_nb import AsyncSandbox, FailedPrecondition, NotFound
from sandbox_nb.guest.proto.mount_pb2 import MountAllRequest, MountSpec, UnmountRequest
from sandbox_nb.guest.proto.mount_ttrpc import MountClient

BY_ID = "/dev/disk/by-id/virtio-"


class Guest(support.Guest):
    """With the agent's service."""

    def __init__(self, sandbox, client):
        super().__init__(sandbox)
        self.mounts = MountClient(client)

    async def mount(self, source, target, *options, kind=""):
        spec = MountSpec(type=kind, source=source, target=target, options=options)
        await self.mounts.mount_all(MountAllRequest(mounts=[spec]))

    async def unmount(self, target):
        await self.mounts.unmount(UnmountRequest(target=target))


@contextlib.asynccontextmanager
async def started(**options):
    async with AsyncSandbox() as sandbox:
        with qemu_as_who_we_are():
            await sandbox.start(**options)
        yield Guest(sandbox, await sandbox.client())


@pytest.fixture
def ext4(tmp_path):
    """An image with an empty ext4 on it."""
    path = tmp_path / "ext4.img"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "file").write_text("words of the host")
    return path


@pytest.mark.parametrize("warm", ["on", "off"])
async def test_a_disk_is_mounted_the_moment_it_is_plugged_and_keeps_what_was_written(ext4, warm):
    async with started(warm=warm) as guest:
        for words in ("first", "second"):
            await guest.machine.attach("data", Disk(ext4, "data"))
            await guest.mount(f"{BY_ID}data", "/data", "noatime")
            assert " ext4 rw,noatime" in await guest.sh("grep ' /data ' /proc/mounts")
            await guest.sh(f"echo {words} >> /data/file")
            await guest.unmount("/data")
            await guest.machine.detach("data")
        await guest.machine.attach("data", Disk(ext4, "data", readonly=True))
        await guest.mount(f"{BY_ID}data", "/data", "ro")
        assert await guest.sh("cat /data/file") == "first\nsecond\n"


def partition(image, *parts):
    """Write a partition table as of a PC: each part's first sector and how many. Sector 0 is none of ext4's."""
    entries = [struct.pack("<B3xB3xII", 0, 0x83, start, count) for start, count in parts]
    with image.open("r+b") as file:
        file.seek(446)
        file.write(b"".join(entries).ljust(64, b"\0") + b"\x55\xaa")


async def test_disks_are_linked_to_by_serial_number_while_they_are_there(ext4, tmp_path):
    partition(ext4, (2048, 4096), (8192, 8192))
    shutil.copy(ext4, tmp_path / "other")
    async with started() as guest:
        await guest.machine.attach("one", Disk(ext4, "first disk/1"))
        await guest.machine.attach("two", Disk(tmp_path / "other", "x" * 20))
        links = ["virtio-first_disk_1", "virtio-first_disk_1-part1", "virtio-first_disk_1-part2"]
        links += [f"virtio-{'x' * 20}{part}" for part in ("", "-part1", "-part2")]
        wait = "while [ $(ls /dev/disk/by-id | wc -l) != %d ]; do sleep 0.05; done; ls /dev/disk/by-id"
        assert (await guest.sh(wait % 6)).split() == links
        device = (await guest.sh(f"basename $(readlink -f {BY_ID}first_disk_1-part2)")).strip()
        assert await guest.sh(f"cd /sys/class/block/{device}; cat partition ../serial") == "2\nfirst disk/1"
        await guest.machine.detach("one")
        assert (await guest.sh(wait % 3)).split() == links[3:]


async def test_it_waits_for_what_is_plugged_later(ext4, folder):
    async with started() as guest:
        call = asyncio.create_task(
            guest.mounts.mount_all(
                MountAllRequest(
                    mounts=[
                        MountSpec(type="9p", source="share", target="/mnt/share", options=["version=9p2000.L"]),
                        MountSpec(source=f"{BY_ID}late", target="/mnt/share/../disk"),
                    ]
                )
            )
        )
        await asyncio.sleep(0.3)
        await guest.machine.attach("share", Share9p(folder, "share"))
        await asyncio.sleep(0.3)
        assert not call.done()
        await guest.machine.attach("late", Disk(ext4, "late"))
        await call
        assert await guest.sh("cat /mnt/share/file") == "words of the host"
        assert "lost+found" in await guest.sh("ls /mnt/disk")


@pytest.mark.parametrize("warm", ["on", "off"])
async def test_a_share_through_9p_is_read_and_written(folder, warm):
    async with started(warm=warm) as guest:
        await guest.machine.attach("share", Share9p(folder, "share"))
        await guest.mount("share", "/mnt/share", kind="9p")
        await guest.sh("cat /mnt/share/file && echo of the guest > /mnt/share/new")
        assert (folder / "new").read_text() == "of the guest\n"
        await guest.unmount("/mnt/share")
        await guest.machine.detach("share")


async def test_a_share_through_virtiofs_is_waited_for(folder):
    if not VIRTIOFSD.exists() or os.geteuid() != 0:
        pytest.skip(f"no {VIRTIOFSD}, or not root, without whom that one ends at once")
    async with started() as guest:
        call = asyncio.create_task(guest.mount("share", "/mnt/share", kind="virtiofs"))
        await asyncio.sleep(0.3)
        await guest.machine.attach("share", ShareVirtiofs(folder, "share"))
        await call
        assert await guest.sh("cat /mnt/share/file") == "words of the host"
        await guest.unmount("/mnt/share")
        await guest.machine.detach("share")


@pytest.mark.parametrize("kind", ["erofs", "squashfs", "iso9660"])
async def test_what_is_on_a_disk_is_found_out(folder, tmp_path, kind):
    image = tmp_path / "image"
    make = {
        "erofs": ["mkfs.erofs", image, folder],
        "squashfs": ["mksquashfs", folder, image, "-comp", "gzip"],
        "iso9660": ["xorriso", "-as", "mkisofs", "-R", "-o", image, folder],
    }[kind]
    if shutil.which(make[0]) is None:
        pytest.skip(f"no {make[0]}")
    subprocess.run(make, check=True, capture_output=True)
    async with started() as guest:
        await guest.machine.attach("image", Disk(image, "image", readonly=True))
        await guest.mount(f"{BY_ID}image", "/image", "ro", kind="auto")
        assert await guest.sh("cat /image/file") == "words of the host"
        assert f" {kind} " in await guest.sh("grep ' /image ' /proc/mounts")


async def test_a_rare_file_system_is_loaded_when_it_is_asked_for(ext4):
    async with started() as guest:
        assert "xfs" not in await guest.sh("cat /proc/filesystems")
        await guest.machine.attach("data", Disk(ext4, "data"))
        with pytest.raises(FailedPrecondition, match="holds no file system of that type"):
            await guest.mount(f"{BY_ID}data", "/data", kind="xfs")
        assert "xfs" in await guest.sh("cat /proc/filesystems")


async def test_an_empty_disk_and_one_that_is_read_only_are_told_what_to_do(ext4, tmp_path):
    (tmp_path / "empty").write_bytes(bytes(1 << 20))
    async with started() as guest:
        await guest.machine.attach("empty", Disk(tmp_path / "empty", "empty"))
        await guest.machine.attach("locked", Disk(ext4, "locked", readonly=True))
        with pytest.raises(FailedPrecondition, match="make a file system on it"):
            await guest.mount(f"{BY_ID}empty", "/empty")
        with pytest.raises(FailedPrecondition, match="no file system of that type"):
            await guest.mount(f"{BY_ID}empty", "/empty", kind="ext4")
        with pytest.raises(FailedPrecondition, match="option ro"):
            await guest.mount(f"{BY_ID}locked", "/locked")
        assert await guest.sh("ls -d /empty /locked 2>/dev/null || true") == ""


async def test_a_tag_that_never_comes_is_not_found():
    async with started() as guest:
        calls = [guest.mount("nothing", f"/mnt/{kind}", kind=kind) for kind in ("9p", "virtiofs")]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, NotFound)
            assert "no share of that tag has come within 10 s" in str(error)
        assert await guest.sh("ls /mnt") == ""


async def test_a_disk_in_use_is_not_unmounted_and_its_user_is_named(ext4):
    async with started() as guest:
        await guest.machine.attach("data", Disk(ext4, "data"))
        await guest.mount(f"{BY_ID}data", "/data")
        async with await guest.sandbox.popen("exec tail -f /dev/null >> /data/log") as process:
            await guest.sh("until grep -qx tail /proc/[0-9]*/comm; do sleep 0.05; done")
            with pytest.raises(FailedPrecondition, match=r"/data is in use by process \d+ \(tail\)"):
                await guest.unmount("/data")
            await process.kill()
            await process.wait()
        await guest.unmount("/data")
        await guest.machine.detach("data")


async def test_in_the_python_image_disks_appear_beneath_the_root_that_was_switched_to(ext4):
    async with started(image="python") as guest:
        assert f"{BY_ID}sandbox-root" in await guest.sh(f"ls {BY_ID}*")
        await guest.machine.attach("data", Disk(ext4, "data"))
        await guest.mount(f"{BY_ID}data", "/data")
        await guest.sh('python3 -c \'open("/data/file", "w").write("words")\'')
        assert " ext4 " in await guest.sh("grep ' /data ' /proc/mounts")
        await guest.unmount("/data")


async def test_rounds_of_plugging_and_mounting_leave_nothing(ext4):
    async with started() as guest:
        for _ in range(10):
            await guest.machine.attach("data", Disk(ext4, "data"))
            await guest.mount(f"{BY_ID}data", "/data")
            await guest.unmount("/data")
            await guest.machine.detach("data")
        assert await guest.sh("ls /dev/disk/by-id; ls /dev/vd* 2>/dev/null || true") == ""
