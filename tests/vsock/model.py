"""A guest in memory: the driver's side of the virtqueues, and just enough vsock to be a well-behaved peer, or not.

It stands where QEMU and a Linux guest stand, so that what a real guest would never do can be tried, quickly. The
memory is a memfd, given to the device by vhost-user messages as QEMU would.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable

from sandbox_nb.vsock import packet, vhost_user
from sandbox_nb.vsock.frontend import RX, TX
from sandbox_nb.vsock.packet import HEADER_SIZE, HOST_CID, STREAM, Header, unpack
from sandbox_nb.vsock.virtqueue import INDIRECT, NEXT, NO_NOTIFY, WRITE

GUEST_CID = 3
SIZE = 128
MEMORY = 8 << 20
USER_BASE = 0x7F00_0000_0000
"""Where the front end says it has the memory mapped. Any number: nobody but the front end uses it."""
GUEST_BASE = 0x10_0000
ALL_FEATURES = (
    vhost_user.VIRTIO_F_VERSION_1
    | vhost_user.VHOST_USER_F_PROTOCOL_FEATURES
    | vhost_user.VIRTIO_RING_F_INDIRECT_DESC
    | vhost_user.VIRTIO_RING_F_EVENT_IDX
)


class DriverRing:
    """The driver's side of one split queue, `place` bytes into the memory."""

    def __init__(self, memory: memoryview, place: int, size: int = SIZE) -> None:
        self.size = size
        self.desc = place
        self.avail = place + 16 * size
        self.used = (self.avail + 6 + 2 * size + 3) & ~3
        self.end = (self.used + 6 + 8 * size + 4095) & ~4095
        self.memory = memory
        memory[place : self.end] = bytes(self.end - place)
        self._avail = memory[self.avail : self.avail + 6 + 2 * size].cast("H")
        self._used = memory[self.used : self.used + 6 + 8 * size]
        self._free = deque(range(size))
        self._chains: dict[int, list[int]] = {}
        self._seen = 0
        self._kicked = 0

    def write_descriptor(self, index: int, address: int, length: int, flags: int, follow: int) -> None:
        """Any 16 bytes at all."""
        struct.pack_into("<QIHH", self.memory, self.desc + 16 * index, address, length, flags, follow)

    def offer(self, head: int) -> None:
        """Make a chain available."""
        self._avail[2 + self._avail[1] % self.size] = head
        self._avail[1] = (self._avail[1] + 1) & 0xFFFF

    def set_available_index(self, value: int) -> None:
        """Make it seem as if so many chains had been made available."""
        self._avail[1] = value & 0xFFFF

    @property
    def available_index(self) -> int:
        """Chains made available so far, modulo 2**16."""
        return self._avail[1]

    @property
    def room(self) -> int:
        """Descriptors not in use."""
        return len(self._free)

    def add(self, buffers: Iterable[tuple[int, int]], *, writable: bool) -> int:
        """Chain buffers (guest-physical address, length) and make them available; the head."""
        buffers = list(buffers)
        indices = [self._free.popleft() for _ in buffers]
        for position, (address, length) in enumerate(buffers):
            last = position == len(buffers) - 1
            flags = (WRITE if writable else 0) | (0 if last else NEXT)
            self.write_descriptor(indices[position], address, length, flags, 0 if last else indices[position + 1])
        self._chains[indices[0]] = indices
        self.offer(indices[0])
        return indices[0]

    def add_indirect(self, table: int, buffers: Iterable[tuple[int, int]], *, writable: bool) -> int:
        """The same through an indirect table at guest-physical address `table`."""
        buffers = list(buffers)
        index = self._free.popleft()
        for position, (address, length) in enumerate(buffers):
            flags = (WRITE if writable else 0) | (0 if position == len(buffers) - 1 else NEXT)
            place = table - GUEST_BASE + 16 * position
            struct.pack_into("<QIHH", self.memory, place, address, length, flags, position + 1)
        self.write_descriptor(index, table, 16 * len(buffers), INDIRECT, 0)
        self._chains[index] = [index]
        self.offer(index)
        return index

    def used_chains(self) -> list[tuple[int, int]]:
        """(head, bytes written) of chains the device put back since the last call."""
        (index,) = struct.unpack_from("<H", self._used, 2)
        done = []
        while self._seen != index:
            head, written = struct.unpack_from("<II", self._used, 4 + 8 * (self._seen % self.size))
            self._free.extend(self._chains.pop(head))
            done.append((head, written))
            self._seen = (self._seen + 1) & 0xFFFF
        return done

    def wish_interrupt(self) -> None:
        """Ask to be interrupted for the next chain put back (EVENT_IDX)."""
        self._avail[2 + self.size] = self._seen

    def kick_needed(self, *, event_idx: bool = True) -> bool:
        """Whether the device asked to be notified of what was made available since the last call."""
        old, new = self._kicked, self._avail[1]
        self._kicked = new
        if not event_idx:
            return not self._used[0] & NO_NOTIFY
        (event,) = struct.unpack_from("<H", self._used, 4 + 8 * self.size)
        return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF


