"""The Mount service, by an agent with a tree of its own. What needs a device is tested in a machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from sandbox_nb.guest.proto.mount_pb2 import MountAllRequest, MountSpec, UnmountRequest
from sandbox_nb.ttrpc import Code, StatusError

# Who is root in there by a mapping has no way into root's home: what runs says its cwd.
UNSHARE = ["unshare", "--mount", "--propagation", "private", *([] if os.geteuid() == 0 else ["--map-root-user"])]


@pytest.fixture
def launcher():
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespaces here: neither root, nor user namespaces")
    return UNSHARE


def tmpfs(target, *options):
    return MountSpec(type="tmpfs", source="tmpfs", target=str(target), options=options)


def bind(source, target, *options):
    return MountSpec(source=str(source), target=str(target), options=["bind", *options])


async def mount(agent, *specs, timeout=None):
    await agent.mounts.mount_all(MountAllRequest(mounts=specs), timeout=timeout)


async def unmount(agent, target):
    await agent.mounts.unmount(UnmountRequest(target=str(target)))


async def refused(call):
    with pytest.raises(StatusError) as info:
        await call
    return info.value


def mounted(agent, below):
    """What is mounted below a folder: target, type and options, in the order of the mounts."""
    lines = Path(f"/proc/{agent.child.pid}/mounts").read_text().splitlines()
    fields = (line.split() for line in lines)
    return [(target, kind, options.split(",")) for _, target, kind, options, *_ in fields if str(below) in target]


async def test_targets_are_made_and_mounted_on_in_order(agent, tmp_path):
    deep, inner = tmp_path / "a/b/c", tmp_path / "a/b/c/d/e"
    await mount(agent, tmpfs(deep), tmpfs(inner))
    assert [target for target, *_ in mounted(agent, tmp_path)] == [str(deep), str(inner)]


async def test_options_become_flags_and_the_rest_is_for_the_file_system(agent, tmp_path):
    await mount(agent, tmpfs(tmp_path, "nosuid,nodev", "", "noexec", "size=64k", "mode=700,ro"))
    ((_, kind, options),) = mounted(agent, tmp_path)
    assert kind == "tmpfs"
    assert {"ro", "nosuid", "nodev", "noexec", "size=64k", "mode=700"} <= set(options)


@pytest.mark.parametrize(
    ("given", "there", "missing"),
    [
        (["ro", "rw"], "rw", "ro"),
        (["ro", "defaults"], "rw", "ro"),
        (["noatime"], "noatime", "relatime"),
        (["noatime", "relatime"], "relatime", "noatime"),
        (["nosuid", "suid"], "rw", "nosuid"),
    ],
)
async def test_of_two_that_contradict_each_other_the_last_counts(agent, tmp_path, given, there, missing):
    await mount(agent, tmpfs(tmp_path, *given))
    ((_, _, options),) = mounted(agent, tmp_path)
    assert there in options
    assert missing not in options


async def test_a_folder_is_bound_read_only(agent, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "file").write_text("words")
    await mount(agent, bind(source, target, "ro"))
    assert agent.inside(target / "file").read_text() == "words"
    assert "Read-only" in (await agent.run("touch", str(target / "new"), cwd=b"/")).err.decode()
    assert (await agent.run("touch", str(source / "new"), cwd=b"/")).exit_code == 0


async def test_a_file_is_bound_to_a_file(agent, tmp_path):
    source, target = tmp_path / "source", tmp_path / "made/target"
    source.write_text("words")
    await mount(agent, bind(source, target))
    assert agent.inside(target).read_text() == "words"
    assert target.read_text() == ""


async def test_rbind_takes_what_is_mounted_beneath_and_bind_does_not(agent, tmp_path):
    source = tmp_path / "source"
    await mount(agent, tmpfs(source / "inner"))
    await mount(agent, bind(source, tmp_path / "flat"))
    await mount(agent, MountSpec(source=str(source), target=str(tmp_path / "deep"), options=["rbind", "rprivate"]))
    targets = [target for target, *_ in mounted(agent, tmp_path)]
    assert str(tmp_path / "deep/inner") in targets
    assert str(tmp_path / "flat/inner") not in targets


async def test_all_or_nothing(agent, tmp_path):
    missing = bind(tmp_path / "missing", tmp_path / "b/d")
    error = await refused(mount(agent, tmpfs(tmp_path / "a"), tmpfs(tmp_path / "a/deep"), missing))
    assert error.code == Code.NOT_FOUND
    assert error.message.startswith(f"mounts[2] ({tmp_path}/missing on {tmp_path}/b/d): ")
    assert mounted(agent, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


async def test_what_was_mounted_there_before_stays_when_a_mount_is_undone(agent, tmp_path):
    await mount(agent, tmpfs(tmp_path / "a", "size=64k"))
    await refused(mount(agent, tmpfs(tmp_path / "a"), bind(tmp_path / "missing", tmp_path / "b")))
    await refused(mount(agent, MountSpec(type="nosuchfs", source="x", target=str(tmp_path / "a"))))
    ((target, _, options),) = mounted(agent, tmp_path)
    assert target == str(tmp_path / "a")
    assert "size=64k" in options


async def test_a_call_out_of_time_is_undone_and_holds_up_nobody(agent, tmp_path):
    disk = MountSpec(source="/dev/disk/by-id/virtio-never", target=str(tmp_path / "disk"))
    call = asyncio.create_task(mount(agent, tmpfs(tmp_path / "a"), disk, timeout=1))
    await agent.eventually(lambda: mounted(agent, tmp_path))
    assert (await agent.run("echo", "on", cwd=b"/")).out == b"on\n"
    assert (await refused(call)).code == Code.DEADLINE_EXCEEDED
    await agent.eventually(lambda: not list(tmp_path.iterdir()))
    assert mounted(agent, tmp_path) == []


async def test_a_device_that_never_comes_is_named(agent, tmp_path):
    error = await refused(mount(agent, MountSpec(source="/dev/disk/by-id/virtio-never", target=str(tmp_path))))
    assert error.code == Code.NOT_FOUND
    assert "virtio-never" in str(error)
    assert "10 s" in str(error)


@pytest.mark.parametrize(
    ("fields", "code", "word"),
    [
        ({"type": "nosuchfs", "source": "none"}, Code.FAILED_PRECONDITION, "no file system of that type"),
        ({"type": "tmpfs", "options": ["nosuchoption=1"]}, Code.FAILED_PRECONDITION, "option"),
        pytest.param(
            {"type": "ext4", "source": "/dev/null"},
            Code.INVALID_ARGUMENT,
            "block device",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="to others the kernel says no more than no"),
        ),
        (
            {"type": "auto", "source": "/dev/null"},
            Code.FAILED_PRECONDITION,
            "ext4, erofs, squashfs, xfs or iso9660",
        ),
        ({"type": "a\0b"}, Code.INVALID_ARGUMENT, "NUL"),
        ({"type": "tmpfs", "options": ["a\0b"]}, Code.INVALID_ARGUMENT, "NUL"),
        ({"type": "tmpfs", "options": ["x" * 4000, "y" * 95]}, Code.INVALID_ARGUMENT, "4095"),
        ({"type": "tmpfs", "target": "relative"}, Code.INVALID_ARGUMENT, "absolute"),
        ({"type": "tmpfs", "target": ""}, Code.INVALID_ARGUMENT, "absolute"),
        ({"type": "tmpfs", "target": "//"}, Code.INVALID_ARGUMENT, "root"),
        ({"type": "tmpfs", "target": "/" + "x" * 4095}, Code.INVALID_ARGUMENT, "absolute"),
        ({"type": "tmpfs", "target": "/proc/self/mounts/x"}, Code.INVALID_ARGUMENT, "folder"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(agent, tmp_path, fields, code, word):
    error = await refused(mount(agent, MountSpec(**({"target": str(tmp_path / "x")} | fields))))
    assert error.code == code
    assert word in str(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("offset", "magic", "known"),
    [
        (1080, b"\x53\xef", True),  # ext4
        (1024, b"\xe2\xe1\xf5\xe0", True),  # erofs
        (0, b"hsqs", True),
        (0, b"XFSB", True),
        (32769, b"CD001", True),
        (1, b"XFSB", False),
        (0, b"XFS", False),
        (0, b"", False),
    ],
)
async def test_a_file_system_is_known_by_its_magic(agent, tmp_path, offset, magic, known):
    """What is known is mounted, for which a file is no device; what is not is said."""
    (tmp_path / "image").write_bytes(bytes(offset) + magic)
    error = await refused(mount(agent, MountSpec(source=str(tmp_path / "image"), target=str(tmp_path / "x"))))
    assert ("it holds none of" in error.message) is not known


async def test_64_mounts_are_the_most(agent, tmp_path):
    error = await refused(mount(agent, *[tmpfs(tmp_path / str(n)) for n in range(65)]))
    assert error.code == Code.INVALID_ARGUMENT
    await mount(agent, *[tmpfs(tmp_path / str(n)) for n in range(64)])
    assert len(mounted(agent, tmp_path)) == 64


async def test_none_is_mounted_before_the_set_up(new_agent, tmp_path):
    assert (await refused(mount(new_agent, tmpfs(tmp_path)))).code == Code.FAILED_PRECONDITION
    assert (await refused(unmount(new_agent, tmp_path))).code == Code.FAILED_PRECONDITION


async def test_a_mount_in_use_stays_and_its_users_are_named(agent, tmp_path):
    await mount(agent, tmpfs(tmp_path / "a"))
    sleeper, pid = await agent.start("sleep", "1000", cwd=os.fsencode(tmp_path / "a"), pid=True)
    await agent.eventually(lambda: os.readlink(f"/proc/{pid}/cwd") == str(tmp_path / "a"))
    error = await refused(unmount(agent, tmp_path / "a"))
    assert error.code == Code.FAILED_PRECONDITION
    assert f"process {pid} (sleep)" in str(error)
    await agent.kill(sleeper)
    await agent.wait(sleeper)
    await unmount(agent, tmp_path / "a")
    assert mounted(agent, tmp_path) == []


async def test_many_users_are_counted_and_a_mount_on_it_is_named(agent, tmp_path):
    await mount(agent, tmpfs(tmp_path / "a"))
    sleepers = [await agent.start("sleep", "1000", cwd=os.fsencode(tmp_path / "a")) for _ in range(9)]
    await mount(agent, tmpfs(tmp_path / "a/inner"))
    error = await refused(unmount(agent, tmp_path / "a"))
    assert f"tmpfs mounted on {tmp_path}/a/inner" in str(error)
    assert "more" in str(error)
    for sleeper in sleepers:
        await agent.kill(sleeper)
        await agent.wait(sleeper)


async def test_where_nothing_is_mounted_is_not_found(agent, tmp_path):
    for target in (tmp_path, tmp_path / "missing"):
        error = await refused(unmount(agent, target))
        assert error.code == Code.NOT_FOUND
        assert str(target) in str(error)
    assert (await refused(unmount(agent, "/"))).code == Code.INVALID_ARGUMENT


async def test_unmount_all_ends_what_was_mounted_by_the_service_and_nothing_else(agent, tmp_path):
    others, ours, taken = tmp_path / "others", tmp_path / "ours", tmp_path / "taken"
    for path in (others, ours, taken):
        path.mkdir()
    assert (await agent.run("mount", "-t", "tmpfs", "none", str(others), cwd=b"/")).exit_code == 0
    await mount(agent, tmpfs(ours), tmpfs(ours / "inner"), tmpfs(taken))
    await unmount(agent, taken)
    assert (await agent.run("mount", "-t", "tmpfs", "none", str(taken), cwd=b"/")).exit_code == 0
    await agent.mounts.unmount_all()
    assert [target for target, *_ in mounted(agent, tmp_path)] == [str(others), str(taken)]
    await agent.mounts.unmount_all()
    assert len(mounted(agent, tmp_path)) == 2


async def test_unmount_all_leaves_what_is_in_use_and_names_it(agent, tmp_path):
    await mount(agent, tmpfs(tmp_path / "a"), tmpfs(tmp_path / "b"))
    sleeper, pid = await agent.start("sleep", "1000", cwd=os.fsencode(tmp_path / "a"), pid=True)
    await agent.eventually(lambda: "sleep" in Path(f"/proc/{pid}/comm").read_text())
    error = await refused(agent.mounts.unmount_all())
    assert error.code == Code.FAILED_PRECONDITION
    assert f"{tmp_path}/a is in use" in str(error)
    assert [target for target, *_ in mounted(agent, tmp_path)] == [str(tmp_path / "a")]
    await agent.kill(sleeper)
    await agent.wait(sleeper)
    await agent.mounts.unmount_all()
    assert mounted(agent, tmp_path) == []


async def test_two_hundred_rounds_leave_nothing(agent, tmp_path):
    await mount(agent, tmpfs(tmp_path / "a"))
    await unmount(agent, tmp_path / "a")
    before = agent.descriptors()
    for _ in range(200):
        await mount(agent, tmpfs(tmp_path / "a"))
        await unmount(agent, tmp_path / "a")
    assert agent.descriptors() == before
    assert mounted(agent, tmp_path) == []
