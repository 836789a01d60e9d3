"""A guest that does whatever it likes: the device must not crash, grow without bound or run for ever.

A generated string of bytes is a program: each step writes descriptors, moves ring indices, sends packets good and bad,
scribbles over memory (the rings included), or lets hosts come, talk and go, and the device take a turn.
"""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox_nb.vsock import bridge, packet
from sandbox_nb.vsock.device import Device
from sandbox_nb.vsock.framing import BATCH, Inbox
from sandbox_nb.vsock.memory import GuestMemory, Region
from sandbox_nb.vsock.packet import Header
from sandbox_nb.vsock.virtqueue import INDIRECT, NEXT, WRITE, Virtqueue, ring_sizes
from vsock.model import GUEST_BASE, DriverRing

SIZE = 8
MEMORY = 1 << 14
DATA = 0x1000
LIMIT = 6


class Front:
    """What the device needs of a front end, without one."""

    def __init__(self, inbox, outbox):
        self.inbox, self.outbox = inbox, outbox

    def interrupt(self, _index):
        pass

    def report_broken(self):
        self.inbox = self.outbox = None


class Arena:
    """One device for all programs; each begins with fresh memory and rings, and ends with a guest gone."""

    def __init__(self, folder):
        self.folder = folder
        self.listeners = []
        for name in ("vhost", "v", "v_7"):
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(str(folder / name))
            sock.listen(16)
            sock.setblocking(False)
            self.listeners.append(sock)
        vhost, hybrid, self.accepting = self.listeners
        self.device = Device(vhost, hybrid, uds=str(folder / "v"), cid=3, limit=LIMIT)
        self.bytes = bytearray(MEMORY)
        self.memory = memoryview(self.bytes)
        self.watched = len(self.device.loop._handlers)

    def boot(self):
        """A driver begins: fresh memory, fresh rings, room for one packet."""
        self.bytes[:] = bytes(MEMORY)
        self.rings = {"rx": DriverRing(self.memory, 0, SIZE), "tx": DriverRing(self.memory, 0x800, SIZE)}
        guest_memory = GuestMemory([Region(GUEST_BASE, 0, self.memory)])
        queues = {
            name: Virtqueue(
                SIZE,
                *(
                    self.memory[place : place + size]
                    for place, size in zip((ring.desc, ring.avail, ring.used), ring_sizes(SIZE), strict=True)
                ),
                memory=guest_memory,
                fence=int,
                writable=name == "rx",
                event_idx=True,
            )
            for name, ring in self.rings.items()
        }
        self.front = Front(Inbox(queues["rx"], self.device.tap), queues["tx"])
        self.device._front = self.front

    def run(self, program):
        """Half the programs keep the rings in order and misbehave in what they send."""
        self.boot()
        self.device.bridge.attached = True
        self.hosts = []
        self.program = iter(program)
        steps = ORDERLY if self.byte() & 1 else ORDERLY + DISORDERLY
        try:
            with contextlib.suppress(StopIteration):
                while True:
                    steps[self.byte() % len(steps)](self)
            self.check()
        finally:
            self.end()

    def byte(self):
        return next(self.program)

    def turn(self):
        self.device.step(wait=False)
        if not self.front.inbox:  # broken: the driver notices, resets it and begins again
            self.boot()

    def check(self):
        """However it went: bounded, and idle as soon as nobody does anything any more."""
        device = self.device
        assert len(device.bridge._replies) <= bridge.MAX_REPLIES + BATCH
        standing = device.statistics()
        assert len(standing["streams"]) + standing["handshakes"] <= LIMIT
        assert sum(stream["backlog"] for stream in standing["streams"]) <= LIMIT * bridge.MAX_WINDOW
        for _ in range(200):
            if not device.step(wait=False):
                return
        raise AssertionError("the device is never done")

    def end(self):
        self.device._front = None
        self.device.bridge.attached = False
        self.device.bridge.guest_gone()
        for host in self.hosts:
            host.close()
        for _ in range(6):
            self.device.step(wait=False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.accepting.accept()[0].close()
        for _ in range(3):
            self.device.step(wait=False)
        standing = self.device.statistics()
        assert (standing["streams"], standing["handshakes"], standing["granted"]) == ([], 0, 0)
        assert len(self.device.loop._handlers) == self.watched

    def close(self):
        for sock in self.listeners:
            sock.close()
        self.device.loop.close()

    # Steps. What is drawn is mostly nearly right, since nonsense throughout is refused at the first glance.

    def ring(self):
        return self.rings["tx" if self.byte() & 1 else "rx"]

    def address(self):
        kind = self.byte()
        if kind < 200:
            return GUEST_BASE + DATA + (kind << 4)
        if kind < 240:
            return GUEST_BASE + (kind - 200) * 0x100  # the rings themselves
        return (GUEST_BASE + MEMORY - 8, 0, (1 << 64) - 1, GUEST_BASE - 1)[kind & 3]

    def length(self):
        kind = self.byte()
        return (44, 44, 49, 100, kind, 16 * (kind % 10), 4096, 0, 1, 1 << 31, 0xFFFF_FFFF, 45)[kind % 12]

    def write_descriptor(self):
        flags = (0, WRITE, NEXT, NEXT | WRITE, INDIRECT, 7, self.byte())[self.byte() % 7]
        self.ring().write_descriptor(self.byte() % SIZE, self.address(), self.length(), flags, self.byte() % 10)

    def offer(self):
        self.ring().offer(self.byte() % 10)

    def move_index(self):
        ring = self.ring()
        ring.set_available_index(ring.available_index + self.byte() - 128)

    def scribble(self):
        place = self.byte() << 6 | self.byte() & 63
        self.bytes[place % MEMORY] = self.byte()

    def receive_buffer(self):
        ring, place = self.rings["rx"], GUEST_BASE + DATA + 0x100 * (self.byte() & 15)
        index = ring.available_index % 4 * 2
        ring.write_descriptor(index, place, 44, NEXT | WRITE, index + 1)
        ring.write_descriptor(index + 1, place + 44, 1 + self.byte(), WRITE, 0)
        ring.offer(index)

    def send(self):
        ring, kind = self.rings["tx"], self.byte()
        size = 1 << 30 if kind == 253 else (0, 5, 200, 4096)[self.byte() & 3]
        ports = [key[::-1] for key in self.device.bridge._streams] or [(1, 7)]
        guest_port, host_port = ports[kind % len(ports)] if kind < 220 else (kind, 7 + (kind & 1))
        header = Header(
            3, 2 + (kind == 255), guest_port, host_port, size, 1 + (kind == 254), OPS[self.byte() % len(OPS)],
            self.byte() & 3, self.byte() << self.byte() % 25, self.byte() << self.byte() % 25,
        )  # fmt: skip
        place = DATA + 0x200 * (kind & 3)
        self.bytes[place : place + 44] = header.pack()
        index = ring.available_index % 4 * 2
        ring.write_descriptor(index, GUEST_BASE + place, 44, NEXT if size else 0, index + 1)
        ring.write_descriptor(index + 1, GUEST_BASE + DATA, min(size, 4096), 0, 0)
        ring.offer(index)

    def accept_request(self):
        """The guest's well-behaved answer to whoever waits for one."""
        ring = self.rings["tx"]
        for host_port, guest_port in list(self.device.bridge._streams)[:1]:
            header = Header(3, 2, guest_port, host_port, 0, 1, packet.RESPONSE, 0, 1 << self.byte() % 21, 0)
            self.bytes[DATA : DATA + 44] = header.pack()
            ring.write_descriptor(0, GUEST_BASE + DATA, 44, 0, 0)
            ring.offer(0)

    def host_comes(self):
        if len(self.hosts) < 2 * LIMIT:
            line = (b"CONNECT 9\n", b"CONNECT 9\nmore", b"CONN", b"\n")[self.byte() & 3]
            sock = socket.socket(socket.AF_UNIX)
            self.hosts.append(sock)
            sock.setblocking(False)
            sock.connect(str(self.folder / "v"))
            sock.send(line)

    def host_acts(self):
        if not self.hosts:
            return
        sock = self.hosts[self.byte() % len(self.hosts)]
        with contextlib.suppress(OSError):
            match self.byte() % 6:
                case 0 | 1:
                    sock.send(bytes(self.byte() << self.byte() % 8))
                case 2 | 3:
                    sock.recv(1 << self.byte() % 17)
                case 4:
                    sock.shutdown(self.byte() % 3)
                case 5:
                    sock.close()


OPS = (packet.RW,) * 6 + (packet.CREDIT_UPDATE, packet.CREDIT_REQUEST, packet.SHUTDOWN, *range(10))
ORDERLY = [
    *(Arena.turn,) * 4,
    *(Arena.send,) * 3,
    *(Arena.receive_buffer,) * 3,
    Arena.accept_request,
    Arena.host_comes,
    *(Arena.host_acts,) * 2,
]
DISORDERLY = [Arena.write_descriptor, Arena.offer, Arena.move_index, Arena.scribble]


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    made = Arena(tmp_path_factory.mktemp("hostile"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """The device reports each broken driver; here they are all broken."""
    monkeypatch.setattr("sandbox_nb.vsock.device.log", lambda _: None)


def hostile(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


PROGRAMS = st.binary(min_size=20, max_size=300)


@hostile(1500)
@given(PROGRAMS)
def test_no_guest_breaks_the_device(arena, program):
    arena.run(program)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@hostile(200_000)
@given(PROGRAMS)
def test_no_guest_breaks_the_device_however_long_it_tries(arena, program):
    arena.run(program)
