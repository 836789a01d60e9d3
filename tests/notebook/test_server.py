"""The server extension, in a real Jupyter server: websockets of pages joined to terminals of kernels.

The terminals are of this process; to the server that makes no difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import urllib.request
import uuid

import pytest
from lab import skipping
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from sandbox_nb.bench.terminal_page import WITHOUT_WIRES, Server
from sandbox_nb.notebook.terminal_wire import Wire, pack, unpack

BASE = "/user/someone/"
TOLD = '"sandboxNbWire": true'


@pytest.fixture(scope="module")
def server():
    """A server behind whose address there is more, as with a hub."""
    with skipping(), Server(options=[f"--ServerApp.base_url={BASE}"]) as server:
        server.kernel = server.api("kernels", "POST")["id"]
        yield server


class Terminal:
    """A terminal that says back what it is told, and counts the pages that went."""

    def __init__(self):
        self.name = secrets.token_hex(16)
        self.sends = []
        self.lost = 0
        self.wire = Wire(self.name, self._receive, self._lose)
        self.wire.listen()

    def _receive(self, message, data, send):
        self.sends.append(send)
        send(message, data)

    def _lose(self, _):
        self.lost += 1


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.wire.close()


class Page:
    """A page's websocket to a terminal."""

    def __init__(self, websocket):
        self.websocket = websocket
        self.closed = False

    async def send(self, message, data=b""):
        await self.websocket.write_message(pack(message, data), binary=True)

    async def receive(self):
        """The next message and its buffer; None at the end."""
        frame = await asyncio.wait_for(self.websocket.read_message(), 10)
        self.closed = frame is None
        return None if frame is None else unpack(frame)

    async def ask(self, message, data=b""):
        """Send a message to the terminal, and return what it says back."""
        await self.send(message, data)
        return await self.receive()


@contextlib.asynccontextmanager
async def page(server, name, *, kernel=None, token=None, headers=None):
    kernel, token = kernel or server.kernel, server.token if token is None else token
    url = f"{server.address}sandbox-nb/kernels/{kernel}/terminals/{name}?token={token}"
    request = HTTPRequest(f"ws{url.removeprefix('http')}", headers=headers)
    page = Page(await websocket_connect(request, max_message_size=2**24))
    try:
        yield page
    finally:
        page.websocket.close()
        while not page.closed:
            await page.receive()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def refused(*args, **kwargs):
    """With which status a call is answered that is not taken."""
    with pytest.raises(HTTPClientError) as caught:
        async with page(*args, **kwargs):
            pass
    return caught.value.code


async def test_messages_and_bytes_go_both_ways_in_order(server, terminal):
    async with page(server, terminal.name) as one:
        for number, data in enumerate([b"", b"x", b"\0\n\xff", bytes(3_000_000), b"last"]):
            assert await one.ask({"number": number}, data) == ({"number": number}, data)


async def test_a_terminal_may_say_much_at_once(server, terminal):
    async with page(server, terminal.name) as one:
        await one.ask({})
        for number in range(100):
            await asyncio.to_thread(terminal.sends[0], {"number": number}, bytes(10_000))
        for number in range(100):
            assert await one.receive() == ({"number": number}, bytes(10_000))


async def test_a_page_that_goes_is_lost_to_the_terminal_and_others_are_not(server, terminal):
    async with page(server, terminal.name) as second:
        async with page(server, terminal.name) as first:
            await first.ask({})
            await second.ask({})
        await until(lambda: terminal.lost == 1)
        assert await second.ask({"still": "there"}) == ({"still": "there"}, b"")
    await until(lambda: terminal.lost == 2)


async def test_a_page_is_closed_when_the_terminal_gives_it_up(server, terminal):
    async with page(server, terminal.name) as one:
        assert await one.ask({}, b"") == ({}, b"")
        await one.websocket.write_message(b"no message\n", binary=True)
        assert await one.receive() is None


async def test_a_page_that_sends_text_is_told_and_closed(server, terminal):
    async with page(server, terminal.name) as one:
        await one.websocket.write_message("{}")
        assert await one.receive() is None
        assert one.websocket.close_code == 1003
    await until(lambda: terminal.lost == 1)


async def test_nobody_is_let_in_without_the_token_or_from_another_site(server, terminal):
    assert await refused(server, terminal.name, token="wrong") == 403
    assert await refused(server, terminal.name, token="") == 403
    cookie = await asyncio.to_thread(log_in, server)
    theirs = {"Cookie": cookie, "Origin": "http://example.org"}
    assert await refused(server, terminal.name, token="", headers=theirs) == 403
    assert terminal.sends == []
    ours = {"Cookie": cookie, "Origin": server.address.partition(BASE)[0]}
    async with page(server, terminal.name, token="", headers=ours) as one:
        assert await one.ask({"from": "a page"}) == ({"from": "a page"}, b"")


async def test_a_terminal_that_is_not_there_is_not_found(server, terminal):
    assert await refused(server, secrets.token_hex(16)) == 404
    assert await refused(server, "..%2f..%2fetc") == 404
    assert await refused(server, terminal.name, kernel=uuid.uuid4()) == 404
    terminal.wire.close()
    assert await refused(server, terminal.name) == 404


@pytest.mark.parametrize("what", ["status", "kernels"])
async def test_server_and_kernel_know_that_they_are_used(server, terminal, what):
    path = what if what == "status" else f"kernels/{server.kernel}"
    before = None
    while before != (before := (await asyncio.to_thread(server.api, path))["last_activity"]):
        await asyncio.sleep(3)  # a kernel that starts is an activity too
    async with page(server, terminal.name) as one:
        await one.ask({})
    assert (await asyncio.to_thread(server.api, path))["last_activity"] > before


def log_in(server):
    """The cookies of a browser that has opened JupyterLab."""
    opener = urllib.request.build_opener(jar := urllib.request.HTTPCookieProcessor())
    opener.open(f"{server.address}lab?token={server.token}", timeout=30).close()
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar.cookiejar)


def application(server):
    """JupyterLab's page."""
    with urllib.request.urlopen(f"{server.address}lab?token={server.token}", timeout=30) as response:
        return response.read().decode()


def test_pages_are_told_where_it_is_on(server):
    assert TOLD in application(server)


async def test_where_it_is_off_there_is_nothing():
    with skipping(), Server(options=[WITHOUT_WIRES]) as server:
        terminal = Terminal()
        assert TOLD not in await asyncio.to_thread(application, server)
        assert await refused(server, terminal.name, kernel=uuid.uuid4()) == 404
        terminal.wire.close()


async def test_who_may_only_look_is_not_let_in(terminal):
    with skipping(), Server(options=["--ServerApp.authorizer_class=authorizer.ReadOnly"]) as server:
        assert await refused(server, terminal.name, kernel=uuid.uuid4()) == 403
    assert terminal.sends == []
