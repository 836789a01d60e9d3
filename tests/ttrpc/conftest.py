from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sandbox_nb.ttrpc import Client, Server
from sandbox_nb.ttrpc.connection import ClientConnection, ServerConnection

from .sample_ttrpc import SampleClient
from .service import SampleService


class Peer:
    """The other end of a connection, by hand: a sans-IO core and a socket, for peers that misbehave."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def events(self, connection: ClientConnection | ServerConnection) -> list:
        """Return what the next bytes mean, waiting for some; the empty list is the end of the connection."""
        while data := await asyncio.get_running_loop().sock_recv(self.sock, 65536):
            if found := connection.receive_data(data):
                return found
        return []


@pytest.fixture
def service() -> SampleService:
    return SampleService()


@pytest.fixture
async def server(service: SampleService) -> AsyncIterator[Server]:
    async with Server(service) as server:
        yield server


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    """Makes a client of `server`."""
    clients = []

    async def connect() -> Client:
        ours, theirs = socket.socketpair()
        await server.attach(theirs)
        clients.append(await Client.from_socket(ours))
        return clients[-1]

    yield connect
    for client in clients:
        await client.aclose()


@pytest.fixture
async def client(connect: Callable[[], Awaitable[Client]]) -> Client:
    return await connect()


@pytest.fixture
def sample(client: Client) -> SampleClient:
    return SampleClient(client)


@pytest.fixture
async def raw_server() -> AsyncIterator[tuple[SampleClient, Peer]]:
    """A client of ours, and its server by hand."""
    ours, theirs = socket.socketpair()
    with theirs:
        async with await Client.from_socket(ours) as client:
            yield SampleClient(client), Peer(theirs)


@pytest.fixture
async def raw_client(server: Server) -> AsyncIterator[Peer]:
    """A client by hand of our server."""
    ours, theirs = socket.socketpair()
    with ours:
        await server.attach(theirs)
        yield Peer(ours)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"
