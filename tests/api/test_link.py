"""The kernel's vsock as the way to a machine; TCP stands in for vsock, and its addresses for context ids."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from sandbox_nb import link
from sandbox_nb.vm import command
from sandbox_nb.vsock import transport

GUEST, STRANGER = "127.0.0.1", "127.0.0.2"


@pytest.fixture
async def way(monkeypatch):
    """A way to a machine whose context id is claimed."""
    monkeypatch.setattr(socket, "AF_VSOCK", socket.AF_INET)
    monkeypatch.setattr(socket, "VMADDR_CID_ANY", GUEST)
    monkeypatch.setattr(command, "rpc_port", lambda cid: 0)
    monkeypatch.setattr(transport, "reserve_cid", lambda: (os.open(os.devnull, os.O_RDWR), GUEST))
    before = len(os.listdir("/proc/self/fd"))
    made = link.open_link("kernel", None, None, None, None)
    yield made
    await made.close()
    await made.close()
    assert not made.alive
    assert len(os.listdir("/proc/self/fd")) == before


def call(way, address):
    """A call of the agent's port, from this address."""
    sock = socket.socket()
    sock.bind((address, 0))
    sock.connect(way._listening.getsockname())
    return sock


async def test_the_machine_gets_the_claimed_descriptor_and_its_context_id(way):
    class Machine:
        async def plug_kernel_vsock(self, vhost, cid):
            self.plugged = os.readlink(f"/proc/self/fd/{vhost}"), cid

    machine = Machine()
    await way.plug(machine)
    assert machine.plugged == (os.devnull, GUEST)
    assert way.alive


async def test_only_the_call_of_this_very_guest_is_taken(way):
    with call(way, STRANGER) as stranger, call(way, GUEST) as agent:
        with await way.called() as sock:
            agent.sendall(b"hello")
            assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"hello"
        assert stranger.recv(1) == b""


async def test_a_call_that_comes_as_nobody_waits_for_it_any_more_is_not_lost(way):
    loop = asyncio.get_running_loop()
    waiting = asyncio.ensure_future(way.called())
    await asyncio.sleep(0)
    with call(way, GUEST) as agent:
        loop.call_soon(waiting.cancel)  # in the same turn of the loop that sees the call
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        with await asyncio.wait_for(way.called(), 5) as sock:
            assert sock.getpeername() == agent.getsockname()


async def test_a_port_of_the_guest_is_dialled(way):
    with socket.create_server((GUEST, 0)) as guest, await way.dial(guest.getsockname()[1], b"first") as sock:
        assert sock.getblocking() is False
        accepted, _ = guest.accept()
        with accepted:
            assert accepted.recv(100) == b"first"


async def test_the_kernel_tells_no_numbers_and_stays(way, tmp_path):
    assert await way.statistics() is None
    with (tmp_path / "trace").open("w+b") as file:
        assert await way.trace(file.fileno()) is False
        assert file.read() == b""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(way.wait_gone(), 0.01)


async def test_a_port_that_is_taken_gives_the_context_id_back(way, monkeypatch):
    monkeypatch.setattr(command, "rpc_port", lambda cid: way._listening.getsockname()[1])
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="in use"):
        link.open_link("kernel", None, None, None, None)
    assert len(os.listdir("/proc/self/fd")) == before
