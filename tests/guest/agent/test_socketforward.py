"""Connections between host and guest over streams: Dial, and UNIX sockets of the guest that end at the host."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import tempfile
from pathlib import Path

import pytest

from sandbox_nb.guest.proto.forward_pb2 import DialRequest, UnbindRequest
from sandbox_nb.guest.proto.forward_ttrpc import ForwardClient
from sandbox_nb.guest.proto.socketforward_pb2 import BindRequest, ConnectResult, Socket
from sandbox_nb.guest.proto.socketforward_ttrpc import SocketForwardClient
from sandbox_nb.ttrpc import Code, StatusError


@pytest.fixture
def folder():
    """A folder whose path leaves room for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="fw-") as path:
        yield Path(path)


@pytest.fixture
def forward(agent):
    return ForwardClient(agent.client)


@pytest.fixture
def sockets(agent):
    return SocketForwardClient(agent.client)


@contextlib.asynccontextmanager
async def serving(handle, path=None):
    """A server of the guest's, TCP or at a UNIX path; yields its port."""
    if path is None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
    else:
        server = await asyncio.start_unix_server(handle, path)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def echo(reader, writer):
    """Gives back what it gets, and an end for an end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"bye")
    writer.close()


async def dial(agent, forward, **address) -> socket.socket:
    name, sock = await agent.stream()
    await forward.dial(DialRequest(stream=name, **address))
    return sock


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_stream_is_joined_to_what_listens_and_each_direction_ends_by_itself(
    agent, forward, tools, folder, kind
):
    path = str(folder / "s") if kind == "unix" else None
    async with serving(echo, path) as port:
        sock = await dial(agent, forward, **({"path": path} if path else {"port": port}))
        await asyncio.get_running_loop().sock_sendall(sock, b"hello ")
        assert await tools.read_exactly(sock, 6) == b"hello "
        sock.shutdown(socket.SHUT_WR)
        assert await tools.read_all(sock) == b"bye"
    before = agent.descriptors()
    sock.close()
    await agent.eventually(lambda: agent.descriptors() <= before)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_server_that_ends_first_still_hears_the_rest(agent, forward, tools, folder, kind):
    heard = asyncio.get_running_loop().create_future()

    async def greet(reader, writer):
        writer.write(b"hello")
        writer.write_eof()
        heard.set_result(await reader.read())
        writer.close()

    path = str(folder / "s") if kind == "unix" else None
    async with serving(greet, path) as port:
        sock = await dial(agent, forward, **({"path": path} if path else {"port": port}))
        assert await tools.read_all(sock) == b"hello"
        await tools.send_and_end(sock, bytes(300_000))
        assert await asyncio.wait_for(heard, 10) == bytes(300_000)


async def test_megabytes_arrive_whole_both_ways_at_once(agent, forward, tools):
    async with serving(echo) as port:
        sock = await dial(agent, forward, port=port)
        data = os.urandom(20_000_000)
        _, back = await asyncio.gather(tools.send_and_end(sock, data), tools.read_all(sock))
        assert hashlib.sha256(back).digest() == hashlib.sha256(data + b"bye").digest()


async def test_a_slow_reader_stalls_its_own_connection_only(agent, forward, tools):
    sent = []

    async def flood(reader, writer):
        with contextlib.suppress(ConnectionError):
            for number in range(400):
                writer.write(bytes(65536))
                await writer.drain()
                sent.append(number)
        writer.close()

    async with serving(flood) as flooding, serving(echo) as port:
        stalled = await dial(agent, forward, port=flooding)
        await asyncio.sleep(0.3)
        assert len(sent) < 400
        quick = await dial(agent, forward, port=port)
        await tools.send_and_end(quick, b"quick ")
        assert await tools.read_all(quick) == b"quick bye"
        assert len(await tools.read_all(stalled)) == 400 * 65536


async def test_hundreds_of_connections_at_once(agent, forward, tools):
    room = asyncio.Semaphore(32)  # the agent takes 64 streams that nobody has claimed

    async def one(number: int) -> socket.socket:
        async with room:
            sock = await dial(agent, forward, port=port)
        await asyncio.get_running_loop().sock_sendall(sock, b"%d " % number)
        return sock

    async with serving(echo) as port:
        before = agent.descriptors()
        open_ones = await asyncio.gather(*(one(number) for number in range(300)))
        for number, sock in enumerate(open_ones):
            sock.shutdown(socket.SHUT_WR)
            assert await tools.read_all(sock) == b"%d bye" % number
        for sock in open_ones:
            sock.close()
        await agent.eventually(lambda: agent.descriptors() <= before)


async def test_a_host_that_leaves_is_an_end_for_the_server(agent, forward):
    ended = asyncio.get_running_loop().create_future()

    async def wait(reader, writer):
        ended.set_result(await reader.read())
        writer.close()

    async with serving(wait) as port:
        sock = await dial(agent, forward, port=port)
        sock.close()
        assert await asyncio.wait_for(ended, 10) == b""


async def test_where_nothing_listens_the_stream_is_closed_and_it_is_said(agent, forward, tools, folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for address, place in (({"port": port}, f"127.0.0.1:{port}"), ({"path": str(folder / "no")}, "/no")):
            name, sock = await agent.stream()
            with pytest.raises(StatusError, match=f"nothing listens on .*{place}") as info:
                await forward.dial(DialRequest(stream=name, **address))
            assert info.value.code == Code.NOT_FOUND
            assert await tools.read_all(sock) == b""


@pytest.mark.parametrize(
    "address",
    [{}, {"port": 65536}, {"port": 80, "path": "/x"}, {"path": "relative"}, {"path": "/" + "x" * 107}],
)
async def test_an_address_that_cannot_be_is_refused_and_the_stream_kept(agent, forward, address):
    name, _ = await agent.stream()
    with pytest.raises(StatusError, match="1 to 65535") as info:
        await forward.dial(DialRequest(stream=name, **address))
    assert info.value.code == Code.INVALID_ARGUMENT
    async with serving(echo) as port:
        await forward.dial(DialRequest(stream=name, port=port))


async def test_a_stream_that_was_not_opened_is_not_found(forward):
    with pytest.raises(StatusError) as info:
        await forward.dial(DialRequest(stream="stream://nowhere", port=80))
    assert info.value.code == Code.NOT_FOUND


# Guest to host


def bind(*pairs) -> BindRequest:
    return BindRequest(sockets=[Socket(forward_id=name, socket_path=str(path)) for name, path in pairs])


async def answered(agent, call, *, error: str = "") -> tuple[str, socket.socket | None]:
    """Take a connection as a host does: confirm it, open its stream. Returns the forward's id and the stream."""
    request = await asyncio.wait_for(call.receive(), 10)
    await call.send(ConnectResult(stream_id=request.stream_id, error=error))
    if error:
        return request.forward_id, None
    sock, answer = await agent.greet(request.stream_id.encode())
    assert answer == request.stream_id.encode()
    return request.forward_id, sock


