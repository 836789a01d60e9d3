"""Forwards of a guest that says more than one does, without a machine."""

from __future__ import annotations

import asyncio
import socket

import pytest
from google.protobuf.empty_pb2 import Empty

from sandbox_nb import forward
from sandbox_nb.forward import Forwarder
from sandbox_nb.guest.proto.forward_ttrpc import ForwardBase
from sandbox_nb.guest.proto.socketforward_pb2 import ConnectRequest
from sandbox_nb.guest.proto.socketforward_ttrpc import SocketForwardBase
from sandbox_nb.ttrpc import Client, Server

TIMEOUT = 20


class Guest(SocketForwardBase):
    """Binds whatever it is told to, and asks for ``asks`` connections to each before it says no more."""

    def __init__(self):
        self.asks = 0
        self.accepts = 0
        self.bound = asyncio.Queue()
        self.results = []
        self.answered = asyncio.Event()
        self.over = asyncio.Event()

    async def bind(self, request, context):
        for each in request.sockets:
            self.bound.put_nowait(each.forward_id)
        return Empty()

    async def accept(self, requests, context):
        self.accepts += 1
        identity = await self.bound.get()
        for number in range(self.asks):
            yield ConnectRequest(forward_id=identity, stream_id=f"s-{number}")
        hearing = asyncio.create_task(self._hear(requests))
        await self.over.wait()
        hearing.cancel()

    async def _hear(self, results):
        async for result in results:
            self.results.append(result)
            if len(self.results) == self.asks:
                self.answered.set()


class Unbinder(ForwardBase):
    """Forgets whatever it is told to, once it may."""

    def __init__(self):
        self.may = asyncio.Event()
        self.may.set()

    async def unbind(self, request, context):
        await self.may.wait()
        return Empty()


@pytest.fixture
async def guest():
    return Guest()


@pytest.fixture
async def unbinder():
    return Unbinder()


@pytest.fixture
async def forwarder(guest, unbinder):
    """Forwards of a machine whose streams nobody ever opens."""

    async def never(identity):
        await asyncio.Event().wait()

    async with Server(guest, unbinder) as server:
        ours, theirs = socket.socketpair()
        await server.attach(theirs)
        async with await Client.from_socket(ours) as client:
            made = Forwarder(client, never)
            yield made
            await made.close()


@pytest.fixture
def target():
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        yield listener.getsockname()[1]


async def until(condition):
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_guest_has_so_many_connections_and_no_more(guest, forwarder, target, monkeypatch):
    monkeypatch.setattr(forward, "CALLERS", 7)
    guest.asks = 100
    made = await forwarder.forward_socket("/run/x", target)
    await asyncio.wait_for(guest.answered.wait(), TIMEOUT)
    refused = [result.error for result in guest.results if result.error]
    assert refused == ["7 connections to the host are there already"] * 93
    await made.close()
    assert forwarder._callers == 0


async def test_a_forward_ends_when_the_guest_tells_of_no_more_connections(guest, forwarder, target):
    made = await forwarder.forward_socket("/run/x", target)
    guest.over.set()
    await until(lambda: made.closed)
    assert forwarder.forwards == []
    guest.over.clear()
    again = await forwarder.forward_socket("/run/x", target)
    assert forwarder.forwards == [again]


async def test_a_socket_bound_while_those_before_it_are_closed_is_served(guest, unbinder, forwarder, target):
    unbinder.may.clear()
    made = await forwarder.forward_socket("/run/x", target)
    guest.over.set()
    await until(lambda: made.closed)
    guest.over.clear()
    again = await forwarder.forward_socket("/run/y", target)
    unbinder.may.set()
    await until(lambda: guest.accepts == 2)
    assert not again.closed
