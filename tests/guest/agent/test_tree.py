"""Trees into the guest and out of it, against the agent itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest
import trees

from sandbox_nb.files import transfer
from sandbox_nb.files.records import LENGTH, RECORD_MAX
from sandbox_nb.files.service import Files
from sandbox_nb.guest.proto.files_pb2 import Entry, PackRequest, UnpackRequest
from sandbox_nb.ttrpc import Code, StatusError

FOLDER, FILE, LINK = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777
END = LENGTH.pack(0)


@pytest.fixture
def files(agent):
    """The verbs of the product, on this agent."""

    @contextlib.asynccontextmanager
    async def stream():
        name, sock = await agent.stream()
        try:
            yield name, sock
        finally:
            sock.close()

    return Files(agent.files, stream)


def record(data: bytes) -> bytes:
    return LENGTH.pack(len(data)) + data


def entry(name: bytes | str, mode: int, **fields) -> bytes:
    name = name.encode() if isinstance(name, str) else name
    return record(Entry(name=name, mode=mode, **fields).SerializeToString())


def file(name: bytes | str, content: bytes = b"content") -> bytes:
    return entry(name, FILE) + record(content) + END


async def unpack(agent, tools, data: bytes, path) -> str:
    name, sock = await agent.stream()
    call = asyncio.create_task(agent.files.unpack(UnpackRequest(path=os.fsencode(path), stream=name)))
    await tools.send_and_end(sock, data)
    return os.fsdecode((await call).path)


async def test_a_tree_survives_the_way_in_and_out(files, tmp_path):
    source = trees.make(tmp_path / "source")
    (source / "program").chmod(0o4755)
    sent = await files.copy_to(source, tmp_path / "guest")
    assert sent.path == str(tmp_path / "guest")
    assert trees.fingerprint(tmp_path / "guest") == trees.fingerprint(source)
    received = await files.copy_from(tmp_path / "guest", tmp_path / "back")
    # No set-id bit comes from a guest.
    assert trees.fingerprint(tmp_path / "back") == trees.fingerprint(source, permissions=0o777)
    assert (sent.files, sent.folders, sent.links, sent.size) == (12, 6, 3, received.size)
    assert (received.files, received.folders, received.links) == (12, 6, 3)


@pytest.mark.parametrize("native_agent", ["shipped"], indirect=True)
async def test_the_agent_of_the_images_does_the_same(files, tmp_path):
    source = trees.make(tmp_path / "source")
    await files.copy_to(source, tmp_path / "guest")
    await files.copy_from(tmp_path / "guest", tmp_path / "back")
    assert trees.fingerprint(tmp_path / "back") == trees.fingerprint(source)


async def test_many_files_and_what_is_said_meanwhile(files, tmp_path):
    source = trees.many(tmp_path / "source", files=1500, size=40_000_000)
    told = []
    copied = await files.copy_to(source, tmp_path / "guest", lambda size, count: told.append((size, count)))
    assert told == sorted(told)
    assert told[-1] == (copied.size, copied.files) == (copied.size, 1500)
    told.clear()
    await files.copy_from(tmp_path / "guest", tmp_path / "back", lambda size, count: told.append((size, count)))
    assert told[-1] == (copied.size, 1500)
    assert trees.fingerprint(tmp_path / "back") == trees.fingerprint(source)


@pytest.mark.parametrize(
    ("source", "target", "place"),
    [
        ("t", "there", "there/t"),
        ("t", "there/", "there/t"),
        ("t/", "new", "new"),
        ("t/.", "there", "there"),
        ("t", "link", "link/t"),
        ("t/file", "there", "there/file"),
        ("t/file", "new", "new"),
        ("t/file", "there/old", "there/old"),
    ],
)
async def test_the_place_is_the_one_cp_would_choose(files, tmp_path, source, target, place):
    for side in ("host", "guest", "cp"):
        (tmp_path / side / "t").mkdir(parents=True)
        (tmp_path / side / "t" / "file").write_text("t")
        (tmp_path / side / "there").mkdir()
        (tmp_path / side / "there" / "old").write_text("old")
        (tmp_path / side / "link").symlink_to("there")
    into = await files.copy_to(f"{tmp_path}/host/{source}", f"{tmp_path}/guest/{target}")
    out = await files.copy_from(f"{tmp_path}/guest/{source}", f"{tmp_path}/host/{target}")
    for copied, side in ((into, "guest"), (out, "host")):
        assert Path(copied.path) == tmp_path / side / place
        assert (tmp_path / side / place).exists()
    subprocess.run(["cp", "-r", source, target], cwd=tmp_path / "cp", check=True)
    wanted = trees.fingerprint(tmp_path / "cp").keys()
    assert trees.fingerprint(tmp_path / "guest").keys() == trees.fingerprint(tmp_path / "host").keys() == wanted


async def test_a_folder_that_gets_the_content_of_another_keeps_its_mode(files, tmp_path):
    for side in ("host", "guest"):
        (tmp_path / side / "t").mkdir(parents=True, mode=0o755)
        (tmp_path / side / "shared").mkdir()
        (tmp_path / side / "shared").chmod(0o1777)
    await files.copy_to(f"{tmp_path}/host/t/.", f"{tmp_path}/guest/shared")
    await files.copy_from(f"{tmp_path}/guest/t/.", f"{tmp_path}/host/shared")
    assert [(tmp_path / side / "shared").stat().st_mode & 0o7777 for side in ("host", "guest")] == [0o1777] * 2


async def test_pipes_and_sockets_are_skipped_and_named(files, tmp_path):
    (tmp_path / "guest").mkdir()
    os.mkfifo(tmp_path / "guest" / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "guest" / "socket"))
    (tmp_path / "guest" / "file").touch()
    copied = await files.copy_from(tmp_path / "guest", tmp_path / "back")
    assert sorted(copied.skipped) == ["pipe", "socket"]
    assert os.listdir(tmp_path / "back") == ["file"]
    assert (await files.copy_to(tmp_path / "guest", tmp_path / "again")).skipped == copied.skipped


@pytest.mark.parametrize("path", ["/not/there", "/etc/passwd/below", "/dev/null", "/dev/log"])
async def test_what_cannot_be_sent_is_said_by_name(files, tmp_path, path):
    with pytest.raises(StatusError, match=path) as info:
        await files.copy_from(path, tmp_path / "new")
    assert info.value.code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("target", ["/not/there", "/etc/passwd/below", "/new/", "/proc/new"])
async def test_a_place_that_cannot_be_is_said_by_name(files, tmp_path, target):
    (tmp_path / "file").touch()
    with pytest.raises(StatusError, match=target) as info:
        await files.copy_to(tmp_path / "file", target)
    assert info.value.code == Code.NOT_FOUND


async def test_a_name_that_is_no_text_is_told_as_far_as_it_is(files, tmp_path):
    with pytest.raises(StatusError, match=r"/no/\?\?name: No such") as info:
        await files.copy_from(os.fsdecode(b"/no/\xff\xfename"), tmp_path / "x")
    assert info.value.code == Code.NOT_FOUND
    with pytest.raises(StatusError, match="/no/größe: No such"):
        await files.copy_from("/no/größe", tmp_path / "x")


async def test_a_full_file_system_is_said_by_the_path_and_leaves_no_half_of_a_file(files, tmp_path):
    (tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path / "small"]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs privileges")
    try:
        (tmp_path / "source").mkdir()
        for number in range(5):
            (tmp_path / "source" / f"file{number}").write_bytes(bytes(300_000))
        with pytest.raises(StatusError, match=r"small/source/file\d: No space left") as info:
            await files.copy_to(tmp_path / "source", tmp_path / "small")
        assert info.value.code == Code.RESOURCE_EXHAUSTED
        made = list((tmp_path / "small" / "source").iterdir())
        assert [path.stat().st_size for path in made] == [300_000] * 3
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)


async def test_a_source_that_fails_half_way_leaves_no_half_of_a_file(files, agent, tmp_path):
    source = trees.many(tmp_path / "source", files=50, size=1_000_000)
    (source / "z").mkdir()
    deepest = source / "z"
    for _ in range(260):
        deepest = deepest / "d"
        deepest.mkdir()
    with pytest.raises(Exception, match="256 folders"):
        await files.copy_to(source, tmp_path / "guest")
    assert not [path for path in trees.everything(tmp_path / "guest") if b".sandbox" in path]
    with pytest.raises(StatusError, match="256 folders") as info:
        await files.copy_from(source, tmp_path / "back")
    assert info.value.code == Code.RESOURCE_EXHAUSTED
    assert not [path for path in trees.everything(tmp_path / "back") if b".sandbox" in path]


@pytest.mark.parametrize("way", ["in", "out"])
async def test_a_cancelled_copy_ends_both_ends_and_what_is_half_made(files, agent, tmp_path, way):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    with open(source / "endless", "wb") as endless:
        endless.truncate(1 << 40)
    begun = asyncio.Event()
    copy = files.copy_to if way == "in" else files.copy_from
    copying = asyncio.create_task(copy(source, target, lambda size, count: size and begun.set()))
    await asyncio.wait_for(begun.wait(), 20)
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert os.listdir(target) == []
    await agent.eventually(lambda: not children(agent))


@pytest.mark.parametrize("way", ["in", "out"])
async def test_a_guest_that_stands_still_does_not_hold_a_cancelled_copy(files, agent, tmp_path, monkeypatch, way):
    monkeypatch.setattr(transfer, "GRACE", 0.1)
    with open(tmp_path / "endless", "wb") as endless:
        endless.truncate(1 << 40)
    begun = asyncio.Event()
    copy = files.copy_to if way == "in" else files.copy_from
    copying = asyncio.create_task(
        copy(tmp_path / "endless", tmp_path / "new", lambda size, count: size and begun.set())
    )
    await asyncio.wait_for(begun.wait(), 20)
    (worker,) = children(agent)
    os.kill(worker, signal.SIGSTOP)
    await asyncio.sleep(0.3)  # until nothing moves
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    os.kill(worker, signal.SIGCONT)
    await agent.eventually(lambda: not children(agent))
    assert os.listdir(tmp_path) == ["endless"]


async def test_a_progress_that_fails_ends_the_copy(files, agent, tmp_path):
    def refuse(size, count):
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        await files.copy_to(trees.make(tmp_path / "source"), tmp_path / "guest", refuse)
    await agent.eventually(lambda: not children(agent))


@pytest.mark.parametrize("data", [b"", b"\0\0", entry("t", FOLDER), entry("f", FILE) + record(b"half")[:-1]])
async def test_a_stream_that_ends_early_leaves_no_half_of_a_file(agent, tools, tmp_path, data):
    with pytest.raises(StatusError) as info:
        await unpack(agent, tools, data, tmp_path / "new")
    assert info.value.code == Code.CANCELLED
    assert set(os.listdir(tmp_path)) <= {"new"}
    assert not (tmp_path / "new").is_file()


async def test_a_call_out_of_time_leaves_no_half_of_a_file(agent, tmp_path):
    (tmp_path / "old").write_text("as it was")
    name, _ = await agent.stream(behind=entry("x", FILE) + record(b"half"))
    with pytest.raises(StatusError) as info:
        await agent.files.unpack(UnpackRequest(path=os.fsencode(tmp_path / "old"), stream=name), timeout=0.3)
    assert info.value.code == Code.DEADLINE_EXCEEDED
    await agent.eventually(lambda: os.listdir(tmp_path) == ["old"])
    assert (tmp_path / "old").read_text() == "as it was"


async def test_a_worker_that_is_killed_is_an_internal_error(files, agent, tmp_path):
    (tmp_path / "source").mkdir()
    with open(tmp_path / "source" / "endless", "wb") as endless:
        endless.truncate(1 << 40)
    killed = []

    def kill(size, count):
        if size and not killed:
            killed.extend(children(agent))
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(StatusError) as info:
        await files.copy_from(tmp_path / "source", tmp_path / "back", kill)
    assert info.value.code == Code.INTERNAL


def children(agent) -> list[int]:
    path = Path(f"/proc/{agent.child.pid}/task/{agent.child.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


# The host is not hostile; but what it sends may be broken, and a tree in the guest may hold surprises.


@pytest.mark.parametrize("name", [b"..", b".", b"../new", b"/etc/new", b"a/b", b"nul\0", b"x" * 256, b""])
@pytest.mark.parametrize("kind", [FILE, FOLDER, LINK])
async def test_a_name_that_is_a_path_is_refused(agent, tools, tmp_path, name, kind):
    data = entry("t", FOLDER) + entry(name, kind, target=b"x") + END + END
    with pytest.raises(StatusError) as info:
        await unpack(agent, tools, data, tmp_path)
    assert info.value.code == Code.INVALID_ARGUMENT
    assert os.listdir(tmp_path) == ["t"]
    assert os.listdir(tmp_path / "t") == []


async def test_no_link_on_the_way_is_followed(agent, tools, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("mine")
    target = bytes(tmp_path / "outside")
    through = entry("t", FOLDER) + entry("way", LINK, target=target) + entry("way", FOLDER) + file("precious")
    with pytest.raises(StatusError, match="t/way"):
        await unpack(agent, tools, through + END + END, tmp_path)
    over = entry("u", FOLDER) + entry("f", LINK, target=target + b"/precious") + file("f", b"new") + END
    assert await unpack(agent, tools, over, tmp_path) == str(tmp_path / "u")
    assert (tmp_path / "u" / "f").read_bytes() == b"new"
    assert (tmp_path / "outside" / "precious").read_text() == "mine"


@pytest.mark.parametrize("link", [b"../precious", b"/etc/passwd", b"way/precious", b"..", b"a//f", b"x" * 5000])
async def test_a_further_name_reaches_no_file_outside(agent, tools, tmp_path, link):
    (tmp_path / "precious").write_text("mine")
    data = entry("t", FOLDER) + entry("way", LINK, target=b"..") + file("f") + entry("g", FILE, link=link) + END
    with pytest.raises(StatusError):
        await unpack(agent, tools, data, tmp_path)
    with pytest.raises(StatusError):
        await unpack(agent, tools, entry("g", FILE, link=b"f"), tmp_path)
    assert (tmp_path / "precious").stat().st_nlink == 1
    assert not (tmp_path / "t" / "g").exists()


@pytest.mark.parametrize(
    "data",
    [
        LENGTH.pack(RECORD_MAX + 1) + bytes(100),
        LENGTH.pack(2**32 - 1),
        record(b"\xff" * 20),
        entry("t", FOLDER) + file("f") + record(b"\xff"),
        entry("f", FILE) + LENGTH.pack(RECORD_MAX + 1),
        entry("l", LINK, target=b"x" * 4096),
    ],
)
async def test_what_is_no_tree_is_refused(agent, tools, tmp_path, data):
    with pytest.raises(StatusError) as info:
        await unpack(agent, tools, data, tmp_path)
    assert info.value.code == Code.INVALID_ARGUMENT
    assert set(os.listdir(tmp_path)) <= {"t"}


async def test_a_reader_that_leaves_early_ends_the_call(agent, tmp_path):
    (tmp_path / "large").write_bytes(bytes(5_000_000))
    name, sock = await agent.stream()
    call = asyncio.create_task(agent.files.pack(PackRequest(path=bytes(tmp_path / "large"), stream=name)))
    await asyncio.get_running_loop().sock_recv(sock, 10)
    sock.close()
    with pytest.raises(StatusError) as info:
        await call
    assert info.value.code == Code.CANCELLED
