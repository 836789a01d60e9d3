"""The vsock device, beside virtio-serial (QEMU's own C device) and TCP through QEMU's user network.

One machine has all three, and the same two programs move the same bytes over each, in turns. Each way runs at the
block size, of four, that serves it best. h2g is host to guest, g2h guest to host.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox_nb.bench import Row, Skipped
from sandbox_nb.bench.vsock_peer import PORT, Device, read_answer, request, running
from sandbox_nb.errors import FailedPrecondition

NAMES = (
    *("vsock_h2g_mb_s", "vsock_g2h_mb_s", "vsock_rtt_us", "vsock_connections_s"),
    *("serial_h2g_mb_s", "serial_g2h_mb_s", "serial_rtt_us"),
    *("tcp_h2g_mb_s", "tcp_g2h_mb_s", "tcp_rtt_us", "tcp_connections_s"),
    *("vsock_h2g_ratio", "vsock_g2h_ratio", "vsock_rtt_ratio"),
    *("vsock_h2g_tcp_ratio", "vsock_g2h_tcp_ratio", "vsock_rtt_tcp_ratio"),
    *("vsock_device_anon_mb", "vsock_device_spawn_ms", "vsock_device_idle_percent"),
)

MIB = 1 << 20
ROUNDS = 11
BLOCKS = (16 << 10, 64 << 10, 256 << 10, MIB)
PINGS = 500
CONNECTIONS = 50
SPAWNS = 15
IDLE_SECONDS = 2.0

_buffer = memoryview(bytearray(MIB))


@dataclass
class Way:
    """One transport to the guest program: a connection, and how many bytes are worth a measurement."""

    name: str
    sock: socket.socket
    size: int

    def h2g(self, block: int) -> float:
        """MB/s from host to guest, written and read in blocks of that size."""
        began = time.perf_counter()
        self.sock.sendall(request("B", block=block, count=self.size, argument=0))
        left = self.size
        while left:
            left -= self.sock.send(_buffer[: min(left, block)])
        read_answer(self.sock)
        return self.size / (time.perf_counter() - began) / 1e6

    def g2h(self, block: int) -> float:
        """MB/s from guest to host."""
        began = time.perf_counter()
        self.sock.sendall(request("B", block=block, count=self.size, argument=1))
        left = self.size
        while left:
            left -= self.sock.recv_into(_buffer, min(left, block))
        return self.size / (time.perf_counter() - began) / 1e6

    def rtt(self) -> float:
        """The median round trip of one byte, in µs."""
        self.sock.sendall(request("P", count=PINGS))
        times = []
        for _ in range(PINGS):
            began = time.perf_counter()
            self.sock.send(b"x")
            self.sock.recv(1)
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e6


def rows() -> dict[str, Row]:
    """Measure all rows."""
    try:
        with _machine() as (device, ways):
            found = _measure(device, ways)
            found["vsock_device_idle_percent"] = Row.of([_idle(device)], "%")
            found["vsock_device_anon_mb"] = Row.of([device.anonymous_kib() * 1024 / 1e6], "MB")
    except FailedPrecondition as error:
        raise Skipped(str(error)) from error
    found["vsock_device_spawn_ms"] = Row.of([_spawn() for _ in range(SPAWNS)], "ms")
    return found


@contextlib.contextmanager
def _machine() -> Iterator[tuple[Device, list[Way]]]:
    with tempfile.TemporaryDirectory(prefix="vsock-") as folder, contextlib.ExitStack() as stack:
        port = _free_port()
        serial = Path(folder) / "serial"
        arguments = [
            *("-chardev", f"socket,id=serial,path={serial},server=on,wait=off"),
            *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=serial,name=peer"),
            *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:{PORT}"),
            *("-device", "virtio-net-pci,netdev=net"),
        ]
        _, device = stack.enter_context(running(arguments=arguments))
        stream = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        stream.connect(str(serial))
        ways = [
            Way("vsock", stack.enter_context(device.dial()), 32 * MIB),
            Way("serial", stream, 32 * MIB),
            Way("tcp", stack.enter_context(_dial_tcp(port)), 8 * MIB),
        ]
        for way in ways:
            way.sock.settimeout(120)
        yield device, ways


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _dial_tcp(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _measure(device: Device, ways: list[Way]) -> dict[str, Row]:
    """Every way in turn, round after round; the ratios are of neighbours in one round."""
    tasks: dict[tuple[str, str], Callable[[], float]] = {}
    for way in ways:
        tasks[way.name, "h2g"] = _at(way.h2g, max(BLOCKS, key=way.h2g))
        tasks[way.name, "g2h"] = _at(way.g2h, max(BLOCKS, key=way.g2h))
        tasks[way.name, "rtt"] = way.rtt
    port = ways[-1].sock.getpeername()[1]
    tasks["vsock", "connections"] = lambda: _connections(device.dial)
    tasks["tcp", "connections"] = lambda: _connections(lambda: _dial_tcp(port))
    samples: dict[tuple[str, str], list[float]] = {key: [] for key in tasks}
    for _ in range(ROUNDS):
        for key in sorted(tasks, key=lambda key: key[1]):
            samples[key].append(tasks[key]())
    found = {}
    for (name, what), taken in samples.items():
        suffix, unit = {"rtt": ("us", "µs"), "connections": ("s", "1/s")}.get(what, ("mb_s", "MB/s"))
        found[f"{name}_{what}_{suffix}"] = Row.of(taken, unit)
    for what in ("h2g", "g2h", "rtt"):
        found[f"vsock_{what}_ratio"] = _ratio(samples["vsock", what], samples["serial", what])
        found[f"vsock_{what}_tcp_ratio"] = _ratio(samples["vsock", what], samples["tcp", what])
    return found


def _at(measure: Callable[[int], float], block: int) -> Callable[[], float]:
    return lambda: measure(block)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> Row:
    return Row.of([a / b for a, b in zip(ours, theirs, strict=True)], "ratio")


def _connections(dial: Callable[[], socket.socket]) -> float:
    """Connections per second, one after another, each proved by a byte there and back."""
    began = time.perf_counter()
    for _ in range(CONNECTIONS):
        with dial() as sock:
            sock.sendall(request("P", count=1) + b"x")
            sock.recv(1)
    return CONNECTIONS / (time.perf_counter() - began)


def _idle(device: Device) -> float:
    """Processor time of a device with an open connection and nothing to do, in percent."""
    time.sleep(0.5)
    before = device.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    return (device.cpu_seconds() - before) / IDLE_SECONDS * 100


def _spawn() -> float:
    """Milliseconds from the spawn of the process to its sockets."""
    with tempfile.TemporaryDirectory(prefix="vsock-") as folder:
        began = time.perf_counter()
        device = Device(Path(folder))
        took = (time.perf_counter() - began) * 1000
        device.stop()
        return took
