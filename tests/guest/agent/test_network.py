"""The Network service, by an agent with a network of its own. Leases are had in a machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from sandbox_nb.guest.proto.network_pb2 import ConfigureRequest
from sandbox_nb.ttrpc import Code, StatusError

# The agent writes to /etc, which is the test's own for it.
SCRIPT = 'mkdir "$0" && cp /etc/passwd /etc/group /etc/resolv.conf "$0" && mount --bind "$0" /etc && exec "$@"'
UNSHARE = ["unshare", "--mount", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
BUSYBOX = "/bin/busybox"
MAC = "52:54:00:00:00:01"


@pytest.fixture
def launcher(tmp_path):
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0:
        pytest.skip("no network namespaces here: neither root, nor user namespaces")
    return [*UNSHARE, "sh", "-c", SCRIPT, str(tmp_path / "etc")]


@pytest.fixture
def resolv_conf(tmp_path):
    return tmp_path / "etc/resolv.conf"


def in_network(agent):
    """What runs a command in the agent's network."""
    user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    return ["nsenter", f"--target={agent.child.pid}", "--net", *user]


def ip(agent, *words):
    """What `ip` says in the agent's network."""
    return subprocess.run([*in_network(agent), "ip", *words], check=True, capture_output=True, text=True).stdout


def add_card(agent, name="card0", mac=MAC):
    """An interface with a cable to another one, which is up."""
    ip(agent, "link", "add", name, "address", mac, "type", "veth", "peer", "name", f"{name}-peer")
    ip(agent, "link", "set", f"{name}-peer", "up")


async def configure(agent, mac=MAC, timeout=None, **fields):
    return await agent.network.configure(ConfigureRequest(mac=mac, **fields), timeout=timeout)


async def refused(call):
    with pytest.raises(StatusError) as info:
        await call
    return info.value


async def test_a_fixed_address_with_gateway_and_servers(agent, resolv_conf):
    add_card(agent)
    response = await configure(
        agent, addr="10.1.2.3/20", gateway="10.1.0.1", dns=["10.1.0.2", "fd00::53"], name="lan0"
    )
    assert response.interface.name == "lan0"
    assert response.interface.mac == MAC
    assert response.interface.state == "up"
    assert response.interface.mtu == 1500
    assert "10.1.2.3/20" in response.interface.addresses
    assert (response.gateway, response.dns, response.lease_seconds) == ("10.1.0.1", ["10.1.0.2", "fd00::53"], 0)
    assert "inet 10.1.2.3/20 brd 10.1.15.255" in ip(agent, "address", "show", "lan0")
    assert ip(agent, "route", "show", "default").startswith("default via 10.1.0.1 dev lan0")
    assert resolv_conf.read_text() == "nameserver 10.1.0.2\nnameserver fd00::53\n"


async def test_an_ipv6_address_is_of_use_at_once(agent):
    add_card(agent)
    response = await configure(agent, addr="fd00::2/64", gateway="fd00::1")
    assert "fd00::2/64" in response.interface.addresses
    assert "tentative" not in ip(agent, "-6", "address", "show", "card0")
    assert ip(agent, "-6", "route", "show", "default").startswith("default via fd00::1 dev card0")


@pytest.mark.parametrize("addr", ["none", ""])
async def test_an_interface_without_an_address_is_up(agent, resolv_conf, addr):
    add_card(agent)
    before = resolv_conf.read_text()
    response = await configure(agent, addr=addr)
    assert response.interface.state == "up"
    assert [address for address in response.interface.addresses if not address.startswith("fe80:")] == []
    assert resolv_conf.read_text() == before


async def test_a_cable_that_is_not_plugged_in_is_told_and_no_error(agent):
    add_card(agent)
    ip(agent, "link", "set", "card0-peer", "down")
    response = await configure(agent, addr="10.0.0.2/24")
    assert response.interface.state == "no carrier"
    assert response.interface.addresses == ["10.0.0.2/24"]


async def test_once_more_takes_the_place_of_what_was_there(agent):
    add_card(agent)
    await configure(agent, addr="10.0.0.2/24", gateway="10.0.0.1", name="lan0")
    ip(agent, "address", "add", "10.5.5.5/24", "dev", "lan0")
    await configure(agent, addr="fd00::2/64", gateway="fd00::1")
    response = await configure(agent, addr="10.9.0.2/16", gateway="10.9.0.1", name="lan1")
    wanted = [address for address in response.interface.addresses if not address.startswith("fe80:")]
    assert wanted == ["10.9.0.2/16"]
    assert ip(agent, "route", "show", "default").split()[:5] == ["default", "via", "10.9.0.1", "dev", "lan1"]
    assert "fd00" not in ip(agent, "-6", "route", "show")


