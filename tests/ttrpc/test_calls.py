"""Unary calls, from our client to our server."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty

from sandbox_nb.ttrpc import Client, Code, Server, StatusError
from sandbox_nb.ttrpc.frames import REQUEST, RESPONSE
from sandbox_nb.ttrpc.proto.envelope_pb2 import Response

from .sample_pb2 import Failure, Item
from .sample_ttrpc import SampleBase, SampleClient
from .service import SampleService


async def test_echo(sample: SampleClient):
    assert await sample.echo(Item(number=7, data=b"\0\xff")) == Item(number=7, data=b"\0\xff")


async def test_an_empty_message_goes_both_ways(sample: SampleClient):
    assert await sample.echo(Item()) == Item()
    assert await sample.nothing() == Empty()


async def test_many_calls_share_a_connection_and_find_their_answers(sample: SampleClient):
    items = [Item(number=number, data=bytes(number)) for number in range(300)]
    assert await asyncio.gather(*map(sample.echo, items)) == items


async def test_a_tap_sees_the_frames_of_both_directions_until_it_is_taken_off(client: Client):
    sample, seen = SampleClient(client), []
    await sample.echo(Item(number=1))
    client.tap(lambda sent, frame: seen.append((sent, frame)))
    await sample.echo(Item(number=2))
    client.tap(None)
    await sample.echo(Item(number=3))
    (asked, request), (answered, response) = seen
    assert (asked, request.type, answered, response.type) == (True, REQUEST, False, RESPONSE)
    assert request.stream == response.stream
    assert request.length == len(request.payload)
    assert Item.FromString(Response.FromString(response.payload).payload) == Item(number=2)


async def test_a_slow_call_does_not_hold_up_a_later_one(sample: SampleClient, service: SampleService):
    slow = asyncio.create_task(sample.delay(Item(delay_ms=-1)))
    await service.until(running=1)
    assert await sample.echo(Item(number=1)) == Item(number=1)
    assert not slow.done()
    slow.cancel()


async def test_over_a_unix_socket_by_path(service: SampleService, path: Path):
    async with Server(service) as server:
        await server.listen(path)
        async with await Client.connect(path) as one, await Client.connect(path) as other:
            assert await SampleClient(one).echo(Item(number=1)) == Item(number=1)
            assert await SampleClient(other).echo(Item(number=2)) == Item(number=2)
    assert os.listdir(path.parent) == []


async def test_over_tcp_by_a_listening_socket(server: Server):
    listening = socket.create_server(("127.0.0.1", 0))
    await server.listen(listening)
    async with await Client.from_socket(socket.create_connection(listening.getsockname())) as client:
        assert await SampleClient(client).echo(Item(number=1)) == Item(number=1)


async def test_connecting_to_nobody_is_unavailable_and_names_the_path(path: Path):
    with pytest.raises(StatusError, match=str(path)) as caught:
        await Client.connect(path)
    assert caught.value.code is Code.UNAVAILABLE


async def test_a_status_keeps_code_message_and_details(sample: SampleClient):
    with pytest.raises(StatusError) as caught:
        await sample.fail(Failure(code=5, message="no such thing: ü", details=[Item(number=1), Item(number=2)]))
    error = caught.value
    assert (error.code, error.message) == (Code.NOT_FOUND, "no such thing: ü")
    assert str(error) == "NOT_FOUND: no such thing: ü"
    opened = [Item(), Item()]
    assert [detail.Unpack(item) for detail, item in zip(error.details, opened, strict=True)] == [True, True]
    assert [item.number for item in opened] == [1, 2]


async def test_an_unknown_code_is_kept(sample: SampleClient):
    with pytest.raises(StatusError) as caught:
        await sample.fail(Failure(code=1234, message="house rule"))
    assert caught.value.code == 1234
    assert not isinstance(caught.value.code, Code)
    assert str(caught.value) == "code 1234: house rule"


async def test_map_error_decides_what_is_raised_and_the_status_is_its_cause(server: Server):
    class OurError(Exception):
        pass

    ours, theirs = socket.socketpair()
    await server.attach(theirs)
    client = await Client.from_socket(ours, map_error=lambda error: OurError(error.message))
    sample = SampleClient(client)
    with pytest.raises(OurError, match="told to") as caught:
        await sample.fail(Failure(code=9, message="told to"))
    assert isinstance(caught.value.__cause__, StatusError)
    assert caught.value.__cause__.code is Code.FAILED_PRECONDITION
    async with sample.divide(Item(number=1, count=1)) as stream:
        assert [item async for item in stream] == [Item(number=1)]
    await client.aclose()
    with pytest.raises(OurError, match="closed"):
        await sample.echo(Item())
    with pytest.raises(OurError, match="closed"):
        sample.echo_all()


async def test_an_unknown_service_or_method_is_unimplemented(client: Client):
    with pytest.raises(StatusError, match="service 'no.such.Service'") as caught:
        await client.call("no.such.Service", "Echo", Item(), Item)
    assert caught.value.code is Code.UNIMPLEMENTED
    with pytest.raises(StatusError, match="method 'NoSuch'") as caught:
        await client.call("sandbox_nb.sample.v1.Sample", "NoSuch", Item(), Item)
    assert caught.value.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    "call",
    [
        lambda sample: sample.echo(Item()),
        lambda sample: sample.sum().result(),
        lambda sample: sample.divide(Item()).receive(),
        lambda sample: sample.echo_all().receive(),
    ],
    ids=["unary", "client-stream", "server-stream", "bidi-stream"],
)
async def test_a_method_not_overridden_is_unimplemented(call: Callable[[SampleClient], Awaitable]):
    ours, theirs = socket.socketpair()
    async with Server(SampleBase()) as server, await Client.from_socket(ours) as client:
        await server.attach(theirs)
        with pytest.raises(StatusError) as caught:
            await call(SampleClient(client))
    assert caught.value.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StatusError(Code.ABORTED, "as it is"), Code.ABORTED),
        (FileNotFoundError("gone"), Code.NOT_FOUND),
        (FileExistsError("there"), Code.ALREADY_EXISTS),
        (PermissionError("not you"), Code.PERMISSION_DENIED),
        (TimeoutError("late"), Code.DEADLINE_EXCEEDED),
        (NotImplementedError("some day"), Code.UNIMPLEMENTED),
        (asyncio.CancelledError(), Code.CANCELLED),
    ],
)
async def test_an_exception_of_a_handler_becomes_a_status(error: BaseException, code: Code):
    class Raising(SampleBase):
        async def echo(self, request, context):
            raise error

    ours, theirs = socket.socketpair()
    async with Server(Raising()) as server, await Client.from_socket(ours) as client:
        await server.attach(theirs)
        with pytest.raises(StatusError) as caught:
            await SampleClient(client).echo(Item())
    assert caught.value.code is code


async def test_any_other_exception_of_a_handler_is_unknown_and_logged(caplog: pytest.LogCaptureFixture):
    class Raising(SampleBase):
        async def echo(self, request, context):
            raise ZeroDivisionError("by nought")

    ours, theirs = socket.socketpair()
    async with Server(Raising()) as server, await Client.from_socket(ours) as client:
        await server.attach(theirs)
        with pytest.raises(StatusError, match="ZeroDivisionError: by nought") as caught:
            await SampleClient(client).echo(Item())
        assert caught.value.code is Code.UNKNOWN
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


async def test_metadata_arrives_with_lower_case_keys_and_values_in_order(sample: SampleClient):
    answer = await sample.metadata(metadata={"Tenant": "a", "hop": ["1", "2"], "empty": ""})
    assert sorted(answer.texts) == ["empty=", "hop=1", "hop=2", "tenant=a"]
    assert list((await sample.metadata()).texts) == []


async def test_an_answer_that_is_no_such_message_is_internal(client: Client):
    wrong = Item(data=b"\xff")  # a Failure has a string there
    with pytest.raises(StatusError, match=r"is no sandbox_nb\.sample\.v1\.Failure") as caught:
        await client.call("sandbox_nb.sample.v1.Sample", "Echo", wrong, Failure)
    assert caught.value.code is Code.INTERNAL


async def test_a_request_that_is_no_such_message_is_an_invalid_argument(client: Client):
    wrong = Item(data=b"\xff")
    with pytest.raises(StatusError, match=r"is no sandbox_nb\.sample\.v1\.Failure") as caught:
        await client.call("sandbox_nb.sample.v1.Sample", "Fail", wrong, Item)
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_two_services_of_one_name_are_refused(service: SampleService):
    with pytest.raises(ValueError, match=r"sandbox_nb\.sample\.v1\.Sample is registered already"):
        Server(service, SampleService())
