"""Message sizes, full queues, stalled streams and peers that do not read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from sandbox_nb.ttrpc import Client, Code, Server, StatusError
from sandbox_nb.ttrpc.connection import ClientConnection, ServerConnection
from sandbox_nb.ttrpc.events import Responded, State
from sandbox_nb.ttrpc.frames import _HEADER, DATA, MAX_PAYLOAD, REMOTE_OPEN, REQUEST, RESPONSE
from sandbox_nb.ttrpc.inbox import INBOX_LIMIT

from .conftest import Peer
from .sample_pb2 import Item, Total
from .sample_ttrpc import SampleBase, SampleClient
from .service import SampleService

MIB = 1 << 20
OVER = Item(data=bytes(MAX_PAYLOAD))


async def consume(stream, into: list) -> None:
    async for item in stream:
        into.append(item)  # noqa: PERF401 - what came before an error counts


def fitting(size: int) -> Item:
    """Return an item that is ``size`` bytes when serialized."""
    item = Item(data=bytes(size - 16))
    item.data += bytes(size - item.ByteSize())
    assert item.ByteSize() == size
    return item


async def test_a_request_over_the_limit_is_refused_here_and_the_connection_survives(sample: SampleClient):
    with pytest.raises(StatusError, match=f"limit of {MAX_PAYLOAD} bytes") as caught:
        await sample.echo(OVER)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert await sample.echo(Item(number=1)) == Item(number=1)


async def test_an_answer_over_the_limit_costs_its_call_only(sample: SampleClient):
    with pytest.raises(StatusError, match=f"limit of {MAX_PAYLOAD} bytes") as caught:
        await sample.flood(Item(count=1, size=5 * MIB)).receive()
    assert caught.value.code is Code.RESOURCE_EXHAUSTED

    class Big(SampleBase):
        async def echo(self, request, context):
            return OVER

    ours, theirs = socket.socketpair()
    async with Server(Big()) as server, await Client.from_socket(ours) as client:
        await server.attach(theirs)
        for _ in range(2):
            with pytest.raises(StatusError) as caught:
                await SampleClient(client).echo(Item())
            assert caught.value.code is Code.RESOURCE_EXHAUSTED


async def test_a_message_of_just_the_limit_passes_in_a_stream(sample: SampleClient):
    async with sample.echo_all() as stream:
        await stream.send(fitting(MAX_PAYLOAD))
        assert (await stream.receive()).ByteSize() == MAX_PAYLOAD


async def test_a_message_over_the_limit_leaves_the_stream_as_it_was(sample: SampleClient):
    async with sample.echo_all() as stream:
        with pytest.raises(StatusError) as caught:
            await stream.send(OVER)
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        await stream.send(Item(number=1))
        assert await stream.receive() == Item(number=1)


async def test_a_client_that_is_sent_too_much_ends_that_call_and_goes_on(raw_server: tuple[SampleClient, Peer]):
    sample, peer = raw_server
    server = ServerConnection()
    call = asyncio.create_task(sample.echo(Item()))
    await peer.events(server)
    await peer.send(_HEADER.pack(20 * MIB, 1, RESPONSE, 0))
    with pytest.raises(StatusError, match=f"{20 * MIB} bytes") as caught:
        await call  # before the payload is there
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    call = asyncio.create_task(sample.echo(Item(number=1)))
    await peer.events(server)
    for _ in range(20):
        await peer.send(bytes(MIB))
    await peer.send(server.send_response(3, Item(number=2).SerializeToString()))
    assert await call == Item(number=2)


@pytest.mark.parametrize("kind", ["request", "message"])
async def test_a_server_that_is_sent_too_much_ends_that_call_and_goes_on(kind: str, raw_client: Peer, service):
    client = ClientConnection()
    stream, data = client.send_request(State.OPEN, "sandbox_nb.sample.v1.Sample", "Sum")
    if kind == "message":
        await raw_client.send(data)
        await service.until(running=1)
        await raw_client.send(_HEADER.pack(5 * MIB, stream, DATA, 0))
    else:
        await raw_client.send(_HEADER.pack(5 * MIB, stream, REQUEST, REMOTE_OPEN))
    [answer] = await raw_client.events(client)
    assert isinstance(answer, Responded)
    assert answer.error.code is Code.RESOURCE_EXHAUSTED
    await raw_client.send(bytes(5 * MIB))
    stream, data = client.send_request(State.UNARY, "sandbox_nb.sample.v1.Sample", "Echo", b"\x08\x01")
    await raw_client.send(data)
    assert await raw_client.events(client) == [Responded(stream, b"\x08\x01", None)]
    assert service.cancelled == (kind == "message")


async def test_a_stream_nobody_consumes_ends_alone_and_its_neighbours_go_on(sample: SampleClient):
    stalled = sample.flood(Item(count=100, size=MIB))
    neighbour = sample.echo_all()
    for number in range(200):
        await neighbour.send(Item(number=number))
        assert await neighbour.receive() == Item(number=number)
        assert await sample.echo(Item(number=number)) == Item(number=number)
    received = []
    with pytest.raises(StatusError, match="not consumed") as caught:
        await consume(stalled, into=received)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert 0 < len(received) <= INBOX_LIMIT // MIB
    neighbour.cancel()


async def test_a_handler_that_does_not_consume_ends_alone_and_its_neighbours_go_on(
    connect: Callable[[], Awaitable[Client]], server: Server
):
    class Stalled(SampleBase):
        SERVICE = "stalled"

        async def sum(self, requests, context):
            await asyncio.sleep(3600)

    server.register(Stalled())
    client = await connect()
    sample = SampleClient(client)
    stalled = client.client_stream("stalled", "Sum", Total)

    async def send() -> None:
        for _ in range(100):
            await stalled.send(Item(data=bytes(MIB)))
            assert await sample.echo(Item(number=1)) == Item(number=1)

    with pytest.raises(StatusError, match="not consumed") as caught:
        await send()
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    with pytest.raises(StatusError, match="not consumed"):
        await stalled.result()


async def test_a_response_that_finds_its_stream_full_ends_it_with_an_error(raw_server: tuple[SampleClient, Peer]):
    sample, peer = raw_server
    server = ServerConnection()
    stream = sample.divide(Item())
    await peer.events(server)
    payload = fitting(MAX_PAYLOAD - 100).SerializeToString()
    for _ in range(4):
        await peer.send(server.send_message(1, payload))
    await peer.send(server.send_response(1, payload))
    while stream._channel._receivers:
        await asyncio.sleep(0)
    received = []
    with pytest.raises(StatusError, match="not consumed"):
        await consume(stream, into=received)
    assert len(received) == 4


async def test_tiny_messages_that_nobody_consumes_are_bounded_too(sample: SampleClient):
    stalled = sample.flood(Item(count=10**9))
    while not (error := stalled._receiver.error):
        await sample.echo(Item())
    assert error.code is Code.RESOURCE_EXHAUSTED
    stalled.cancel()


async def test_a_fast_stream_that_is_consumed_never_overflows(sample: SampleClient):
    received = 0
    async for item in sample.flood(Item(count=400, size=MIB // 2)):
        assert item.number == received
        received += 1
    assert received == 400


async def test_a_client_that_does_not_read_is_not_read_from(server: Server, service: SampleService):
    """Its answers stay bounded, as it gets no further question in."""
    ours, theirs = socket.socketpair()
    await server.attach(theirs)
    with ours:
        ours.setblocking(False)
        connection = ClientConnection()
        payload = Item(data=bytes(64 << 10)).SerializeToString()
        sent = 0
        stuck = False
        while not stuck:
            _, data = connection.send_request(State.UNARY, "sandbox_nb.sample.v1.Sample", "Echo", payload)
            try:
                async with asyncio.timeout(0.5):
                    await asyncio.get_running_loop().sock_sendall(ours, data)
            except TimeoutError:
                stuck = True
            sent += len(data)
            assert sent < 32 * MIB


async def test_sending_waits_for_a_server_that_does_not_read(raw_server: tuple[SampleClient, Peer]):
    sample, _ = raw_server
    stream = sample.sum()

    async def send() -> None:
        while True:
            await stream.send(Item(data=bytes(MIB)))

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.2)
    assert stream._channel._transport.get_write_buffer_size() < 3 * MIB
    assert not sending.done()
    unary = asyncio.create_task(sample.echo(Item(), timeout=0.05))
    with pytest.raises(StatusError) as caught:
        await unary
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    sending.cancel()


async def test_more_open_calls_than_the_server_allows_are_refused(service: SampleService):
    ours, theirs = socket.socketpair()
    async with Server(service, max_streams=3) as server, await Client.from_socket(ours) as client:
        await server.attach(theirs)
        sample = SampleClient(client)
        streams = [sample.sum() for _ in range(3)]
        with pytest.raises(StatusError, match="3 calls are open") as caught:
            await sample.echo(Item())
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        for stream in streams:
            assert await stream.result() == Total()
        assert await sample.echo(Item()) == Item()
