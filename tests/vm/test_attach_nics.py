"""Network cards that come to a real machine and go: frames in both directions, addresses and features as asked."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox_nb.devices import NIC, NetworkFlags, NetworkMode, UserNIC
from sandbox_nb.errors import FailedPrecondition, NotFound

pytestmark = pytest.mark.vm

HOST_MAC, HOST_IP, GUEST_IP = bytes.fromhex("02ffffffff01"), "10.7.0.1", "10.7.0.2"
ARP, IPV4, ICMP = 0x0806, 0x0800, 1


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def answer(frame):
    """What a neighbour that only knows ARP and ping answers to a frame, if anything."""
    sender, kind = frame[6:12], struct.unpack("!H", frame[12:14])[0]
    head = sender + HOST_MAC + frame[12:14]
    if kind == ARP and frame[38:42] == socket.inet_aton(HOST_IP):
        return head + frame[14:20] + b"\0\2" + HOST_MAC + frame[38:42] + sender + frame[28:32]
    if kind == IPV4 and frame[23] == ICMP and frame[34] == 8:
        echo = b"\0\0\0\0" + frame[38:]
        echo = b"\0\0" + struct.pack("!H", checksum(echo + b"\0" * (len(echo) % 2))) + echo[4:]
        return head + frame[14:26] + frame[30:34] + frame[26:30] + echo
    return None


class Peer:
    """The other end of a NIC's socket: answers pings, and keeps what it saw."""

    def __init__(self, path, mode):
        self.path, self.mode = path, mode
        self.seen = []
        kind = socket.SOCK_DGRAM if mode == NetworkMode.UNIXGRAM else socket.SOCK_STREAM
        self.sock = socket.socket(socket.AF_UNIX, kind)
        self.sock.bind(str(path))
        if kind == socket.SOCK_STREAM:
            self.sock.listen(1)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._datagrams if kind == socket.SOCK_DGRAM else self._stream)
        self.thread.start()

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.ended.set()
        self.thread.join()
        self.sock.close()

    def _datagrams(self):
        self.sock.settimeout(0.05)
        while not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                frame, sender = self.sock.recvfrom(65536)
                self.seen.append(frame)
                if len(frame) > 14 and (reply := answer(frame)):
                    self.sock.sendto(reply, sender)

    def _stream(self):
        with contextlib.suppress(OSError), self.sock.accept()[0] as guest, guest.makefile("rb") as frames:
            while head := frames.read(4):
                frame = frames.read(*struct.unpack("!I", head))
                self.seen.append(frame)
                if reply := answer(frame):
                    guest.sendall(struct.pack("!I", len(reply)) + reply)
        self.ended.set()


@pytest.fixture
def peer(tmp_path):
    """A function that starts a peer of a mode."""
    with contextlib.ExitStack() as peers:

        def start(mode):
            return peers.enter_context(contextlib.closing(Peer(tmp_path / "peer", mode)))

        yield start


def up(machine, attached, address=GUEST_IP):
    """Bring the card up in the guest; its name there."""
    name = machine.interface(attached.backend.mac)
    machine.sh(f"ip addr flush dev {name}; ip addr add {address}/24 dev {name}; ip link set {name} up")
    return name


@pytest.mark.parametrize("mode", NetworkMode)
def test_frames_travel_both_ways_and_stop_with_the_card(machine, peer, mode):
    other = peer(mode)
    for _ in range(2 if mode == NetworkMode.UNIXGRAM else 1):
        attached = machine.attach(NIC(other.path, None, mode))
        assert (attached.name, attached.kind, attached.how) == ("net0", "nic", mode.name.lower())
        up(machine, attached)
        machine.sh(f"ping -c 3 -s 1400 -W 5 {HOST_IP}")
        assert any(frame[6:12] == bytes.fromhex(attached.backend.mac.replace(":", "")) for frame in other.seen)
        machine.detach("net0")
        assert machine.sandbox.run(f"grep -l {attached.backend.mac} /sys/class/net/*/address").returncode != 0
    if mode == NetworkMode.UNIXSTREAM:
        assert other.ended.wait(5)  # it is told that the card is gone
    assert not [name for name in os.listdir(machine.folder) if name.startswith("nic")]


def test_vfkit_is_greeted_first(machine, peer):
    other = peer(NetworkMode.UNIXGRAM)
    up(machine, machine.attach(NIC(other.path, flags=NetworkFlags.VFKIT, name="lan")))
    machine.sh(f"ping -c 1 -W 5 {HOST_IP}")
    assert other.seen[0] == b"VFKT"
    assert b"VFKT" not in other.seen[1:]


def test_the_address_is_the_one_given(machine):
    attached = machine.attach(UserNIC(mac="02:11:22:33:44:55"))
    name = machine.interface("02:11:22:33:44:55")
    assert machine.sh(f"cat /sys/class/net/{name}/address") == "02:11:22:33:44:55"
    assert attached.backend.mac == "02:11:22:33:44:55"