class Guest:
    """A guest's memory, queues and sense of vsock: packets go out by `send`, come in by `receive`."""

    def __init__(
        self, *, cid: int = GUEST_CID, buffers: int = 64, buffer_size: int = 4096, split: bool = True
    ) -> None:
        self.cid = cid
        self.fd = os.memfd_create("guest")
        os.ftruncate(self.fd, MEMORY)
        self._map = mmap.mmap(self.fd, MEMORY)
        self.memory = memoryview(self._map)
        self.buffers, self.buffer_size, self.split = buffers, buffer_size, split
        self.kicks = (os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK))
        self.calls = (os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK))
        self.errors = (os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK))
        self.restart()

    def restart(self) -> None:
        """What a booting driver does: fresh rings, receive buffers in place."""
        self.rx = DriverRing(self.memory, 0)
        self.tx = DriverRing(self.memory, self.rx.end)
        self._next = self.tx.end
        self._places: dict[int, tuple[int, int]] = {}
        self._send_places = [self.allocate(HEADER_SIZE + 65536) for _ in range(16)]
        self._sent = 0
        for _ in range(self.buffers):
            self.post(self.allocate(HEADER_SIZE), self.allocate(self.buffer_size))

    def allocate(self, size: int) -> int:
        """A guest-physical address with `size` bytes behind it."""
        place = self._next
        self._next += (size + 63) & ~63
        if self._next > MEMORY:
            raise MemoryError(f"the model's {MEMORY} bytes are used up")
        return GUEST_BASE + place

    def view(self, address: int, size: int) -> memoryview:
        """The bytes at a guest-physical address."""
        return self.memory[address - GUEST_BASE : address - GUEST_BASE + size]

    def post(self, header: int, payload: int) -> None:
        """Give the device a receive buffer."""
        if self.split:
            head = self.rx.add([(header, HEADER_SIZE), (payload, self.buffer_size)], writable=True)
        else:
            head = self.rx.add([(payload, self.buffer_size)], writable=True)
        self._places[head] = (header, payload)

    def receive(self, *, repost: bool = True) -> list[tuple[Header, bytes]]:
        """Packets that have come; their buffers are given back."""
        packets = []
        for head, written in self.rx.used_chains():
            header, payload = self._places.pop(head)
            if self.split:
                fields = unpack(self.view(header, HEADER_SIZE))
                data = bytes(self.view(payload, written - HEADER_SIZE))
            else:
                fields = unpack(self.view(payload, HEADER_SIZE))
                data = bytes(self.view(payload + HEADER_SIZE, written - HEADER_SIZE))
            packets.append((fields, data))
            if repost:
                self.post(header, payload)
        return packets

    def can_send(self) -> bool:
        """Whether the transmit ring has a place free."""
        self.tx.used_chains()
        return self.tx.room >= 2 and (self.tx.size - self.tx.room) // 2 < len(self._send_places) - 1

    def send(self, header: Header, payload: bytes | memoryview = b"") -> None:
        """Put a packet on the transmit ring."""
        self.tx.used_chains()
        place = self._send_places[self._sent % len(self._send_places)]
        self._sent += 1
        self.view(place, HEADER_SIZE)[:] = header.pack()
        buffers = [(place, HEADER_SIZE)]
        if payload:
            self.view(place + HEADER_SIZE, len(payload))[:] = payload
            buffers.append((place + HEADER_SIZE, len(payload)))
        self.tx.add(buffers, writable=False)

    def packet(self, op: int, guest_port: int, host_port: int, **fields: int) -> Header:
        """A header from this guest to the host."""
        values = {"len": 0, "type": STREAM, "flags": 0, "buf_alloc": 256 * 1024, "fwd_cnt": 0} | fields
        return Header(self.cid, HOST_CID, guest_port, host_port, op=op, **values)

    def kick(self) -> None:
        """Notify the device of both queues, whether or not it asked for it."""
        for fd in self.kicks:
            os.eventfd_write(fd, 1)

    def close(self) -> None:
        """Let go of everything, the mapping (which has a descriptor of its own) included."""
        del self.rx, self.tx, self.memory, self._map
        for fd in (*self.kicks, *self.calls, *self.errors, self.fd):
            os.close(fd)


