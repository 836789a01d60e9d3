"""Whole files over streams."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path

import pytest

from sandbox_nb.guest.proto.files_pb2 import ReadRequest, WriteRequest
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