async def test_of_two_interfaces_the_one_with_the_address_is_meant_and_it_is_waited_for(agent):
    add_card(agent, "card0", "52:54:00:00:00:0a")
    call = asyncio.create_task(configure(agent, mac="52:54:00:00:00:0B", addr="10.0.0.2/24"))
    await asyncio.sleep(0.2)
    assert not call.done()
    add_card(agent, "card1", "52:54:00:00:00:0b")
    assert (await call).interface.name == "card1"
    assert "10.0.0.2" not in ip(agent, "address", "show", "card0")


async def test_an_interface_that_does_not_come_in_time_is_named(agent):
    error = await refused(configure(agent, addr="dhcp", timeout_ms=200))
    assert error.code == Code.NOT_FOUND
    assert MAC in error.message
    assert "200 ms" in error.message


@pytest.fixture
def dhcp(agent, tmp_path):
    """A function that starts a server of leases, with these options, at the other end of the cable."""
    servers = []

    def start(*options):
        ip(agent, "address", "add", "10.3.0.1/24", "dev", "card0-peer")
        (tmp_path / "leases").touch()
        settings = ["start 10.3.0.50", "end 10.3.0.50", "interface card0-peer", f"lease_file {tmp_path}/leases"]
        (tmp_path / "udhcpd.conf").write_text("".join(f"{line}\n" for line in (*settings, *options)))
        command = [*in_network(agent), BUSYBOX, "udhcpd", "-f", tmp_path / "udhcpd.conf"]
        servers.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))

    if not Path(BUSYBOX).exists():
        pytest.skip(f"no {BUSYBOX}")
    yield start
    for server in servers:
        server.kill()
        server.wait()


async def test_a_lease_brings_address_route_and_servers(agent, dhcp, resolv_conf):
    add_card(agent)
    dhcp(
        *("option subnet 255.255.255.0", "option router 10.3.0.9 10.3.0.10", "option lease 3600"),
        "option dns 10.3.0.2 10.3.0.3 10.3.0.4 10.3.0.5",
    )
    response = await configure(agent, addr="dhcp", name="lan0")
    assert "10.3.0.50/24" in response.interface.addresses
    assert (response.gateway, response.lease_seconds) == ("10.3.0.9", 3600)
    assert response.dns == ["10.3.0.2", "10.3.0.3", "10.3.0.4"]
    assert ip(agent, "route", "show", "default").startswith("default via 10.3.0.9 dev lan0")
    assert resolv_conf.read_text() == "nameserver 10.3.0.2\nnameserver 10.3.0.3\nnameserver 10.3.0.4\n"
    assert udhcpc(agent) == []


async def test_what_is_told_goes_before_what_the_lease_says(agent, dhcp, resolv_conf):
    add_card(agent)
    dhcp("option subnet 255.255.255.0", "option router 10.3.0.9", "option dns 10.3.0.2")
    response = await configure(agent, addr="dhcp", gateway="10.3.0.7", dns=["10.3.0.8"])
    assert (response.gateway, response.dns) == ("10.3.0.7", ["10.3.0.8"])
    assert resolv_conf.read_text() == "nameserver 10.3.0.8\n"
    again = await configure(agent, addr="dhcp")
    assert (again.gateway, again.dns) == ("10.3.0.9", ["10.3.0.2"])


async def test_a_lease_of_an_address_and_nothing_else_is_one(agent, dhcp, resolv_conf):
    add_card(agent)
    before = resolv_conf.read_text()
    dhcp()
    response = await configure(agent, addr="dhcp")
    assert any(address.startswith("10.3.0.50/") for address in response.interface.addresses)
    assert (response.gateway, response.dns) == ("", [])
    assert resolv_conf.read_text() == before


async def test_a_lease_that_does_not_come_in_time_leaves_nothing(agent, resolv_conf):
    add_card(agent)
    before = resolv_conf.read_text()
    error = await refused(configure(agent, addr="dhcp", timeout_ms=500))
    assert error.code == Code.DEADLINE_EXCEEDED
    assert "card0" in error.message
    assert "500 ms" in error.message
    assert udhcpc(agent) == []
    (card,) = [found for found in (await agent.network.list()).interfaces if found.name == "card0"]
    assert card.state == "down"
    assert resolv_conf.read_text() == before


