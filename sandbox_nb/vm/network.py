"""Network cards: from what their user says to what QEMU is told, and the socket their frames go through.

A NIC's socket is connected here, before QEMU has a part in it, and handed over: whoever is missing is missed
early, peers that take one connection (passt) are not asked twice, and a path may have any length.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox_nb.devices import NIC, NetworkFlags, NetworkMode, UserNIC
from sandbox_nb.errors import FailedPrecondition, InvalidArgument, NotFound, SandboxError
from sandbox_nb.vm.backend import Host

CONNECT_TIMEOUT = 5.0
"""Seconds a listener gets to take a connection; it takes none unless its backlog is full."""

VFKIT_MAGIC = b"VFKT"
"""What gvproxy's vfkit mode wants as the first datagram, to learn where frames go."""

# VIRTIO 1.2, 5.1.3 and 6: bits QEMU can offer or not, and its names for them.
_BITS = {
    2: ("CTRL_GUEST_OFFLOADS", "ctrl_guest_offloads"),
    15: ("MRG_RXBUF", "mrg_rxbuf"),
    16: ("STATUS", "status"),
    17: ("CTRL_VQ", "ctrl_vq"),
    18: ("CTRL_RX", "ctrl_rx"),
    19: ("CTRL_VLAN", "ctrl_vlan"),
    20: ("CTRL_RX_EXTRA", "ctrl_rx_extra"),
    21: ("GUEST_ANNOUNCE", "guest_announce"),
    23: ("CTRL_MAC_ADDR", "ctrl_mac_addr"),
    28: ("INDIRECT_DESC", "indirect_desc"),
    29: ("EVENT_IDX", "event_idx"),
    34: ("RING_PACKED", "packed"),
    40: ("RING_RESET", "queue_reset"),
}
# Always offered: MAC and VERSION_1.
_ALWAYS = 1 << 5 | 1 << 32
# 5.1.3.1: these are commands of the control queue.
_CONTROL = 17
_NEED_CONTROL = (2, 18, 19, 20, 21, 23)
# These need a header of their own before every frame, which no such socket carries.
_OFFLOADS = {
    0: "CSUM",
    1: "GUEST_CSUM",
    7: "GUEST_TSO4",
    8: "GUEST_TSO6",
    9: "GUEST_ECN",
    10: "GUEST_UFO",
    11: "HOST_TSO4",
    12: "HOST_TSO6",
    13: "HOST_ECN",
    14: "HOST_UFO",
}


def mac_for(sandbox: str, name: str) -> str:
    """A locally administered address, the same for the same card of the same sandbox."""
    digest = bytearray(hashlib.sha256(f"{sandbox}\0{name}".encode()).digest()[:6])
    digest[0] = digest[0] & ~0x01 | 0x02
    return digest.hex(":")


def feature_properties(features: int) -> dict[str, bool]:
    """QEMU's properties for a mask of feature bits: those are offered and no others; 0 leaves it to QEMU.

    Raises InvalidArgument naming the first bit that cannot be honoured.
    """
    if not features:
        return {}
    for bit in range(features.bit_length()):
        if not features >> bit & 1 or _ALWAYS >> bit & 1:
            continue
        if bit in _OFFLOADS:
            raise InvalidArgument(
                f"features={features:#x}: bit {bit} ({_OFFLOADS[bit]}) needs a vnet header, which sockets lack"
            )
        if bit not in _BITS:
            known = ", ".join(f"{number} ({name})" for number, (name, _) in _BITS.items())
            raise InvalidArgument(f"features={features:#x}: bit {bit} cannot be offered; these can: {known}")
        if bit in _NEED_CONTROL and not features >> _CONTROL & 1:
            raise InvalidArgument(
                f"features={features:#x}: bit {bit} ({_BITS[bit][0]}) needs bit {_CONTROL} ({_BITS[_CONTROL][0]})"
            )
    return {name: bool(features >> bit & 1) for bit, (_, name) in _BITS.items()}


def prepare(nic: NIC | UserNIC, *, sandbox: str) -> Card:
    """Judge a network card and connect its socket. Blocks, for CONNECT_TIMEOUT seconds at most.

    Raises InvalidArgument for features that cannot be honoured, NotFound when nobody listens at the endpoint,
    FailedPrecondition when a port to be forwarded is taken.
    """
    assert nic.name is not None, "devices.named gives every card a name"
    mac = (nic.mac or mac_for(sandbox, nic.name)).lower()
    if isinstance(nic, UserNIC):
        for port in nic.forward:
            _check_free(port)
        return Card(nic, mac)
    feature_properties(nic.features)
    return Card(nic, mac, _connect(nic))


