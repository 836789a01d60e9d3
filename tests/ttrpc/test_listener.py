"""Listening: whose socket is where, and who is let in."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from sandbox_nb.ttrpc import Client, Server, listener

from .sample_pb2 import Item
from .sample_ttrpc import SampleClient
from .service import SampleService


async def test_a_socket_that_a_dead_process_left_is_replaced(server: Server, path: Path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    await server.listen(path)
    async with await Client.connect(path) as client:
        assert await SampleClient(client).echo(Item(number=1)) == Item(number=1)


async def test_a_path_where_another_server_listens_is_refused_and_the_other_goes_on(server: Server, path: Path):
    await server.listen(path)
    other = Server(SampleService())
    with pytest.raises(OSError, match="in use"):
        await other.listen(path)
    async with await Client.connect(path) as client:
        assert await SampleClient(client).echo(Item(number=1)) == Item(number=1)


async def test_what_is_no_socket_is_left_alone(server: Server, path: Path):
    os.mkdir(path)
    with pytest.raises(OSError, match="in use"):
        await server.listen(path)
    assert os.listdir(path) == []


async def test_an_abstract_name_works_as_a_given_socket(server: Server):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0sandbox_nb-test-{os.getpid()}")
    sock.listen()
    await server.listen(sock)
    ours = socket.socket(socket.AF_UNIX)
    ours.connect(sock.getsockname())
    async with await Client.from_socket(ours) as client:
        assert await SampleClient(client).echo(Item(number=1)) == Item(number=1)


async def test_it_accepts_again_after_it_ran_out_of_descriptors(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(listener, "PAUSE", 0.05)
    await server.listen(path)
    [listening] = server._listeners

    class Exhausted:
        """The listening socket, as it is without a descriptor left."""

        def fileno(self) -> int:
            return sock.fileno()

        def accept(self) -> None:
            listening._sock = sock
            raise OSError(24, "Too many open files")

        def close(self) -> None:
            sock.close()

    sock = listening._sock
    listening._sock = Exhausted()
    async with await Client.connect(path) as client:
        assert await SampleClient(client).echo(Item(number=1), timeout=60) == Item(number=1)
    assert "Too many open files" in caplog.text


async def test_many_clients_come_at_once(server: Server, path: Path):
    await server.listen(path)

    async def one(number: int) -> int:
        async with await Client.connect(path) as client:
            return (await SampleClient(client).echo(Item(number=number))).number

    assert await asyncio.gather(*map(one, range(100))) == list(range(100))
