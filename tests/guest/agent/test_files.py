"""Whole files over streams, and what is asked of paths without one."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import stat
from pathlib import Path

import pytest

from sandbox_nb.files.records import read_entry
from sandbox_nb.guest.proto.files_pb2 import (
    ListRequest,
    MkdirRequest,
    ReadRequest,
    RemoveRequest,
    StatRequest,
    WriteRequest,
)
from sandbox_nb.ttrpc import Code, StatusError


async def read(agent, tools, path):
    name, sock = await agent.stream()
    call = asyncio.create_task(agent.files.read(ReadRequest(path=os.fsencode(path), stream=name)))
    data = await tools.read_all(sock)
    return data, await call


async def write(agent, tools, path, data, mode=0):
    name, sock = await agent.stream()
    call = asyncio.create_task(agent.files.write(WriteRequest(path=os.fsencode(path), stream=name, mode=mode)))
    await tools.send_and_end(sock, data)
    return await call


@pytest.mark.parametrize("size", [0, 1, 65536, 5_000_001])
async def test_a_file_is_read_whole(agent, tools, tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "file").chmod(0o640)
    data, response = await read(agent, tools, tmp_path / "file")
    assert data == content
    assert (response.size, response.mode) == (size, stat.S_IFREG | 0o640)


@pytest.mark.parametrize("size", [0, 1, 65536, 5_000_001])
async def test_a_file_is_written_whole(agent, tools, tmp_path, size):
    content = os.urandom(size)
    response = await write(agent, tools, tmp_path / "new", content)
    assert response.size == size
    assert (tmp_path / "new").read_bytes() == content
    assert (tmp_path / "new").stat().st_mode == stat.S_IFREG | 0o644
    assert os.listdir(tmp_path) == ["new"]


async def test_the_mode_is_for_a_new_file_one_that_is_there_keeps_its_own(agent, tools, tmp_path):
    path = tmp_path / "file"
    await write(agent, tools, path, b"1", mode=0o4755)
    assert path.stat().st_mode == stat.S_IFREG | 0o4755
    path.chmod(0o600)
    await write(agent, tools, path, b"2", mode=0o777)
    assert path.stat().st_mode == stat.S_IFREG | 0o600
    assert path.read_bytes() == b"2"


async def test_through_a_symbolic_link_the_file_behind_it_is_written(agent, tools, tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    await write(agent, tools, tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/not/there", Code.NOT_FOUND),
        ("/etc/passwd/below", Code.NOT_FOUND),
        ("/etc", Code.INVALID_ARGUMENT),
        ("/dev/zero", Code.INVALID_ARGUMENT),
        ("relative", Code.INVALID_ARGUMENT),
        ("", Code.INVALID_ARGUMENT),
        ("/nul\0byte", Code.INVALID_ARGUMENT),
        ("/" + "x" * 5000, Code.INVALID_ARGUMENT),
    ],
)
async def test_what_cannot_be_read_is_said_by_name(agent, tools, path, code):
    name, _ = await agent.stream()
    with pytest.raises(StatusError) as info:
        await agent.files.read(ReadRequest(path=path.encode(), stream=name))
    assert info.value.code == code
    assert path.partition("\0")[0][:200] in str(info.value)


@pytest.mark.parametrize(
    ("path", "code"),
    [("/not/there", Code.NOT_FOUND), ("/etc", Code.INVALID_ARGUMENT), ("/proc/new", Code.NOT_FOUND), ("/tmp/", 3)],
)
async def test_what_cannot_be_written_is_said_by_name(agent, tools, path, code):
    with pytest.raises(StatusError) as info:
        await write(agent, tools, path, b"data")
    assert info.value.code == code
    assert path in str(info.value)


async def test_a_fifo_without_a_writer_does_not_hang_the_call(agent, tools, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StatusError) as info:
        await read(agent, tools, tmp_path / "fifo")
    assert info.value.code == Code.INVALID_ARGUMENT


async def test_a_stream_that_was_not_opened_is_not_found(agent):
    with pytest.raises(StatusError) as info:
        await agent.files.read(ReadRequest(path=b"/etc/passwd", stream="stream://nowhere"))
    assert info.value.code == Code.NOT_FOUND


async def test_nothing_is_read_or_written_before_the_set_up(new_agent):
    with pytest.raises(StatusError) as info:
        await new_agent.files.read(ReadRequest(path=b"/etc/passwd", stream="stream://x"))
    assert info.value.code == Code.FAILED_PRECONDITION


async def test_a_reader_that_leaves_early_ends_the_call(agent, tmp_path):
    (tmp_path / "large").write_bytes(bytes(5_000_000))
    name, sock = await agent.stream()
    call = asyncio.create_task(agent.files.read(ReadRequest(path=os.fsencode(tmp_path / "large"), stream=name)))
    await asyncio.sleep(0.1)
    sock.close()
    with pytest.raises(StatusError) as info:
        await call
    assert info.value.code == Code.CANCELLED


async def test_a_call_out_of_time_ends_its_worker_and_leaves_the_old_file(agent, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    name, sock = await agent.stream(behind=b"half of it")
    with pytest.raises(StatusError) as info:
        await agent.files.write(WriteRequest(path=os.fsencode(path), stream=name), timeout=0.3)
    assert info.value.code == Code.DEADLINE_EXCEEDED
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), 5) == b""
    assert path.read_bytes() == b"old"


async def test_many_transfers_at_once_are_bounded_and_do_not_hold_up_calls(agent, tools, tmp_path):
    (tmp_path / "large").write_bytes(bytes(1_000_000))
    stalled = []
    for _ in range(64):
        name, sock = await agent.stream()
        request = ReadRequest(path=os.fsencode(tmp_path / "large"), stream=name)
        stalled.append((sock, asyncio.create_task(agent.files.read(request))))
        await asyncio.sleep(0)
    await asyncio.sleep(0.3)
    with pytest.raises(StatusError) as info:
        await read(agent, tools, tmp_path / "large")
    assert info.value.code == Code.RESOURCE_EXHAUSTED
    assert (await agent.run("echo", "on")).out == b"on\n"
    for sock, call in stalled:
        assert len(await tools.read_all(sock)) == 1_000_000
        await call


async def test_a_worker_that_is_killed_is_an_internal_error(agent, tools, tmp_path):
    (tmp_path / "large").write_bytes(bytes(5_000_000))
    name, _ = await agent.stream()
    call = asyncio.create_task(agent.files.read(ReadRequest(path=os.fsencode(tmp_path / "large"), stream=name)))
    await asyncio.sleep(0.2)
    children = Path(f"/proc/{agent.child.pid}/task/{agent.child.pid}/children").read_text()
    os.kill(int(children.split()[0]), signal.SIGKILL)
    with pytest.raises(StatusError) as info:
        await call
    assert info.value.code == Code.INTERNAL


async def test_a_write_that_is_cancelled_half_way_leaves_the_old_file(agent, tools, tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    name, sock = await agent.stream()
    request = WriteRequest(path=bytes(tmp_path / "file"), stream=name, size=1000)
    call = asyncio.create_task(agent.files.write(request))
    await tools.send_and_end(sock, bytes(999))
    with pytest.raises(StatusError) as info:
        await call
    assert info.value.code == Code.CANCELLED
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


async def test_what_is_known_of_a_file(agent, tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "file").chmod(0o4751)
    os.utime(tmp_path / "file", ns=(0, 1_234_567_890_123_456_789))
    (tmp_path / "link").symlink_to("file")
    entry = await agent.files.stat(StatRequest(path=bytes(tmp_path / "link")))
    assert (entry.name, entry.mode, entry.size) == (b"link", stat.S_IFREG | 0o4751, 5)
    assert (entry.mtime, entry.mtime_nanos) == (1_234_567_890, 123_456_789)
    assert (entry.uid, entry.gid) == (os.getuid(), os.getgid())
    entry = await agent.files.stat(StatRequest(path=bytes(tmp_path / "link"), no_follow=True))
    assert (entry.mode & 0o170000, entry.target) == (stat.S_IFLNK, b"file")
    assert stat.S_ISDIR((await agent.files.stat(StatRequest(path=b"/"))).mode)
    with pytest.raises(StatusError, match="/no/where: No such file"):
        await agent.files.stat(StatRequest(path=b"/no/where"))


async def list_folder(agent, tools, path) -> list:
    name, sock = await agent.stream()
    call = asyncio.create_task(agent.files.list(ListRequest(path=os.fsencode(path), stream=name)))
    data = io.BytesIO(await tools.read_all(sock))
    await call
    found = []
    while (entry := read_entry(data)) is not None:
        found.append(entry)
    assert data.read() == b""
    return found


async def test_a_folder_is_listed_whatever_the_names(agent, tools, tmp_path):
    assert await list_folder(agent, tools, tmp_path) == []
    names = {b"a", b"two\nlines", b"\xff\xfe", b"n" * 255, b".hidden"}
    for name in names:
        with open(os.path.join(bytes(tmp_path), name), "wb") as file:
            file.write(name)
    (tmp_path / "link").symlink_to("nowhere")
    found = {entry.name: entry for entry in await list_folder(agent, tools, tmp_path)}
    assert found.keys() == names | {b"link"}
    assert all(found[name].size == len(name) for name in names)
    assert found[b"link"].target == b"nowhere"


async def test_a_folder_of_very_many_files_is_listed_whole(agent, tools, tmp_path):
    for number in range(5000):
        (tmp_path / f"{number:0100}").touch()
    assert len(await list_folder(agent, tools, tmp_path)) == 5000


@pytest.mark.parametrize(("path", "code"), [("/etc/passwd", 5), ("/no/where", 5), ("relative", 3)])
async def test_what_cannot_be_listed_is_said_by_name(agent, path, code):
    name, _ = await agent.stream()
    with pytest.raises(StatusError, match=path) as info:
        await agent.files.list(ListRequest(path=path.encode(), stream=name))
    assert info.value.code == code


async def test_a_folder_is_made_with_its_parents_or_refused(agent, tmp_path):
    deep = tmp_path / "a" / "b" / "c"
    with pytest.raises(StatusError, match="a/b/c") as info:
        await agent.files.mkdir(MkdirRequest(path=bytes(deep)))
    assert info.value.code == Code.NOT_FOUND
    await agent.files.mkdir(MkdirRequest(path=bytes(deep) + b"//", parents=True, mode=0o1777))
    assert stat.S_IMODE(deep.stat().st_mode) == 0o1777
    assert stat.S_IMODE(deep.parent.stat().st_mode) == 0o755
    with pytest.raises(StatusError, match="a/b/c") as info:
        await agent.files.mkdir(MkdirRequest(path=bytes(deep), parents=True))
    assert info.value.code == Code.ALREADY_EXISTS
    await agent.files.mkdir(MkdirRequest(path=bytes(deep), exist_ok=True, mode=0o700))
    assert stat.S_IMODE(deep.stat().st_mode) == 0o1777
    (tmp_path / "file").touch()
    for request in (
        MkdirRequest(path=bytes(tmp_path / "file"), exist_ok=True),
        MkdirRequest(path=bytes(tmp_path / "file" / "below"), parents=True),
    ):
        with pytest.raises(StatusError, match="file") as info:
            await agent.files.mkdir(request)
        assert info.value.code in (Code.ALREADY_EXISTS, Code.NOT_FOUND)


async def test_what_is_removed_is_the_link_and_not_what_it_points_to(agent, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to("kept")
    await agent.files.remove(RemoveRequest(path=bytes(tmp_path / "link"), recursive=True))
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "link").symlink_to(tmp_path / "kept")
    await agent.files.remove(RemoveRequest(path=bytes(tmp_path / "tree") + b"/", recursive=True))
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(tmp_path / "kept") == ["file"]


async def test_a_folder_with_something_in_it_goes_only_when_that_is_meant(agent, tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(StatusError, match="folder: Directory not empty") as info:
        await agent.files.remove(RemoveRequest(path=bytes(tmp_path / "folder")))
    assert info.value.code == Code.FAILED_PRECONDITION
    await agent.files.remove(RemoveRequest(path=bytes(tmp_path / "folder" / "inner")))
    await agent.files.remove(RemoveRequest(path=bytes(tmp_path / "folder")))
    with pytest.raises(StatusError, match="folder") as info:
        await agent.files.remove(RemoveRequest(path=bytes(tmp_path / "folder"), recursive=True))
    assert info.value.code == Code.NOT_FOUND


@pytest.mark.parametrize("path", [b"/", b"/tmp/.", b"/tmp/..", b"//"])
async def test_what_has_no_name_of_its_own_is_not_removed(agent, path):
    with pytest.raises(StatusError) as info:
        await agent.files.remove(RemoveRequest(path=path, recursive=True))
    assert info.value.code == Code.INVALID_ARGUMENT
