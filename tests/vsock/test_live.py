"""The device before a real Linux guest, under QEMU."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox_nb.bench import vsock_peer
from sandbox_nb.bench.vsock_peer import Device, Machine, read_answer, read_exactly, request
from sandbox_nb.vsock import connect

pytestmark = pytest.mark.vm
MIB = 1 << 20
PAUSES = 1 << 8


@pytest.fixture(autouse=True)
def unharmed(machine):
    """Whatever a test did: no connection is left, neither side complained, no descriptor was lost."""
    guest, device = machine
    files = device.open_files()
    yield
    deadline = time.monotonic() + 10
    while device.connections() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert device.connections() == 0
    assert device.open_files() == files
    assert device.errors.read_text() == ""
    assert guest.errors.read_text() == ""


def to_guest(sock, size, chance):
    """Send random bytes in pieces of random sizes, with pauses; True if the guest saw the same."""
    pool, crc, left = os.urandom(MIB), 0, size
    sock.sendall(request("S", count=size, argument=chance.randrange(1 << 8) | PAUSES))
    while left:
        piece = pool[chance.randrange(MIB // 2) :][: min(left, 1 + chance.randrange(MIB // 2))]
        crc = zlib.crc32(piece, crc)
        sock.sendall(piece)
        left -= len(piece)
        if chance.random() < 0.02:
            time.sleep(chance.random() * 0.01)
    return read_answer(sock) == crc


def to_host(sock, size, chance):
    """The same the other way."""
    crc, left = 0, size
    block = 1 + chance.randrange(MIB)
    sock.sendall(request("G", count=size, block=block, argument=chance.randrange(1 << 8) | PAUSES))
    while left:
        piece = sock.recv(min(left, 1 + chance.randrange(MIB)))
        crc = zlib.crc32(piece, crc)
        left -= len(piece)
        if chance.random() < 0.02:
            time.sleep(chance.random() * 0.01)
    return read_answer(sock) == crc


def both_ways(device, size, seed):
    """Two connections side by side, one for each way, each ended by a half-close at its own end."""
    chance = random.Random(seed)
    with ThreadPoolExecutor(2) as pool, device.dial() as out, device.dial() as back:
        results = [
            pool.submit(to_guest, out, size, random.Random(chance.random())),
            pool.submit(to_host, back, size, random.Random(chance.random())),
        ]
        assert [result.result() for result in results] == [True, True]
        for sock in (out, back):
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""


def test_bytes_go_both_ways_unharmed(machine):
    both_ways(machine[1], 24 * MIB, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_gibibyte_goes_each_way_unharmed(machine):
    for seed in range(4):
        both_ways(machine[1], 256 * MIB, seed)
    assert machine[1].anonymous_kib() < 20 * 1024


def test_small_writes_all_arrive(machine):
    with machine[1].dial() as sock:
        data = os.urandom(20_000)
        sock.sendall(request("S", count=len(data)))
        for byte in data:
            sock.send(bytes([byte]))
        assert read_answer(sock) == zlib.crc32(data)


def test_a_guest_that_sleeps_and_then_reads_misses_nothing(machine):
    data = os.urandom(4 * MIB)
    with machine[1].dial() as sock:
        sock.sendall(request("H", count=500) + data)
        sock.shutdown(socket.SHUT_WR)
        assert read_answer(sock) == zlib.crc32(data)


def test_a_host_that_sleeps_and_then_reads_misses_nothing(machine):
    with machine[1].dial() as sock:
        sock.sendall(request("G", count=8 * MIB, argument=5))
        time.sleep(0.5)
        data = read_exactly(sock, 8 * MIB)
        assert read_answer(sock) == zlib.crc32(data)


def test_a_half_close_leaves_the_other_way_open(machine):
    with machine[1].dial() as sock:
        sock.sendall(request("E") + b"question")
        sock.shutdown(socket.SHUT_WR)
        assert read_exactly(sock, 8) == b"question"
        assert sock.recv(1) == b""


def test_the_guest_dials_hosts_too(machine):
    device = machine[1]
    with device.listen(7000) as listener, device.dial() as control:
        control.sendall(request("D", count=3, argument=7000))
        for _ in range(3):
            sock, _ = listener.accept()
            with sock:
                sock.sendall(request("E") + b"hello")
                assert read_exactly(sock, 5) == b"hello"
    os.unlink(f"{device.uds}_7000")


def test_a_port_nobody_listens_on_is_refused(machine):
    with pytest.raises(ConnectionRefusedError):
        machine[1].dial(4999)


async def test_the_hosts_side_dials(machine):
    sock = await connect.dial(machine[1].uds, vsock_peer.PORT, timeout=10)
    with sock:
        sock.setblocking(True)
        sock.sendall(request("E") + b"hello")
        assert read_exactly(sock, 5) == b"hello"
    with pytest.raises(ConnectionRefusedError, match="4999"):
        await connect.dial(machine[1].uds, 4999, timeout=10)


def echo(device, size):
    data = os.urandom(size)
    with device.dial() as sock:
        sock.sendall(request("E"))
        writer = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
        writer.start()
        echoed = read_exactly(sock, size)
        writer.join()
        return echoed == data and sock.recv(1) == b""


def test_forty_connections_at_once_each_echo_a_quarter_mebibyte(machine):
    with ThreadPoolExecutor(40) as pool:
        assert all(pool.map(lambda _: echo(machine[1], MIB // 4), range(40)))


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_two_hundred_connections_at_once_each_echo_a_mebibyte(machine):
    with ThreadPoolExecutor(200) as pool:
        assert all(pool.map(lambda _: echo(machine[1], MIB), range(200)))


def one_after_another(device, count):
    for n in range(count):
        with device.dial() as sock:
            sock.sendall(request("E") + b"%08d" % n)
            assert read_exactly(sock, 8) == b"%08d" % n


def test_five_hundred_connections_one_after_another(machine):
    one_after_another(machine[1], 500)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_thousand_connections_one_after_another(machine):
    one_after_another(machine[1], 10_000)


def torn_handshakes(device, count):
    chance = random.Random(count)
    lines = [
        b"",
        b"CON",
        b"CONNECT 5000",
        b"CONNECT x\n",
        b"\n",
        b"CONNECT 4294967295\n",
        bytes(100),
        b"CONNECT 9\n",
    ]
    for _ in range(count):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(device.uds))
            sock.send(chance.choice(lines))


def beside_a_transfer(device, size, count):
    with ThreadPoolExecutor(1) as pool, device.dial() as sock:
        transfer = pool.submit(to_guest, sock, size, random.Random(1))
        torn_handshakes(device, count)
        assert transfer.result()


def test_torn_handshakes_do_not_harm_a_transfer_beside_them(machine):
    beside_a_transfer(machine[1], 16 * MIB, 500)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_five_thousand_torn_handshakes_do_not_harm_a_transfer_beside_them(machine):
    beside_a_transfer(machine[1], 128 * MIB, 5000)


@pytest.mark.skipif(not shutil.which("socat"), reason="socat is not installed")
class TestSocat:
    def test_it_reaches_the_guest(self, machine):
        device = machine[1]
        said = b"CONNECT 5000\n" + request("E") + b"through socat"
        done = subprocess.run(
            ["socat", "-t5", "-", f"UNIX-CONNECT:{device.uds}"],
            input=said,
            capture_output=True,
            check=True,
            timeout=30,
        )
        line, _, rest = done.stdout.partition(b"\n")
        assert line.startswith(b"OK ")
        assert rest == b"through socat"

    def test_the_guest_reaches_it(self, machine):
        device = machine[1]
        path = f"{device.uds}_7001"
        said = request("E") + b"to socat"
        listener = subprocess.Popen(
            ["socat", "-t5", f"UNIX-LISTEN:{path}", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        while not os.path.exists(path):
            time.sleep(0.01)
        with device.dial() as control:
            control.sendall(request("D", count=1, argument=7001))
            out, _ = listener.communicate(said, timeout=30)
        assert out == b"to socat"


def test_an_idle_device_uses_no_processor(machine):
    device = machine[1]
    with device.dial() as sock:
        sock.sendall(request("P", count=1) + b"x")
        assert sock.recv(1) == b"x"
        time.sleep(0.2)
        before = device.cpu_seconds()
        time.sleep(1)
        assert device.cpu_seconds() == before


def test_a_pause_of_the_machine_loses_nothing(machine):
    guest, device = machine
    with device.dial() as sock:
        sock.sendall(request("E") + b"before")
        assert read_exactly(sock, 6) == b"before"
        guest.execute("stop")
        sock.sendall(b"during")
        time.sleep(0.1)
        guest.execute("cont")
        assert read_exactly(sock, 6) == b"during"


def test_unplugging_ends_connections_and_plugging_in_again_serves_new_ones(machine):
    guest, device = machine
    for _ in range(3):
        with device.dial() as sock:
            sock.sendall(request("E") + b"x")
            assert sock.recv(1) == b"x"
            guest.unplug_vsock()
            assert sock.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            device.dial()
        guest.plug_vsock(device)
        vsock_peer.wait_served(device)
        one_after_another(device, 3)


def test_a_reboot_of_the_guest_ends_connections_and_the_next_serves_new_ones(machine):
    guest, device = machine
    with device.dial() as sock:
        sock.sendall(request("E") + b"x")
        assert sock.recv(1) == b"x"
        guest.execute("system_reset")
        assert sock.recv(1) == b""
    guest.wait_ready(times=2)
    one_after_another(device, 3)


def test_one_device_serves_one_qemu_after_another(folder):
    device = Device(folder)
    try:
        for turn in range(2):
            (folder / str(turn)).mkdir()
            with Machine(folder / str(turn)) as guest:
                guest.plug_vsock(device)
                guest.wait_ready()
                sock = device.dial()
                sock.sendall(request("E") + b"x")
                assert sock.recv(1) == b"x"
            with sock:
                assert sock.recv(1) == b""
        assert device.errors.read_text() == ""
    finally:
        device.stop()


def test_a_driver_that_writes_nonsense_harms_itself_alone(machine, folder):
    """A second machine drives its device by hand, wrongly; then its kernel takes over, and all is well."""
    device = Device(folder)
    try:
        with Machine(folder, append="peer.nonsense") as guest:
            guest.plug_vsock(device)
            both_ways(machine[1], 4 * MIB, seed=3)
            guest.wait_ready()
            assert "nonsense: done" in guest.console()
            broken = device.errors.read_text().count("until it is reset")
            assert broken > 50
            one_after_another(device, 3)
    finally:
        device.stop()
