"""Events/Stream: what happens to processes, as it happens."""

from __future__ import annotations

import asyncio
import time

import pytest

from sandbox_nb.guest.proto import events_pb2
from sandbox_nb.guest.proto.events_ttrpc import EventsClient
from sandbox_nb.ttrpc import Code, StatusError


async def next_event(stream):
    envelope = await asyncio.wait_for(anext(stream), 10)
    kind = getattr(events_pb2, envelope.event.TypeName().rpartition(".")[2])
    event = kind()
    assert envelope.event.Unpack(event)
    return envelope, event


async def test_start_and_exit_are_told_with_id_pid_and_end(agent):
    stream = aiter(EventsClient(agent.client).stream())
    await asyncio.sleep(0.05)
    identity, pid = await agent.start("sh", "-c", "exit 3", pid=True)
    envelope, started = await next_event(stream)
    assert (envelope.topic, envelope.namespace) == ("/process/start", "sandbox_nb")
    assert (started.id, started.pid) == (identity, pid)
    assert abs(envelope.timestamp.seconds - time.time()) < 60
    envelope, exited = await next_event(stream)
    assert envelope.topic == "/process/exit"
    assert (exited.id, exited.pid, exited.exit_code, exited.signal) == (identity, pid, 3, 0)


async def test_every_subscriber_is_told(agent):
    streams = [aiter(EventsClient(agent.client).stream()) for _ in range(3)]
    await asyncio.sleep(0.05)
    identity = await agent.start("true")
    for stream in streams:
        assert (await next_event(stream))[1].id == identity


async def test_a_stream_ends_with_its_time(agent):
    stream = aiter(EventsClient(agent.client).stream(timeout=0.2))
    with pytest.raises(StatusError) as info:
        await anext(stream)
    assert info.value.code == Code.DEADLINE_EXCEEDED