async def test_a_connection_in_the_guest_ends_at_the_host(agent, sockets, tools, folder):
    await sockets.bind(bind(("one", folder / "1"), ("two", folder / "2")))
    assert (folder / "1").stat().st_mode & 0o777 == 0o666
    async with sockets.accept() as call:
        for name, path in (("two", "2"), ("one", "1")):
            reader, writer = await asyncio.open_unix_connection(folder / path)
            identity, sock = await answered(agent, call)
            assert identity == name
            writer.write(b"question")
            writer.write_eof()
            assert await tools.read_all(sock) == b"question"
            await tools.send_and_end(sock, b"answer")
            assert await reader.read() == b"answer"
            writer.close()
            sock.close()


async def test_the_stream_may_be_there_before_the_connection_is_confirmed(agent, sockets, tools, folder):
    await sockets.bind(bind(("one", folder / "1")))
    async with sockets.accept() as call:
        _, writer = await asyncio.open_unix_connection(folder / "1")
        request = await call.receive()
        sock, _ = await agent.greet(request.stream_id.encode())
        writer.write(b"early")
        writer.close()
        await call.send(ConnectResult(stream_id=request.stream_id))
        assert await tools.read_all(sock) == b"early"


async def test_a_connection_the_host_cannot_make_is_closed_at_once(agent, sockets, folder):
    await sockets.bind(bind(("one", folder / "1")))
    async with sockets.accept() as call:
        reader, writer = await asyncio.open_unix_connection(folder / "1")
        await answered(agent, call, error="nobody is there")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_connections_wait_until_somebody_accepts(agent, sockets, tools, folder):
    await sockets.bind(bind(("one", folder / "1")))
    _, writer = await asyncio.open_unix_connection(folder / "1")
    writer.write(b"patient")
    writer.close()
    async with sockets.accept() as call:
        _, sock = await answered(agent, call)
        assert await tools.read_all(sock) == b"patient"


