"""Network cards before QEMU sees them: addresses, feature bits, endpoints and ports."""

from __future__ import annotations

import os
import re
import socket

import pytest

from sandbox_nb.devices import NIC, NetworkFlags, NetworkMode, UserNIC
from sandbox_nb.errors import FailedPrecondition, InvalidArgument, NotFound
from sandbox_nb.vm import network


@pytest.fixture
def listening(tmp_path):
    """A function that makes a listening socket of a kind, and returns it with its path."""
    opened = []

    def listen(kind, name="peer"):
        sock = socket.socket(socket.AF_UNIX, kind)
        opened.append(sock)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        # By way of a descriptor, as a path may be longer than an address.
        folder = os.open(path.parent, os.O_PATH)
        sock.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        if kind == socket.SOCK_STREAM:
            sock.listen(1)
        return sock, path

    yield listen
    for sock in opened:
        sock.close()


def prepare(endpoint, mode=NetworkMode.UNIXSTREAM, **keywords):
    return network.prepare(NIC(endpoint, None, mode, name="net0", **keywords), sandbox="s")


def test_a_made_address_is_local_single_and_stays():
    made = {network.mac_for(sandbox, name) for sandbox in ("a", "b", "ab") for name in ("net0", "net1", "bnet0")}
    assert len(made) == 9
    for mac in made:
        assert re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", mac)
        assert int(mac[:2], 16) & 3 == 2
    assert network.mac_for("sandbox", "net0") == network.mac_for("sandbox", "net0")
    # Leases of yesterday hold only if it is the same tomorrow too.
    assert network.mac_for("sandbox", "net0") == "8e:e5:56:6c:47:d9"


def test_no_mask_leaves_the_features_to_qemu():
    assert network.feature_properties(0) == {}


def test_a_mask_is_offered_exactly():
    properties = network.feature_properties(1 << 15 | 1 << 16 | 1 << 5 | 1 << 32)
    assert {name for name, offered in properties.items() if offered} == {"mrg_rxbuf", "status"}
    assert {"ctrl_vq", "event_idx", "packed"} <= set(properties)


@pytest.mark.parametrize("bit", [0, 1, 7, 8, 9, 10, 11, 12, 13, 14])
def test_offloads_are_refused_by_name(bit):
    with pytest.raises(InvalidArgument, match=rf"bit {bit} \([A-Z0-9_]+\) needs a vnet header"):
        network.feature_properties(1 << bit | 1 << 15)


@pytest.mark.parametrize("bit", [3, 4, 6, 22, 24, 27, 33, 50, 63, 64])
def test_a_bit_that_cannot_be_offered_is_refused_by_number(bit):
    with pytest.raises(InvalidArgument, match=f"bit {bit} cannot be offered; these can: .*MRG_RXBUF"):
        network.feature_properties(1 << bit)


def test_commands_of_the_control_queue_need_it():
    with pytest.raises(InvalidArgument, match=r"bit 18 \(CTRL_RX\) needs bit 17 \(CTRL_VQ\)"):
        network.feature_properties(1 << 18)
    assert network.feature_properties(1 << 18 | 1 << 17)["ctrl_rx"]


@pytest.mark.parametrize("mode", NetworkMode)
def test_an_endpoint_where_nobody_listens_is_not_found(tmp_path, listening, mode):
    with pytest.raises(NotFound, match="'net0'.*nobody listens there"):
        prepare(tmp_path / "none", mode)
    sock, path = listening(socket.SOCK_DGRAM if mode == NetworkMode.UNIXGRAM else socket.SOCK_STREAM)
    sock.close()  # the file stays
    with pytest.raises(NotFound, match="nobody listens there"):
        prepare(path, mode)


@pytest.mark.parametrize("mode", NetworkMode)
def test_what_is_no_such_socket_is_refused(tmp_path, listening, mode):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path):
        with pytest.raises(InvalidArgument, match="no socket"):
            prepare(path, mode)
    other = NetworkMode(1 - mode)
    _, path = listening(socket.SOCK_DGRAM if mode == NetworkMode.UNIXSTREAM else socket.SOCK_STREAM)
    with pytest.raises(InvalidArgument, match=f"mode={other.name}"):
        prepare(path, mode)


@pytest.mark.parametrize("mode", NetworkMode)
def test_a_path_may_be_longer_than_an_address(listening, mode):
    sock, path = listening(
        socket.SOCK_DGRAM if mode == NetworkMode.UNIXGRAM else socket.SOCK_STREAM, f"{'x' * 200}/peer"
    )
    assert len(str(path)) > 200
    card = prepare(path, mode)
    card._socket.send(b"frame")
    peer = sock.accept()[0] if mode == NetworkMode.UNIXSTREAM else sock
    assert peer.recv(10) == b"frame"
    peer.close()
    card.discard()
    card.discard()


def test_a_listener_that_takes_nobody_is_not_waited_for_long(listening, monkeypatch):
    monkeypatch.setattr(network, "CONNECT_TIMEOUT", 0.05)
    _, path = listening(socket.SOCK_STREAM)
    cards = [prepare(path), prepare(path)]  # as many as its backlog holds
    with pytest.raises(InvalidArgument, match="cannot be connected to"):
        prepare(path)
    for card in cards:
        card.discard()


def test_refused_features_connect_to_nobody(listening):
    sock, path = listening(socket.SOCK_STREAM)
    with pytest.raises(InvalidArgument, match="bit 0"):
        prepare(path, features=1)
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.accept()


def test_what_qemu_is_told_of_a_socket():
    stream = NIC("/s", None, NetworkMode.UNIXSTREAM)
    assert network.socket_netdev(stream, "nic3") == {"type": "socket", "id": "nic3", "fd": "nic3"}
    assert network.socket_netdev(NIC("/s"), "nic3") == {
        "type": "dgram",
        "id": "nic3",
        "local": {"type": "fd", "str": "nic3"},
    }


def test_what_qemu_is_told_of_the_user_network():
    assert network.user_netdev(UserNIC(), "n") == {"type": "user", "id": "n", "restrict": False}
    told = network.user_netdev(UserNIC({8080: 80, 2222: 22}, restrict=True), "n")
    assert told["restrict"] is True
    # To the loopback alone, and to the address the guest has.
    assert [rule["str"] for rule in told["hostfwd"]] == [
        "tcp:127.0.0.1:8080-10.0.2.15:80",
        "tcp:127.0.0.1:2222-10.0.2.15:22",
    ]
    assert network.user_netdev(UserNIC({1: 2}, addr="dhcp"), "n")["hostfwd"] == [{"str": "tcp:127.0.0.1:1-:2"}]


def test_a_port_in_use_is_said_before_anything_starts():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FailedPrecondition, match=f"port {port} .*in use.*choose another"):
            network.prepare(UserNIC({port: 80}, name="net0"), sandbox="s")
    network.prepare(UserNIC({port: 80}, name="net0"), sandbox="s")


def test_an_address_that_is_given_is_kept():
    assert network.prepare(UserNIC(name="n", mac="FE:00:00:00:00:01"), sandbox="s").mac == "fe:00:00:00:00:01"


def test_flags_are_a_mask():
    assert NetworkFlags(1) is NetworkFlags.VFKIT
