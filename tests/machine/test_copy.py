"""Files and folders between host and guest."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import threading
import time

import pytest
import trees
from support import descendants

from sandbox_nb import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Sandbox,
    Unavailable,
)


@pytest.fixture
def there(sb):
    """A folder of the test's own in the guest."""
    sb.mkdir("/tmp/there")
    yield "/tmp/there"
    sb.remove("/tmp/there", recursive=True)


def test_a_tree_survives_the_way_in_and_out(sb, there, tmp_path):
    source = trees.make(tmp_path / "source")
    sent = sb.copy_to(source, there)
    assert sent.path == "/tmp/there/source"
    back = sb.copy_from(f"{there}/source", tmp_path / "back")
    assert trees.fingerprint(tmp_path / "back") == trees.fingerprint(source)
    assert (back.files, back.folders, back.links, back.size) == (sent.files, sent.folders, sent.links, sent.size)
    assert back.path == str(tmp_path / "back")


def test_the_guest_sees_what_the_host_had(sb, there, tmp_path):
    source = trees.make(tmp_path / "source")
    sb.copy_to(source, there)
    seen = sb.run(
        "cd /tmp/there/source && sha256sum large deep/same && stat -c '%a %h %Y %U' program large", check=True
    )
    wanted = subprocess.run(
        ["sh", "-c", "sha256sum large deep/same && stat -c '%a %h %Y root' program large"],
        cwd=source,
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout == wanted.stdout


def test_progress_is_told_and_ends_with_all_of_it(sb, there, tmp_path):
    told = []
    source = trees.many(tmp_path / "source", files=200, size=20_000_000)
    copied = sb.copy_to(source, f"{there}/new", progress=lambda size, files: told.append((size, files)))
    assert told[-1] == (copied.size, copied.files)
    assert copied.files == 200
    assert told == sorted(told)


def test_a_file_without_a_size_is_copied_to_its_end(sb, tmp_path):
    assert sb.copy_from("/proc/version", tmp_path).path == str(tmp_path / "version")
    assert (tmp_path / "version").read_text().startswith("Linux version")


def test_what_is_neither_file_nor_folder_is_left_out_and_named(sb, there, tmp_path):
    sb.run("cd /tmp/there && mknod zero c 1 5 && mkfifo pipe && touch file", check=True)
    copied = sb.copy_from(there, tmp_path)
    assert sorted(copied.skipped) == ["pipe", "zero"]
    assert os.listdir(tmp_path / "there") == ["file"]


def test_a_full_guest_is_said_with_the_path_and_keeps_no_half_of_a_file(sb, there, tmp_path):
    source = trees.many(tmp_path / "source", files=20, size=4_000_000)
    sb.run("mkdir /tmp/there/small && mount -t tmpfs -o size=1m none /tmp/there/small", check=True)
    try:
        with pytest.raises(ResourceExhausted, match="/tmp/there/small/source/0/0/file .*: No space left"):
            sb.copy_to(source, "/tmp/there/small")
        assert sb.run("find /tmp/there/small -name '.sandbox*'").stdout == ""
    finally:
        sb.run("umount /tmp/there/small", check=True)


def test_what_is_missing_is_named_on_either_side(sb, tmp_path):
    for copy in (sb.copy_to, sb.copy_from):
        with pytest.raises(NotFound, match="/no/such/file"):
            copy("/no/such/file", "/tmp")
        with pytest.raises(NotFound, match="/no/such/place"):
            copy("/etc/passwd", "/no/such/place")
    with pytest.raises(InvalidArgument, match="'relative'"):
        sb.copy_to(tmp_path, "relative")
    with pytest.raises(InvalidArgument, match="source=7"):
        sb.copy_to(7, "/tmp")


def test_an_interrupted_copy_leaves_nothing_half_made(sb, there, tmp_path):
    with open(tmp_path / "endless", "wb") as endless:
        endless.truncate(1 << 40)
    begun = threading.Event()

    async def cancelled() -> None:
        copying = asyncio.create_task(
            sb.asynchronous.copy_to(
                tmp_path / "endless", f"{there}/new", progress=lambda size, files: size and begun.set()
            )
        )
        while not begun.is_set():
            await asyncio.sleep(0.01)
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying

    sb.runner.wait(cancelled())
    deadline = time.monotonic() + 10
    while sb.listdir(there) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sb.listdir(there) == []


def test_what_is_known_of_a_file(sb, there):
    sb.write(f"{there}/file", b"12345", mode=0o640)
    sb.run(f"ln -s file {there}/link && chown 7:8 {there}/file && touch -d @1234567890 {there}/file", check=True)
    found = sb.stat(f"{there}/link")
    assert (found.name, found.size, stat.S_IMODE(found.mode)) == ("link", 5, 0o640)
    assert (found.uid, found.gid, found.mtime_ns) == (7, 8, 1_234_567_890_000_000_000)
    assert found.is_file()
    link = sb.stat(f"{there}/link", follow_symlinks=False)
    assert link.is_symlink()
    assert link.target == "file"
    assert sb.stat("/").is_dir()
    assert [info.name for info in sb.listdir(there)] == ["file", "link"]
    with pytest.raises(NotFound, match="/no/where"):
        sb.stat("/no/where")
    with pytest.raises(NotFound, match="file"):
        sb.listdir(f"{there}/file")


def test_folders_are_made_and_removed(sb, there):
    sb.mkdir(f"{there}/a/b", parents=True, mode=0o700)
    assert stat.S_IMODE(sb.stat(f"{there}/a/b").mode) == 0o700
    sb.mkdir(f"{there}/a/b", exist_ok=True)
    with pytest.raises(AlreadyExists, match="a/b"):
        sb.mkdir(f"{there}/a/b")
    with pytest.raises(FailedPrecondition, match="not empty"):
        sb.remove(f"{there}/a")
    sb.remove(f"{there}/a", recursive=True)
    with pytest.raises(NotFound):
        sb.remove(f"{there}/a")
    for path in ("/", "/.", "/tmp/.."):
        with pytest.raises(InvalidArgument):
            sb.remove(path, recursive=True)


def test_a_machine_that_is_not_running_copies_nothing(own, tmp_path):
    for verb in (own.copy_to, own.copy_from):
        with pytest.raises(FailedPrecondition):
            verb(tmp_path, "/tmp")
    assert os.listdir(tmp_path) == []


def test_a_machine_that_dies_under_a_copy_is_said_and_leaves_nothing_half_made(own, tmp_path):
    own.start()
    own.run("dd if=/dev/zero of=/tmp/endless bs=1M count=0 seek=1000000", check=True)
    guard = own.asynchronous._life.running.machine.child.pid
    alive = descendants(guard)

    def end_it(size: int, files: int) -> None:
        if size and alive:
            os.kill(alive.pop(), signal.SIGKILL)

    with pytest.raises(Unavailable, match="the machine is gone: signal 9"):
        own.copy_from("/tmp/endless", tmp_path, progress=end_it)
    assert os.listdir(tmp_path) == []


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_gibibyte_in_ten_thousand_files_each_way(tmp_path):
    source = trees.many(tmp_path / "source", files=10_000, size=1 << 30)
    with Sandbox.started(cpu=2, memory=2560) as sb:
        sb.run("mkdir /big && mount -t tmpfs -o size=2g,nr_inodes=100k none /big", check=True)
        began = time.perf_counter()
        assert sb.copy_to(source, "/big").files == 10_000
        print(f"\n1 GiB, 10,000 files: to the guest in {time.perf_counter() - began:.1f} s", end=", ")
        began = time.perf_counter()
        assert sb.copy_from("/big/source", tmp_path / "back").files == 10_000
        print(f"from it in {time.perf_counter() - began:.1f} s")
    assert trees.fingerprint(tmp_path / "back") == trees.fingerprint(source)