@dataclass
class Card:
    """A network card ready to be plugged. ``discard`` it when it is not."""

    nic: NIC | UserNIC
    mac: str
    _socket: socket.socket | None = None
    _bound: Path | None = field(default=None, init=False)
    _netdev: str = field(default="", init=False)

    kind = "nic"

    @property
    def how(self) -> str:
        """``user``, ``unixgram`` or ``unixstream``."""
        return "user" if isinstance(self.nic, UserNIC) else NetworkMode(self.nic.mode).name.lower()

    @property
    def source(self) -> str:
        """The endpoint, or the ports that are forwarded."""
        if isinstance(self.nic, UserNIC):
            return ", ".join(f"{host} to {guest}" for host, guest in self.nic.forward.items())
        return os.fspath(self.nic.endpoint)

    async def open(self, host: Host, identity: str) -> dict[str, Any]:
        """See Backend."""
        device = {"driver": "virtio-net-pci", "netdev": identity, "mac": self.mac, "romfile": ""}
        if isinstance(self.nic, UserNIC):
            await self._open_user(host, identity, self.nic)
            return device
        await self._open_socket(host, identity, self.nic)
        return device | feature_properties(self.nic.features)

    async def close(self, host: Host) -> None:
        """See Backend."""
        self.discard()
        if self._netdev:
            netdev, self._netdev = self._netdev, ""
            await host.monitor.execute("netdev_del", {"id": netdev})

    def discard(self) -> None:
        """Let go of the socket. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._bound is not None:
            self._bound.unlink(missing_ok=True)
            self._bound = None

    async def _open_user(self, host: Host, identity: str, nic: UserNIC) -> None:
        try:
            await host.monitor.execute("netdev_add", user_netdev(nic, identity))
        except FailedPrecondition as error:
            if "host forwarding rule" not in str(error):
                raise
            raise FailedPrecondition(f"a port of {sorted(nic.forward)} is in use on the host: {error}") from error
        self._netdev = identity

    async def _open_socket(self, host: Host, identity: str, nic: NIC) -> None:
        if self._socket is None:  # given away to a machine that did not come up
            self._socket = await asyncio.to_thread(_connect, nic)
        if nic.mode == NetworkMode.UNIXGRAM:
            # Answers go to where frames come from. Being connected, the socket takes them from the peer alone.
            self._bound = host.folder / identity
            self._socket.bind(str(self._bound))
        if nic.flags & NetworkFlags.VFKIT:
            self._socket.send(VFKIT_MAGIC)
        await host.monitor.give_fd(self._socket.fileno(), identity)
        self._socket.close()
        self._socket = None
        await host.monitor.execute("netdev_add", socket_netdev(nic, identity))
        self._netdev = identity


def user_netdev(nic: UserNIC, identity: str) -> dict[str, Any]:
    """The arguments of ``netdev_add`` for QEMU's user-mode network."""
    guest = nic.addr.partition("/")[0] if "/" in nic.addr else ""
    rules = [{"str": f"tcp:127.0.0.1:{port}-{guest}:{inside}"} for port, inside in nic.forward.items()]
    forward = {"hostfwd": rules} if rules else {}
    return {"type": "user", "id": identity, "restrict": nic.restrict, **forward}


def socket_netdev(nic: NIC, identity: str) -> dict[str, Any]:
    """The arguments of ``netdev_add`` for a connected socket that QEMU knows as ``identity``.

    Frames on a stream come each behind its length, u32 big-endian. ``stream`` is the newer name for that, but its
    7.2 takes no descriptor: it looks for it in a thread that knows no monitor, and stays silent.
    """
    if nic.mode == NetworkMode.UNIXSTREAM:
        return {"type": "socket", "id": identity, "fd": identity}
    return {"type": "dgram", "id": identity, "local": {"type": "fd", "str": identity}}


def _connect(nic: NIC) -> socket.socket:
    """A socket connected to the endpoint. Raises NotFound when nobody listens there, InvalidArgument."""
    what = f"network card {nic.name!r}: endpoint {os.fspath(nic.endpoint)!r}"
    kind = socket.SOCK_DGRAM if nic.mode == NetworkMode.UNIXGRAM else socket.SOCK_STREAM
    try:
        path = os.open(nic.endpoint, os.O_PATH)
    except OSError as error:
        raise _unreachable(what, error) from error
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        if not stat.S_ISSOCK(os.fstat(path).st_mode):
            raise InvalidArgument(f"{what} is no socket: start what is to carry the frames, and give its socket")
        sock.settimeout(CONNECT_TIMEOUT)
        # By descriptor: an address holds 107 bytes of path, and a path may be longer.
        sock.connect(f"/proc/self/fd/{path}")
        sock.settimeout(None)
    except OSError as error:
        sock.close()
        raise _unreachable(what, error, kind) from error
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(path)
    return sock


def _unreachable(what: str, error: OSError, kind: int = 0) -> SandboxError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED):
        return NotFound(f"{what}: nobody listens there; start what is to carry the frames first")
    if error.errno == errno.EPROTOTYPE:
        other = NetworkMode.UNIXSTREAM if kind == socket.SOCK_DGRAM else NetworkMode.UNIXGRAM
        return InvalidArgument(f"{what} is of the other kind: give mode={other.name}")
    return InvalidArgument(f"{what} cannot be connected to: {error.strerror or error}")


def _check_free(port: int) -> None:
    """Raise FailedPrecondition unless ``port`` of the loopback can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            raise FailedPrecondition(
                f"port {port} of the host cannot be forwarded: {error.strerror}; choose another"
            ) from error