class FrontEnd:
    """QEMU's side of the vhost-user socket."""

    def __init__(self, sock: socket.socket, guest: Guest, *, features: int = ALL_FEATURES) -> None:
        self.socket = sock
        self.guest = guest
        self.features = features

    def send(self, request: int, payload: bytes = b"", fds: Iterable[int] = (), *, flags: int = 1) -> None:
        """Any message at all."""
        message = struct.pack("<III", request, flags, len(payload)) + payload
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([message], ancillary)

    def messages(self, bases: tuple[int, int] = (0, 0)) -> list[tuple[int, bytes, tuple[int, ...]]]:
        """What QEMU sends to start the device."""
        u64, state = struct.Struct("<Q"), struct.Struct("<II")
        table = struct.pack("<IIQQQQ", 1, 0, GUEST_BASE, MEMORY, USER_BASE, 0)
        out: list[tuple[int, bytes, tuple[int, ...]]] = [
            (vhost_user.SET_OWNER, b"", ()),
            (vhost_user.SET_PROTOCOL_FEATURES, u64.pack(0x209), ()),
            (vhost_user.SET_FEATURES, u64.pack(self.features), ()),
            (vhost_user.SET_MEM_TABLE, table, (self.guest.fd,)),
        ]
        for index, ring in ((RX, self.guest.rx), (TX, self.guest.tx)):
            places = [USER_BASE + place for place in (ring.desc, ring.used, ring.avail)]
            out += [
                (vhost_user.SET_VRING_NUM, state.pack(index, ring.size), ()),
                (vhost_user.SET_VRING_BASE, state.pack(index, bases[index]), ()),
                (vhost_user.SET_VRING_ADDR, struct.pack("<IIQQQQ", index, 0, *places, 0), ()),
                (vhost_user.SET_VRING_ERR, u64.pack(index), (self.guest.errors[index],)),
                (vhost_user.SET_VRING_KICK, u64.pack(index), (self.guest.kicks[index],)),
                (vhost_user.SET_VRING_CALL, u64.pack(index), (self.guest.calls[index],)),
            ]
        return out + [(vhost_user.SET_VRING_ENABLE, state.pack(index, 1), ()) for index in (RX, TX)]

    def start(self, bases: tuple[int, int] = (0, 0)) -> None:
        """Start the device."""
        for request, payload, fds in self.messages(bases):
            self.send(request, payload, fds)

    def ask(self, request: int, payload: bytes = b"") -> bytes:
        """Send a request and read its answer (the device must be running meanwhile)."""
        self.send(request, payload)
        return self.read_reply()

    def read_reply(self) -> bytes:
        """The payload of one answer."""
        _, _, size = struct.unpack("<III", self.socket.recv(12, socket.MSG_WAITALL))
        return self.socket.recv(size, socket.MSG_WAITALL) if size else b""


def data_of(packets: Iterable[tuple[Header, bytes]]) -> bytes:
    """The payload of RW packets, joined."""
    return b"".join(data for header, data in packets if header.op == packet.RW)