async def test_one_host_accepts_at_a_time_and_another_when_it_has_left(agent, sockets, folder):
    await sockets.bind(bind(("one", folder / "1")))
    async with sockets.accept() as call:
        reader, writer = await asyncio.open_unix_connection(folder / "1")
        await call.receive()
        async with sockets.accept() as other:
            with pytest.raises(StatusError, match="another call") as info:
                await other.receive()
            assert info.value.code == Code.FAILED_PRECONDITION
    assert await asyncio.wait_for(reader.read(), 10) == b""  # its stream can never come
    writer.close()
    async with sockets.accept() as call:
        _, writer = await asyncio.open_unix_connection(folder / "1")
        assert (await answered(agent, call))[0] == "one"
        writer.close()


async def test_many_connections_at_once(agent, sockets, tools, folder):
    await sockets.bind(bind(("one", folder / "1")))
    before = agent.descriptors()

    async def ask(number: int) -> bytes:
        reader, writer = await asyncio.open_unix_connection(folder / "1")
        writer.write(b"%d" % number)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    async def serve(sock: socket.socket) -> None:
        await tools.send_and_end(sock, await tools.read_all(sock) + b"!")
        sock.close()

    async with sockets.accept() as call, asyncio.TaskGroup() as group:
        asking = [group.create_task(ask(number)) for number in range(100)]
        for _ in range(100):
            _, sock = await answered(agent, call)
            group.create_task(serve(sock))
        assert await asyncio.gather(*asking) == [b"%d!" % number for number in range(100)]
    await agent.eventually(lambda: agent.descriptors() <= before)


async def test_unbind_takes_the_socket_away_and_leaves_connections(agent, sockets, forward, tools, folder):
    await sockets.bind(bind(("one", folder / "1")))
    async with sockets.accept() as call:
        _, writer = await asyncio.open_unix_connection(folder / "1")
        _, sock = await answered(agent, call)
        await forward.unbind(UnbindRequest(forward_id="one"))
        assert os.listdir(folder) == []
        with pytest.raises(StatusError, match="'one' is not forwarded") as info:
            await forward.unbind(UnbindRequest(forward_id="one"))
        assert info.value.code == Code.NOT_FOUND
        writer.write(b"goes on")
        writer.close()
        assert await tools.read_all(sock) == b"goes on"
        await sockets.bind(bind(("one", folder / "1")))


async def test_of_several_sockets_all_are_made_or_none(agent, sockets, folder):
    (folder / "file").touch()
    before = agent.descriptors()
    for bad in (("two", folder / "file"), ("one", folder / "2"), ("two", folder / "no" / "2")):
        with pytest.raises(StatusError) as info:
            await sockets.bind(bind(("one", folder / "1"), bad))
        assert info.value.code in (Code.ALREADY_EXISTS, Code.NOT_FOUND)
        assert os.listdir(folder) == ["file"]
    assert agent.descriptors() == before


@pytest.mark.parametrize(
    ("name", "path"),
    [("", "/x"), ("x" * 65, "/x"), ("a b", "/x"), ("a", ""), ("a", "relative"), ("a", "/" + "x" * 107)],
)
async def test_what_cannot_be_bound_is_refused(sockets, name, path):
    with pytest.raises(StatusError) as info:
        await sockets.bind(bind((name, path)))
    assert info.value.code == Code.INVALID_ARGUMENT


async def test_a_socket_file_nobody_listens_on_is_replaced_and_a_live_one_is_not(agent, sockets, folder):
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(folder / "stale"))
    stale.close()
    await sockets.bind(bind(("one", folder / "stale")))
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(folder / "live"))
        live.listen()
        with pytest.raises(StatusError, match="live: Address already in use") as info:
            await sockets.bind(bind(("two", folder / "live")))
        assert info.value.code == Code.ALREADY_EXISTS


async def test_nothing_is_forwarded_before_the_set_up(new_agent, folder):
    for call in (
        ForwardClient(new_agent.client).dial(DialRequest(stream="stream://x", port=80)),
        SocketForwardClient(new_agent.client).bind(bind(("one", folder / "1"))),
    ):
        with pytest.raises(StatusError) as info:
            await call
        assert info.value.code == Code.FAILED_PRECONDITION
