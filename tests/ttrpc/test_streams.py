"""The three streaming kinds of call, from our client to our server."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.empty_pb2 import Empty

from sandbox_nb.ttrpc import Client, Code, StatusError

from .sample_pb2 import Item, Total
from .sample_ttrpc import SampleClient
from .service import SampleService


async def test_a_client_stream_is_summed(sample: SampleClient):
    async with sample.sum() as stream:
        for number in range(1, 101):
            await stream.send(Item(number=number))
        assert await stream.result() == Total(sum=5050, count=100)


async def test_a_client_stream_of_nothing_has_an_answer_too(sample: SampleClient):
    assert await sample.sum().result() == Total()


async def test_empty_messages_of_a_client_stream_count(sample: SampleClient):
    stream = sample.sum()
    for _ in range(3):
        await stream.send(Item())
    assert await stream.result() == Total(count=3)


async def test_a_server_stream_is_iterated_to_its_end(sample: SampleClient):
    parts = [item.number async for item in sample.divide(Item(number=10, count=4))]
    assert parts == [3, 3, 2, 2]


async def test_a_server_stream_of_nothing_just_ends(sample: SampleClient):
    stream = sample.flood(Item())
    assert await stream.receive() is None
    assert await stream.receive() is None


async def test_empty_messages_of_a_server_stream_are_delivered(sample: SampleClient):
    assert [item async for item in sample.divide(Item(number=0, count=3))] == [Item()] * 3


async def test_both_sides_send_in_turn(sample: SampleClient):
    async with sample.echo_all() as stream:
        for number in range(50):
            await stream.send(Item(number=number))
            assert await stream.receive() == Item(number=number)
        stream.close_send()
        assert await stream.receive() is None


async def test_both_sides_send_at_once(sample: SampleClient):
    async with sample.echo_all() as stream:

        async def send() -> None:
            for number in range(2000):
                await stream.send(Item(number=number))
            stream.close_send()

        sending = asyncio.create_task(send())
        assert [item.number async for item in stream] == list(range(2000))
        await sending


async def test_null_payloads_go_both_ways_in_a_stream(sample: SampleClient):
    async with sample.nothing_all() as stream:
        for _ in range(3):
            await stream.send(Empty())
            assert await stream.receive() == Empty()
        stream.close_send()
        stream.close_send()
        assert await stream.receive() is None


async def test_an_error_comes_after_the_messages_before_it(sample: SampleClient):
    stream = sample.divide(Item(number=1, count=2, delay_ms=1))
    assert [item async for item in stream] == [Item(number=1), Item()]
    stream = sample.divide(Item(number=1, count=-1))
    with pytest.raises(StatusError) as caught:
        [item async for item in stream]
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_sending_into_a_call_the_server_has_ended_raises_what_it_was_ended_with(client: Client):
    for begin in (client.client_stream, client.bidi_stream):
        stream = begin("sandbox_nb.sample.v1.Sample", "NoSuch", Item)

        async def send(stream=stream) -> None:
            while True:
                await stream.send(Item())
                await asyncio.sleep(0)

        with pytest.raises(StatusError) as caught:
            await send()
        assert caught.value.code is Code.UNIMPLEMENTED


async def test_sending_after_the_last_message_is_a_failed_precondition(sample: SampleClient):
    async with sample.sum() as stream:
        stream.close_send()
        with pytest.raises(StatusError, match="HALF_CLOSED") as caught:
            await stream.send(Item())
        assert caught.value.code is Code.FAILED_PRECONDITION
        assert await stream.result() == Total()


async def test_only_one_task_may_wait_for_the_next_message(sample: SampleClient):
    async with sample.echo_all() as stream:
        first = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await stream.receive()
        await stream.send(Item(number=1))
        assert await first == Item(number=1)


async def test_a_cancelled_receive_loses_no_message(sample: SampleClient):
    async with sample.echo_all() as stream:
        waiting = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await stream.send(Item(number=1))
        assert await stream.receive() == Item(number=1)


async def test_metadata_and_time_go_along_with_a_stream(client: Client, service: SampleService):
    sample = SampleClient(client)
    async with sample.sum(metadata={"k": "v"}, timeout=60) as stream:
        await service.until(running=1)
        assert service.contexts[-1].metadata == {"k": ["v"]}
        assert 0 < service.contexts[-1].time_remaining() <= 60
        await stream.result()


async def test_a_stream_shaped_method_answers_a_plain_call_with_one_message(client: Client):
    answer = await client.call("sandbox_nb.sample.v1.Sample", "Sum", Item(number=3), Total)
    assert answer == Total(sum=3, count=1)


async def test_a_method_that_answers_with_a_stream_refuses_a_plain_call(client: Client):
    with pytest.raises(StatusError, match="call it as one") as caught:
        await client.call("sandbox_nb.sample.v1.Sample", "Divide", Item(number=3, count=1), Item)
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_a_method_that_takes_one_message_refuses_a_second(client: Client):
    async with client.bidi_stream("sandbox_nb.sample.v1.Sample", "Delay", Item) as stream:
        await stream.send(Item(delay_ms=-1))
        with pytest.raises(StatusError, match="one message only") as caught:
            await stream.receive()
        assert caught.value.code is Code.INVALID_ARGUMENT