def test_features_are_offered_exactly_as_asked(machine, peer):
    bits = {5, 15, 16, 17, 21, 29, 32}
    attached = machine.attach(NIC(peer(NetworkMode.UNIXGRAM).path, features=sum(1 << bit for bit in bits)))
    name = machine.interface(attached.backend.mac)
    # What the driver took of what was offered; Linux's takes all of these. Bit 0 stands first.
    negotiated = machine.sh(f"cat /sys/class/net/{name}/device/features")
    assert {bit for bit, one in enumerate(negotiated) if one == "1"} == bits


def test_a_machine_reaches_the_host_that_nobody_restricted(machine):
    up(machine, machine.attach(UserNIC()), "10.0.2.15")
    machine.sh("ping -c 1 -W 5 10.0.2.2")


def test_forwarded_ports_lead_to_the_guest_also_when_restricted(machine):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    attached = machine.attach(UserNIC({port: 80}, restrict=True))
    up(machine, attached, "10.0.2.15")
    machine.sh("mkdir -p /tmp/www && echo hello > /tmp/www/index.html")
    machine.sh("httpd -p 80 -h /tmp/www")
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with sock.makefile("rb") as said:
                assert said.read().endswith(b"hello\n")
        with pytest.raises(FailedPrecondition, match=f"port {port}"):
            machine.attach(UserNIC({port: 80}))
        assert machine.sandbox.run("nc -w 2 10.0.2.2 1 < /dev/null").returncode != 0
    finally:
        machine.sh("killall httpd")
    machine.detach("net0")
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def test_qemu_finding_a_port_taken_after_all_is_understood(machine, monkeypatch):
    monkeypatch.setattr("sandbox_nb.vm.network._check_free", lambda port: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FailedPrecondition, match=rf"a port of \[{port}\] is in use"):
            machine.attach(UserNIC({port: 80}))
    assert machine.machine.devices == []
    machine.attach(UserNIC({port: 80}))


def test_nobody_there_leaves_nothing(machine, tmp_path):
    with pytest.raises(NotFound, match="nobody listens"):
        machine.attach(NIC(tmp_path / "none"))
    assert machine.machine.devices == []


# passt


def listens(path):
    """Whether a socket listens, without connecting: passt takes one connection. The flag is __SO_ACCEPTCON."""
    sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return any(sock[3] == "00010000" and sock[7:] == [str(path)] for sock in sockets)


@pytest.fixture
def passt(tmp_path):
    """A running passt: its socket, a port of the host that it forwards to the guest's port 80, and the gateway.

    The gateway is the host's loopback to the guest, passt's default, so that there is somebody to call.
    """
    if shutil.which("passt") is None:
        pytest.skip("passt is not installed")
    routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    gateways = [socket.inet_ntoa(bytes.fromhex(route[2])[::-1]) for route in routes if route[1] == "00000000"]
    if not gateways:
        pytest.skip("this host has no default route, without which passt does not start")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path("/tmp") / f"sandbox_nb-passt-{os.getpid()}"
    folder.mkdir(mode=0o700)
    path = folder / "socket"
    told = ["passt", "--foreground", "--socket", path, "--tcp-ports", f"127.0.0.1/{port}:80"]
    told += ["--runas", "0:0"] if os.getuid() == 0 else []
    process = subprocess.Popen(told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 5
        while not listens(path) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is not None:
            pytest.skip(f"passt does not start here: {process.stdout.read().decode()}")
        yield path, port, gateways[0]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
        shutil.rmtree(folder)


def test_a_real_passt_carries_connections_both_ways(machine, passt):
    path, port, gateway = passt
    attached = machine.attach(NIC(path, None, NetworkMode.UNIXSTREAM))
    name = machine.interface(attached.backend.mac)
    machine.sh(f"ip link set {name} up")
    lease = machine.sh(f"udhcpc -i {name} -n -q -t 10 -T 1 -s /bin/true -f 2>&1")
    address = lease.partition("lease of ")[2].split()[0]
    machine.sh(
        f"ip addr flush dev {name}; ip addr add {address}/24 dev {name}; ip route add default via {gateway}"
    )
    machine.sh("mkdir -p /tmp/www && echo through passt > /tmp/www/index.html && httpd -p 80 -h /tmp/www")
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with sock.makefile("rb") as said:
                assert said.read().endswith(b"through passt\n")
    finally:
        machine.sh("killall httpd")
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        server.settimeout(10)
        calling = pool.submit(machine.sh, f"echo to the host | nc {gateway} {server.getsockname()[1]}")
        with server.accept()[0] as caller, caller.makefile("rb") as said:
            assert said.readline() == b"to the host\n"
        calling.result()
