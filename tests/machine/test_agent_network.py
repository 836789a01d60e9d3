"""The Network service in a machine: cards that have just been plugged, leases, and traffic."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import threading

import pytest
import support
from devices import Card

from sandbox_nb import AsyncSandbox, DeadlineExceeded
from sandbox_nb.guest.proto.network_pb2 import ConfigureRequest
from sandbox_nb.guest.proto.network_ttrpc import NetworkClient

MAC = "52:54:00:00:00:01"


class Guest(support.Guest):
    """With the agent's service."""

    def __init__(self, sandbox, client):
        super().__init__(sandbox)
        self.network = NetworkClient(client)

    async def configure(self, mac=MAC, **fields):
        return await self.network.configure(ConfigureRequest(mac=mac, **fields))


@contextlib.asynccontextmanager
async def started(**options):
    async with AsyncSandbox() as sandbox:
        await sandbox.start(**options)
        yield Guest(sandbox, await sandbox.client())


@pytest.fixture
def web():
    """Port of a server on this host's loopback, which a guest reaches at its gateway."""

    class Words(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"words of the host")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Words)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("options", [{}, {"warm": "off"}, {"image": "python"}], ids=["warm", "cold", "python"])
async def test_a_lease_and_traffic_through_it(options, web):
    async with started(**options) as guest:
        await guest.machine.attach("net0", Card(MAC))
        response = await guest.configure(addr="dhcp", name="net0")
        assert response.interface.name == "net0"
        assert "10.0.2.15/24" in response.interface.addresses
        assert (response.gateway, list(response.dns), response.lease_seconds) == ("10.0.2.2", ["10.0.2.3"], 86400)
        assert await guest.sh("cat /etc/resolv.conf") == "nameserver 10.0.2.3\n"
        assert await guest.sh(f"busybox wget -q -O- http://10.0.2.2:{web}/") == "words of the host"
        assert "udhcpc" not in await guest.sh("ps")


async def test_a_fixed_address_and_traffic_through_it(web):
    async with started() as guest:
        await guest.machine.attach("net0", Card(MAC))
        response = await guest.configure(addr="10.0.2.77/24", gateway="10.0.2.2", dns=["10.0.2.3"])
        assert response.interface.state == "up"
        assert await guest.sh(f"wget -q -O- http://10.0.2.2:{web}/") == "words of the host"


async def test_cards_are_told_apart_by_their_addresses_and_waited_for():
    async with started() as guest:
        first, second = "52:54:00:00:00:0f", "52:54:00:00:00:01"
        late = asyncio.create_task(guest.configure(second, addr="10.2.0.2/24", name="second"))
        await asyncio.sleep(0.3)
        await guest.machine.attach("net0", Card(first))
        assert (
            "10.1.0.2/24" in (await guest.configure(first, addr="10.1.0.2/24", name="first")).interface.addresses
        )
        assert not late.done()
        await guest.machine.attach("net1", Card(second))
        await late
        found = {interface.name: interface for interface in (await guest.network.list()).interfaces}
        assert (found["first"].mac, found["second"].mac) == (first, second)
        assert "10.2.0.2/24" in found["second"].addresses


async def test_no_lease_in_time_leaves_no_udhcpc():
    async with started() as guest:
        await guest.machine.attach("net0", Card(MAC, {"type": "hubport", "hubid": 0}))
        with pytest.raises(DeadlineExceeded, match="nobody has answered by DHCP within 700 ms"):
            await guest.configure(addr="dhcp", timeout_ms=700)
        assert "udhcpc" not in await guest.sh("ps")


@pytest.mark.parametrize("warm", ["on", "off"])
async def test_the_loopback_is_up_from_boot(warm):
    async with started(warm=warm) as guest:
        (found,) = [one for one in (await guest.network.list()).interfaces if one.name == "lo"]
        assert (found.state, set(found.addresses)) == ("up", {"127.0.0.1/8", "::1/128"})


async def test_rounds_of_plugging_and_leases_leave_nothing():
    async with started() as guest:
        for _ in range(8):
            await guest.machine.attach("net0", Card(MAC))
            assert "10.0.2.15/24" in (await guest.configure(addr="dhcp", name="net0")).interface.addresses
            await guest.machine.detach("net0")
        assert [interface.name for interface in (await guest.network.list()).interfaces] == ["lo"]