async def test_a_call_out_of_time_ends_udhcpc(agent):
    add_card(agent)
    call = asyncio.create_task(configure(agent, addr="dhcp", timeout=1))
    await agent.eventually(lambda: udhcpc(agent))
    assert (await refused(call)).code == Code.DEADLINE_EXCEEDED
    await agent.eventually(lambda: not udhcpc(agent))


def udhcpc(agent):
    """Pids of those that run in the agent's network."""
    mine = os.readlink(f"/proc/{agent.child.pid}/ns/net")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            process = Path(f"/proc/{pid}")
            is_one = (process / "cmdline").read_bytes().startswith(b"udhcpc\0")
            if is_one and os.readlink(process / "ns/net") == mine:
                found.append(pid)
        except OSError:
            continue
    return found


async def test_a_name_that_is_taken_changes_nothing(agent):
    add_card(agent, "card0")
    add_card(agent, "card1", "52:54:00:00:00:0b")
    await configure(agent, addr="10.0.0.2/24")
    error = await refused(configure(agent, addr="10.0.0.3/24", name="card1"))
    assert error.code == Code.ALREADY_EXISTS
    assert "card1" in error.message
    assert "10.0.0.2/24" in ip(agent, "address", "show", "card0")


async def test_a_gateway_out_of_reach_is_said_and_the_interface_down(agent):
    add_card(agent)
    error = await refused(configure(agent, addr="10.0.0.2/24", gateway="192.168.0.1"))
    assert error.code == Code.FAILED_PRECONDITION
    assert "gateway" in error.message
    assert "10.0.0.2" not in ip(agent, "address", "show", "card0")


async def test_the_list_has_every_interface(agent):
    add_card(agent)
    ip(agent, "link", "set", "lo", "up")
    found = {interface.name: interface for interface in (await agent.network.list()).interfaces}
    assert set(found) >= {"lo", "card0"}
    assert found["lo"].state == "up"
    assert found["lo"].mac == ""
    assert set(found["lo"].addresses) == {"127.0.0.1/8", "::1/128"}
    assert (found["card0"].mac, found["card0"].state, list(found["card0"].addresses)) == (MAC, "down", [])


async def test_a_name_that_is_no_text_is_listed_all_the_same(agent):
    add_card(agent)
    ip(agent, "link", "set", "card0", "name", os.fsdecode(b"card\xff"))
    assert MAC in [interface.mac for interface in (await agent.network.list()).interfaces]


WRONG = [
    ({"mac": ""}, "mac"),
    ({"mac": "52:54:00:00:00"}, "mac"),
    ({"mac": "52:54:00:00:00:0g"}, "mac"),
    ({"mac": "52-54-00-00-00-01"}, "mac"),
    ({"mac": "5:54:00:00:00:0001"}, "mac"),
    ({"mac": "01:54:00:00:00:01"}, "mac"),
    ({"mac": "00:00:00:00:00:00"}, "mac"),
    ({"addr": "10.0.0.2"}, "addr"),
    ({"addr": "10.0.0.2/33"}, "addr"),
    ({"addr": "10.0.0.2/0"}, "addr"),
    ({"addr": "10.0.0.2/24/1"}, "addr"),
    ({"addr": "10.0.0/24"}, "addr"),
    ({"addr": "fd00::2/129"}, "addr"),
    ({"addr": "fd00::2%1/64"}, "addr"),
    ({"addr": "DHCP"}, "addr"),
    ({"addr": "1" * 1000}, "addr"),
    ({"addr": "none", "gateway": "10.0.0.1"}, "gateway"),
    ({"addr": "10.0.0.2/24", "gateway": "fd00::1"}, "gateway"),
    ({"addr": "dhcp", "gateway": "fd00::1"}, "gateway"),
    ({"gateway": "10.0.0.1/24"}, "gateway"),
    ({"gateway": "router"}, "gateway"),
    ({"dns": [""]}, "dns"),
    ({"dns": ["10.0.0.1\nsearch evil"]}, "dns"),
    ({"dns": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]}, "dns"),
    ({"name": "x" * 16}, "name"),
    ({"name": "a/b"}, "name"),
    ({"name": "a b"}, "name"),
    ({"name": "a:b"}, "name"),
    ({"name": "eth%d"}, "name"),
    ({"name": ".."}, "name"),
    ({"timeout_ms": 600_001}, "timeout_ms"),
]


async def test_a_wrong_value_is_refused_by_name(agent):
    for fields, word in WRONG:
        error = await refused(configure(agent, **fields))
        assert error.code == Code.INVALID_ARGUMENT, fields
        assert word in error.message, fields


async def test_nothing_is_configured_before_the_set_up(new_agent):
    assert (await refused(configure(new_agent))).code == Code.FAILED_PRECONDITION
