"""A whole device in this process, stepped by hand, with a guest in memory before it and sockets behind it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from sandbox_nb.vsock import packet
from sandbox_nb.vsock.device import Device
from sandbox_nb.vsock.packet import Header
from vsock.model import FrontEnd, Guest


class Rig:
    """`settle` lets the device do all there is to do; nothing happens in between."""

    def __init__(self, folder: Path, *, limit: int = 64, start_guest: bool = True, **guest: object) -> None:
        self.uds = folder / "v"
        self.vhost = folder / "vhost"
        self._listeners = [self._bind(self.vhost), self._bind(self.uds)]
        self.device = Device(*self._listeners, uds=str(self.uds), cid=3, limit=limit)
        self.guest = Guest(**guest)  # type: ignore[arg-type]
        self._open: list[socket.socket] = []
        self.front = self.attach()

    def _bind(self, path: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(path))
        sock.listen(128)
        return sock

    def keep(self, sock: socket.socket) -> socket.socket:
        """Close it with the rig."""
        self._open.append(sock)
        return sock

    def attach(self, **options: int) -> FrontEnd:
        """Connect a front end."""
        sock = self.keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.connect(str(self.vhost))
        sock.settimeout(10)
        return FrontEnd(sock, self.guest, **options)

    def start(self) -> None:
        """Bring the device up, as QEMU and a driver would."""
        self.front.start()
        self.settle()
        assert self.device.statistics()["running"]

    def settle(self, *, most: int = 1000) -> None:
        """Run the device until it has nothing to do; fail if it always finds something."""
        quiet = 0
        for _ in range(most):
            quiet = 0 if self.device.step(wait=False) else quiet + 1
            if quiet == 3:
                return
        raise AssertionError("the device spins")

    def wait(self, condition, *, rounds: int = 200) -> None:
        """Run the device, sleeping as it does, until the condition holds."""
        for _ in range(rounds):
            if condition():
                return
            self.device.step(wait=True)
        raise AssertionError("it never happened")

    # Hosts.

    def connect(self) -> socket.socket:
        """A host's socket connected to the device, nothing said yet."""
        sock = self.keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.connect(str(self.uds))
        sock.setblocking(False)
        return sock

    def listen(self, port: int, backlog: int = 16) -> socket.socket:
        """A host's socket for the guest's connections to a port."""
        sock = self.keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.bind(f"{self.uds}_{port}")
        sock.listen(backlog)
        sock.setblocking(False)
        return sock

    def open(self, port: int = 5000, *, pipelined: bytes = b"", **credit: int) -> Wire:
        """A host's connection to a guest port, accepted by the guest."""
        sock = self.connect()
        sock.sendall(b"CONNECT %d\n" % port + pipelined)
        self.settle()
        (request,) = [header for header, _ in self.guest.receive() if header.op == packet.REQUEST]
        wire = Wire(self, sock, request.src_port, port)
        wire.send(packet.RESPONSE, **credit)
        assert sock.recv(64) == b"OK %d\n" % request.src_port
        return wire

    def open_from_guest(self, host_port: int = 7000, guest_port: int = 1234, **credit: int) -> Wire:
        """A guest's connection to a host port somebody listens on, accepted."""
        listener = self.listen(host_port)
        self.guest.send(self.guest.packet(packet.REQUEST, guest_port, host_port, **credit))
        self.guest.kick()
        self.settle()
        sock = self.keep(listener.accept()[0])
        sock.setblocking(False)
        assert [header.op for header, _ in self.guest.receive()] == [packet.RESPONSE]
        return Wire(self, sock, host_port, guest_port)

    def close(self) -> None:
        """Let go of everything."""
        for sock in self._open:
            sock.close()
        self.settle()
        self.device.tap.close()
        self.device.loop.close()
        for sock in self._listeners:
            sock.close()
        self.guest.close()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Wire:
    """One open connection: `host`, the UNIX socket, and the guest's end, as packets."""

    def __init__(self, rig: Rig, host: socket.socket, host_port: int, guest_port: int) -> None:
        self.rig = rig
        self.host = host
        self.host_port = host_port
        self.guest_port = guest_port

    def send(self, op: int, payload: bytes = b"", **fields: int) -> None:
        """A packet from the guest, and the device's reaction to it."""
        guest = self.rig.guest
        guest.send(guest.packet(op, self.guest_port, self.host_port, len=len(payload), **fields), payload)
        guest.kick()
        self.rig.settle()

    def fill(self) -> bytes:
        """Send as long as there is credit, the host reading nothing; what was sent."""
        sent = bytearray()
        while True:
            credit = self.statistics()["credit_of_guest"]
            size = min(60_000, credit["granted"] - credit["held"])
            if not size:
                return bytes(sent)
            sent += (piece := os.urandom(size))
            self.send(packet.RW, piece)

    def statistics(self) -> dict[str, Any]:
        """How the device sees the connection."""
        mine = (self.host_port, self.guest_port)
        streams = self.rig.device.statistics()["streams"]
        (found,) = [s for s in streams if (s.get("host_port"), s.get("guest_port")) == mine]
        return found

    def packets(self) -> list[tuple[Header, bytes]]:
        """What has come for the guest on this connection."""
        self.rig.settle()
        mine = (self.host_port, self.guest_port)
        return [(h, data) for h, data in self.rig.guest.receive() if (h.src_port, h.dst_port) == mine]

    def ops(self) -> list[int]:
        """The operations of what has come."""
        return [header.op for header, _ in self.packets()]

    def host_read(self) -> bytes:
        """What the host can read now; b"" at the end, BlockingIOError when there is nothing."""
        self.rig.settle()
        return self.host.recv(1 << 20)
