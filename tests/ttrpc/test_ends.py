"""How calls end before their time: deadlines, cancellation, either side going away, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sandbox_nb.ttrpc import Client, Code, Server, StatusError
from sandbox_nb.ttrpc.connection import ClientConnection, ServerConnection
from sandbox_nb.ttrpc.events import Responded, State
from sandbox_nb.ttrpc.frames import DATA, encode_frame

from .conftest import Peer
from .sample_pb2 import Item, Total
from .sample_ttrpc import SampleClient
from .service import SampleService

NEVER = Item(delay_ms=-1)


async def code_of(call: Awaitable) -> int:
    with pytest.raises(StatusError) as caught:
        await call
    return caught.value.code


# -- time


async def test_the_client_keeps_the_time_itself_and_tells_the_server(raw_server: tuple[SampleClient, Peer]):
    sample, peer = raw_server
    call = asyncio.create_task(sample.echo(Item(), timeout=0.05))
    [request] = await peer.events(ServerConnection())
    assert 0 < request.request.timeout_nano <= 50_000_000
    assert await code_of(call) is Code.DEADLINE_EXCEEDED


async def test_an_answer_after_the_deadline_is_ignored(raw_server: tuple[SampleClient, Peer]):
    sample, peer = raw_server
    server = ServerConnection()
    call = asyncio.create_task(sample.echo(Item(), timeout=0.01))
    await peer.events(server)
    assert await code_of(call) is Code.DEADLINE_EXCEEDED
    next_call = asyncio.create_task(sample.echo(Item(number=2)))
    await peer.events(server)
    await peer.send(server.send_response(1, b"\x08\x01") + server.send_response(3, b"\x08\x02"))
    assert await next_call == Item(number=2)


async def test_the_server_keeps_the_time_it_was_told_and_cancels_the_handler(
    raw_client: Peer, service: SampleService
):
    client = ClientConnection()
    _, data = client.send_request(
        State.UNARY, "sandbox_nb.sample.v1.Sample", "Delay", NEVER.SerializeToString(), timeout_nano=50_000_000
    )
    await raw_client.send(data)
    await service.until(running=1)
    assert 0 <= service.contexts[0].time_remaining() <= 0.05
    [answer] = await raw_client.events(client)
    assert answer.error.code is Code.DEADLINE_EXCEEDED
    await service.until(running=0)
    assert service.cancelled == 1


@pytest.mark.parametrize("timeout", [0, -1, 1e-12])
async def test_a_call_without_time_is_not_made(timeout: float, sample: SampleClient, service: SampleService):
    assert await code_of(sample.delay(NEVER, timeout=timeout)) is Code.DEADLINE_EXCEEDED
    with pytest.raises(StatusError):
        sample.divide(Item(), timeout=timeout)
    assert service.contexts == []


@pytest.mark.parametrize("timeout", [None, 1e300, float("inf")])
async def test_time_may_be_without_end(timeout: float | None, sample: SampleClient, service: SampleService):
    await sample.delay(Item(), timeout=timeout)
    assert service.contexts[0].time_remaining() is None


async def test_a_deadline_is_for_all_of_a_stream(sample: SampleClient, service: SampleService):
    stream = sample.echo_all(timeout=0.1)
    await stream.send(Item(number=1))
    assert await stream.receive() == Item(number=1)
    assert await code_of(stream.receive()) is Code.DEADLINE_EXCEEDED
    assert await code_of(stream.send(Item())) is Code.DEADLINE_EXCEEDED
    await service.until(running=0)


# -- leaving a call


async def test_a_cancelled_call_is_left_and_the_connection_goes_on(sample: SampleClient, service: SampleService):
    call = asyncio.create_task(sample.delay(Item(delay_ms=50)))
    await service.until(running=1)
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    await service.until(running=0)
    assert await sample.echo(Item(number=1)) == Item(number=1)


async def test_leaving_the_block_of_a_stream_tells_the_server_that_no_message_comes(
    sample: SampleClient, service: SampleService
):
    async with sample.echo_all() as stream:
        await stream.send(Item(number=1))
        assert await stream.receive() == Item(number=1)
    await service.until(running=0)
    assert await code_of(stream.receive()) is Code.CANCELLED
    assert await code_of(stream.send(Item())) is Code.CANCELLED


async def test_cancelling_a_stream_ends_who_waits_for_it(sample: SampleClient):
    stream, summed = sample.echo_all(), sample.sum()
    waiting = [asyncio.create_task(code_of(stream.receive())), asyncio.create_task(code_of(summed.result()))]
    await asyncio.sleep(0)
    stream.cancel()
    summed.cancel()
    assert await asyncio.gather(*waiting) == [Code.CANCELLED, Code.CANCELLED]


async def test_a_stream_that_was_left_may_still_send(raw_server: tuple[SampleClient, Peer]):
    sample, peer = raw_server
    server = ServerConnection()
    stream = sample.divide(Item())
    await peer.events(server)
    stream.cancel()
    call = asyncio.create_task(sample.echo(Item()))
    await peer.events(server)
    await peer.send(server.send_message(1, b"") + server.send_end(1) + server.send_response(3, b""))
    assert await call == Item()


# -- the caller goes away


async def test_handlers_are_cancelled_when_the_caller_leaves(client: Client, service: SampleService):
    sample = SampleClient(client)
    calls = [asyncio.create_task(sample.delay(NEVER)), asyncio.create_task(sample.sum().result())]
    streams = [sample.echo_all(), sample.echo_all()]
    await service.until(running=3)
    await client.aclose()
    await service.until(running=0)
    assert service.cancelled == 3
    del streams
    await asyncio.wait(calls)


async def test_what_the_server_knew_of_a_caller_goes_with_it(server: Server, service: SampleService):
    ours, theirs = socket.socketpair()
    await server.attach(theirs)
    async with await Client.from_socket(ours) as client:
        await SampleClient(client).echo(Item())
        [channel] = server._registry.channels
        gone = weakref.ref(channel)
        del channel
    while server._registry.channels:
        await asyncio.sleep(0.01)
    gc.collect()
    assert gone() is None


# -- the server goes away


async def test_every_pending_call_ends_at_once_when_the_server_goes(raw_server: tuple[SampleClient, Peer]):
    sample, peer = raw_server
    stream, summed = sample.echo_all(), sample.sum()
    calls = [sample.echo(Item()), sample.echo(Item(), timeout=3600), stream.receive(), summed.result()]
    pending = [asyncio.create_task(code_of(call)) for call in calls]
    await peer.events(ServerConnection())
    peer.sock.close()
    assert await asyncio.gather(*pending) == [Code.UNAVAILABLE] * 4
    assert await code_of(stream.send(Item())) is Code.UNAVAILABLE
    assert await code_of(sample.echo(Item())) is Code.UNAVAILABLE


async def test_messages_that_came_before_the_server_went_are_delivered(raw_server: tuple[SampleClient, Peer]):
    sample, peer = raw_server
    server = ServerConnection()
    stream = sample.divide(Item())
    await peer.events(server)
    await peer.send(server.send_message(1, b"\x08\x01") + server.send_message(1, b"\x08\x02"))
    peer.sock.close()
    await stream._channel.wait_lost()
    assert await stream.receive() == Item(number=1)
    assert await stream.receive() == Item(number=2)
    assert await code_of(stream.receive()) is Code.UNAVAILABLE


async def test_a_torn_frame_at_the_end_is_an_end(raw_server: tuple[SampleClient, Peer]):
    sample, peer = raw_server
    server = ServerConnection()
    call = asyncio.create_task(code_of(sample.echo(Item())))
    await peer.events(server)
    await peer.send(server.send_response(1, b"\x08\x01")[:-1])
    peer.sock.close()
    assert await call is Code.UNAVAILABLE


async def test_a_server_that_breaks_the_protocol_ends_every_call(
    raw_server: tuple[SampleClient, Peer],
):
    sample, peer = raw_server
    call = asyncio.create_task(code_of(sample.echo(Item())))
    await peer.events(ServerConnection())
    await peer.send(encode_frame(77, 2, 0, b""))
    assert await call is Code.INTERNAL
    assert await peer.events(ServerConnection()) == []
    assert await code_of(sample.echo(Item())) is Code.INTERNAL


async def test_a_message_where_one_response_is_due_costs_that_call_only(raw_server: tuple[SampleClient, Peer]):
    sample, peer = raw_server
    server = ServerConnection()
    summed, other = sample.sum(), sample.sum()
    while not server.is_open(3):
        await peer.events(server)
    await peer.send(server.send_message(1, b"") + server.send_response(3, b"\x08\x07"))
    assert await code_of(summed.result()) is Code.INTERNAL
    assert await other.result() == Total(sum=7)


async def test_an_end_where_one_response_is_due_costs_that_call_only(raw_server: tuple[SampleClient, Peer]):
    sample, peer = raw_server
    server = ServerConnection()
    summed = sample.sum()
    await peer.events(server)
    await peer.send(server.send_end(1))
    assert await code_of(summed.result()) is Code.INTERNAL
    assert not sample._client.closed


@pytest.mark.parametrize(("payload", "last"), [(b"\x08\x07", [Item(number=7)]), (b"", [])])
async def test_a_response_ends_a_stream_with_a_last_message_unless_it_is_empty(
    payload: bytes, last: list[Item], raw_server: tuple[SampleClient, Peer]
):
    sample, peer = raw_server
    server = ServerConnection()
    stream = sample.divide(Item())
    await peer.events(server)
    await peer.send(server.send_message(1, b"\x08\x01") + server.send_response(1, payload))
    assert [item async for item in stream] == [Item(number=1), *last]


async def test_closed_says_so_and_wait_closed_wakes(raw_server: tuple[SampleClient, Peer]):
    sample, peer = raw_server
    client = sample._client
    assert not client.closed
    waiting = asyncio.create_task(client.wait_closed())
    await asyncio.sleep(0)
    assert not waiting.done()
    peer.sock.close()
    await waiting
    assert client.closed
    await client.aclose()


async def test_closing_ends_every_pending_call(client: Client, service: SampleService):
    call = asyncio.create_task(code_of(SampleClient(client).delay(NEVER)))
    await service.until(running=1)
    await client.aclose()
    await client.aclose()
    assert await call is Code.UNAVAILABLE
    assert client.closed


async def test_closing_does_not_wait_for_a_server_that_does_not_read(raw_server: tuple[SampleClient, Peer]):
    sample, _ = raw_server
    call = asyncio.create_task(code_of(sample.echo(Item(data=bytes(4_000_000)))))
    await asyncio.sleep(0.05)
    await sample._client.aclose()
    assert await call is Code.UNAVAILABLE


# -- shutdown


async def test_shutdown_lets_calls_finish_and_refuses_new_ones(
    connect: Callable[[], Awaitable[Client]], server: Server, service: SampleService
):
    sample = SampleClient(await connect())
    idle = await connect()
    call = asyncio.create_task(sample.delay(Item(number=1, delay_ms=200)))
    await service.until(running=1)
    ending = asyncio.create_task(server.shutdown())
    await idle.wait_closed()
    assert await code_of(sample.echo(Item())) is Code.UNAVAILABLE
    assert await call == Item(number=1, delay_ms=200)
    await ending
    assert service.cancelled == 0
    await sample._client.wait_closed()


async def test_shutdown_with_streams_open_cuts_them_off_when_the_time_is_over(
    client: Client, server: Server, service: SampleService
):
    sample = SampleClient(client)
    streams = [sample.echo_all(), sample.echo_all()]
    pending = [asyncio.create_task(code_of(stream.receive())) for stream in streams]
    await service.until(running=2)
    await server.shutdown(timeout=0.1)
    assert await asyncio.gather(*pending) == [Code.UNAVAILABLE, Code.UNAVAILABLE]
    assert (service.running, service.cancelled) == (0, 2)


async def test_shutdown_sends_what_was_answered(service: SampleService):
    ours, theirs = socket.socketpair()
    server = Server(service)
    await server.attach(theirs)
    async with await Client.from_socket(ours) as client:
        call = asyncio.create_task(SampleClient(client).echo(Item(data=bytes(4_000_000))))
        while not any(channel._calls for channel in server._registry.channels):
            await asyncio.sleep(0)
        await server.shutdown()
        assert len((await call).data) == 4_000_000


async def test_shutdown_removes_its_socket_but_nobody_elses(service: SampleService, path: Path):
    server = Server(service)
    await server.listen(path)
    await server.shutdown()
    assert os.listdir(path.parent) == []
    with pytest.raises(RuntimeError, match="shut down"):
        await server.listen(path)
    server = Server(service)
    await server.listen(path)
    os.rename(path, path.with_name("moved"))
    path.with_name("s").touch()
    await server.aclose()
    assert sorted(os.listdir(path.parent)) == ["moved", "s"]


@pytest.mark.parametrize("turns", range(5))
async def test_a_client_that_is_just_being_accepted_is_ended_too(turns: int, service: SampleService, path: Path):
    server = Server(service)
    await server.listen(path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        for _ in range(turns):
            await asyncio.sleep(0)
        await server.aclose()
        with contextlib.suppress(ConnectionResetError):
            assert await Peer(sock).events(ClientConnection()) == []
    assert not server._registry.channels


# -- clients that break the protocol


async def test_a_client_that_breaks_the_protocol_on_one_stream_keeps_the_others(
    raw_client: Peer, service: SampleService
):
    client = ClientConnection()
    stream, data = client.send_request(
        State.UNARY, "sandbox_nb.sample.v1.Sample", "Delay", NEVER.SerializeToString()
    )
    await raw_client.send(data)
    await service.until(running=1)
    await raw_client.send(encode_frame(stream, DATA, 0, b""))
    [answer] = await raw_client.events(client)
    assert answer.error.code is Code.INVALID_ARGUMENT
    await service.until(running=0)
    stream, data = client.send_request(State.UNARY, "sandbox_nb.sample.v1.Sample", "Echo", b"\x08\x05")
    await raw_client.send(data)
    assert await raw_client.events(client) == [Responded(stream, b"\x08\x05", None)]


async def test_messages_for_a_call_that_is_answered_are_ignored(raw_client: Peer):
    client = ClientConnection()
    stream, data = client.send_request(State.OPEN, "sandbox_nb.sample.v1.Sample", "Fail", b"\x08\x05")
    await raw_client.send(data)
    late = client.send_message(stream, b"") + client.send_end(stream)
    [answer] = await raw_client.events(client)
    assert answer.error.code is Code.NOT_FOUND
    stream, data = client.send_request(State.UNARY, "sandbox_nb.sample.v1.Sample", "Echo", b"\x08\x05")
    await raw_client.send(late + data)
    assert await raw_client.events(client) == [Responded(stream, b"\x08\x05", None)]
