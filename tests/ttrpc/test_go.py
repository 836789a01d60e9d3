"""Against containerd's own library, in Go, which nobody here wrote: as its client and as its server.

Twice: on Debian's library, which is unary, and on a newer one with streams, where that can be had.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from sandbox_nb.ttrpc import Client, Code, Context, Method, Server, StatusError
from sandbox_nb.ttrpc.connection import ClientConnection
from sandbox_nb.ttrpc.events import State

from .conftest import Peer
from .go import build

NAME = "interop.Peer"
MIB = 1 << 20


class PeerService:
    """What the program in Go offers too."""

    SERVICE = NAME
    METHODS = (
        Method("Echo", "echo", BytesValue),
        Method("Fail", "fail", Int64Value),
        Method("Delay", "delay", Int64Value),
        Method("Metadata", "metadata", StringValue),
        Method("Sum", "sum", Int64Value, client_streams=True),
        Method("Count", "count", Int64Value, server_streams=True),
        Method("EchoAll", "echo_all", BytesValue, client_streams=True, server_streams=True),
    )

    def __init__(self) -> None:
        self.cancelled = 0

    async def echo(self, request: BytesValue, context: Context) -> BytesValue:
        return request

    async def fail(self, request: Int64Value, context: Context) -> Int64Value:
        raise StatusError(request.value, "as told")

    async def delay(self, request: Int64Value, context: Context) -> Int64Value:
        try:
            await asyncio.sleep(request.value / 1e3)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return request

    async def metadata(self, request: StringValue, context: Context) -> StringValue:
        return StringValue(value=context.metadata[request.value][0])

    async def sum(self, requests: AsyncIterator[Int64Value], context: Context) -> Int64Value:
        return Int64Value(value=sum([number.value async for number in requests]))

    async def count(self, request: Int64Value, context: Context) -> AsyncIterator[Int64Value]:
        for number in range(request.value, 0, -1):
            yield Int64Value(value=number)

    async def echo_all(self, requests: AsyncIterator[BytesValue], context: Context) -> AsyncIterator[BytesValue]:
        async for message in requests:
            yield message


@pytest.fixture(scope="session")
def unary_peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _built(build.unary, tmp_path_factory)


@pytest.fixture(scope="session")
def streaming_peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _built(build.streaming, tmp_path_factory)


def _built(builder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return builder(tmp_path_factory.mktemp("go"))
    except build.NotToBeHad as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["unary_peer", "streaming_peer"])
def peer(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@contextlib.asynccontextmanager
async def serving(program: Path, path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the program as a server."""
    process = await asyncio.create_subprocess_exec(
        program, "serve", path, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def results_of(program: Path, path: Path, service: PeerService) -> dict[str, object]:
    """Let the program call our server; return what it saw, by name."""
    async with Server(service) as server:
        await server.listen(path)
        process = await asyncio.create_subprocess_exec(
            program, "call", path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err
    results: dict[str, object] = {}
    for line in map(json.loads, out.splitlines()):
        results.setdefault(line["name"], []).append(line.get("code", line.get("value")))
    return results


UNARY = {
    "echo": [5],
    "echo empty": [0],
    "echo large": [4 * MIB - 100],
    "fail": ["NotFound"],
    "no method": ["Unimplemented"],
    "no service": ["Unimplemented"],
    "too late": ["DeadlineExceeded"],
    "metadata": ["a"],
    "many at once": [200],
    "echo after all that": [5],
}


async def test_go_calls_our_unary_methods(unary_peer: Path, path: Path):
    service = PeerService()
    expected = {**UNARY, "echo oversize": ["ResourceExhausted"], "echo after oversize": [5]}
    assert await results_of(unary_peer, path, service) == expected
    assert service.cancelled == 1


async def test_go_calls_our_streams(streaming_peer: Path, path: Path):
    service = PeerService()
    expected = {**UNARY, "sum": [5050], "count": [100, 0, 0], "echo all": [100]}
    assert await results_of(streaming_peer, path, service) == expected
    assert service.cancelled == 1


async def test_we_call_unary_methods_of_go(peer: Path, path: Path):
    async with serving(peer, path), await Client.connect(path) as client:
        for size in (0, 1, 1024, 4 * MIB - 100):
            message = BytesValue(value=bytes(size))
            assert await client.call(NAME, "Echo", message, BytesValue) == message
        answer = await client.call(
            NAME, "Metadata", StringValue(value="tenant"), StringValue, metadata={"Tenant": "a"}
        )
        assert answer.value == "a"
        for code in (Code.NOT_FOUND, Code.UNAUTHENTICATED, 999):
            with pytest.raises(StatusError, match="as told") as caught:
                await client.call(NAME, "Fail", Int64Value(value=code), Int64Value)
            assert caught.value.code == code
        for service, method in ((NAME, "NoSuch"), ("no.such.Service", "Echo")):
            with pytest.raises(StatusError) as caught:
                await client.call(service, method, Int64Value(), Int64Value)
            assert caught.value.code is Code.UNIMPLEMENTED
        calls = [client.call(NAME, "Delay", Int64Value(value=number % 7), Int64Value) for number in range(200)]
        assert [answer.value for answer in await asyncio.gather(*calls)] == [number % 7 for number in range(200)]


async def test_too_large_an_answer_of_go_costs_that_call_only(peer: Path, path: Path):
    async with serving(peer, path), await Client.connect(path) as client:
        with pytest.raises(StatusError) as caught:
            await client.call(NAME, "Big", Int64Value(value=20 * MIB), BytesValue)
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert len((await client.call(NAME, "Big", Int64Value(value=MIB), BytesValue)).value) == MIB


async def test_go_keeps_the_time_we_tell_it(peer: Path, path: Path):
    async with serving(peer, path):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            connection, raw = ClientConnection(), Peer(sock)
            payload = Int64Value(value=60_000).SerializeToString()
            _, data = connection.send_request(State.UNARY, NAME, "Delay", payload, timeout_nano=50_000_000)
            await raw.send(data)
            [answer] = await raw.events(connection)
    assert answer.error.code is Code.DEADLINE_EXCEEDED


async def test_a_server_of_go_that_dies_ends_pending_calls(peer: Path, path: Path):
    async with serving(peer, path) as process, await Client.connect(path) as client:
        call = asyncio.create_task(client.call(NAME, "Delay", Int64Value(value=60_000), Int64Value))
        await client.call(NAME, "Echo", BytesValue(), BytesValue)
        process.kill()
        with pytest.raises(StatusError) as caught:
            await call
        assert caught.value.code is Code.UNAVAILABLE


async def test_we_send_a_stream_to_go(streaming_peer: Path, path: Path):
    async with serving(streaming_peer, path), await Client.connect(path) as client:
        async with client.client_stream(NAME, "Sum", Int64Value) as stream:
            for number in range(101):
                await stream.send(Int64Value(value=number))
            assert (await stream.result()).value == 5050
        assert (await client.client_stream(NAME, "Sum", Int64Value).result()).value == 0


@pytest.mark.parametrize("count", [0, 1, 5000])
async def test_we_receive_a_stream_of_go(count: int, streaming_peer: Path, path: Path):
    async with serving(streaming_peer, path), await Client.connect(path) as client:
        stream = client.server_stream(NAME, "Count", Int64Value(value=count), Int64Value)
        assert [number.value async for number in stream] == list(range(count, 0, -1))


async def test_we_and_go_stream_to_each_other(streaming_peer: Path, path: Path):
    async with serving(streaming_peer, path), await Client.connect(path) as client:
        stream = client.bidi_stream(NAME, "EchoAll", BytesValue)
        for size in (0, 1, 100, 4 * MIB - 100):
            await stream.send(BytesValue(value=bytes(size)))
            assert len((await stream.receive()).value) == size
        stream.close_send()
        assert await stream.receive() is None


async def test_leaving_a_stream_to_go_lets_the_connection_go_on(streaming_peer: Path, path: Path):
    async with serving(streaming_peer, path), await Client.connect(path) as client:
        async with client.bidi_stream(NAME, "EchoAll", BytesValue) as stream:
            await stream.send(BytesValue(value=b"one"))
        async with client.server_stream(NAME, "Count", Int64Value(value=1000), Int64Value) as counting:
            assert (await counting.receive()).value == 1000
        assert await client.call(NAME, "Echo", BytesValue(value=b"x"), BytesValue) == BytesValue(value=b"x")


async def test_a_stream_unknown_to_go_is_unimplemented(streaming_peer: Path, path: Path):
    async with serving(streaming_peer, path), await Client.connect(path) as client:
        with pytest.raises(StatusError) as caught:
            await client.bidi_stream(NAME, "NoSuch", BytesValue).receive()
        assert caught.value.code is Code.UNIMPLEMENTED
