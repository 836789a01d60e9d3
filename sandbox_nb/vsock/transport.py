"""The two ways to a guest's vsock, behind one interface, and which of them to take.

`vhost-user` is the device process of this package: no privileges, no kernel module, UNIX sockets. `kernel` is
Linux's own vhost-vsock, where the user may open /dev/vhost-vsock: QEMU's vhost-vsock-pci, and AF_VSOCK sockets on
the host.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple, Protocol

from . import connect

if TYPE_CHECKING:
    from os import PathLike

TRANSPORTS = ("auto", "vhost-user", "kernel")
VHOST_VSOCK = "/dev/vhost-vsock"

_SET_GUEST_CID = 0x4008AF60
"""VHOST_VSOCK_SET_GUEST_CID, _IOW(0xAF, 0x60, u64) (uapi/linux/vhost.h)."""
_FIRST_CID, _LAST_CID = 1 << 16, 0x7FFF_FFFF
"""Above 3, which other programs like to take, and above privileged ports: a CID of ours is a port, too."""


class Transport(Protocol):
    """Connections to one guest."""

    async def dial(self, port: int, *, timeout: float | None, first: bytes = b"") -> socket.socket:
        """A connected, non-blocking socket to a guest port, with `first` sent.

        Raises ConnectionRefusedError, TimeoutError, OSError.
        """

    def listen(self, port: int) -> socket.socket:
        """A listening socket for connections of the guest to a host port."""


class HybridTransport:
    """Through a device process with its socket at `uds`."""

    def __init__(self, uds: str | PathLike[str]) -> None:
        self.uds = uds

    async def dial(self, port: int, *, timeout: float | None, first: bytes = b"") -> socket.socket:
        """See Transport."""
        return await connect.dial(self.uds, port, timeout=timeout, first=first)

    def listen(self, port: int) -> socket.socket:
        """See Transport."""
        return connect.listen(self.uds, port)


class KernelTransport:
    """Through the kernel, to the guest with context id `cid`.

    Host ports are one space for all guests and programs of the host: whoever accepts a connection checks with
    `is_guest` whose it is.
    """

    def __init__(self, cid: int) -> None:
        self.cid = cid

    async def dial(self, port: int, *, timeout: float | None, first: bytes = b"") -> socket.socket:
        """See Transport."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(timeout):
                await loop.sock_connect(sock, (self.cid, port))
                await loop.sock_sendall(sock, first)
        except TimeoutError:
            sock.close()
            raise TimeoutError(f"port {port} of guest {self.cid} did not answer in time") from None
        except OSError as error:
            sock.close()
            if error.errno not in (errno.ECONNRESET, errno.ENODEV):
                raise
            # How AF_VSOCK says that nothing listens there, or that there is no such guest (yet).
            raise ConnectionRefusedError(f"port {port} of guest {self.cid} refused: {error.strerror}") from error
        except BaseException:
            sock.close()
            raise
        return sock

    def listen(self, port: int) -> socket.socket:
        """See Transport."""
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try:
            sock.bind((socket.VMADDR_CID_ANY, port))
            sock.listen(128)
        except BaseException:
            sock.close()
            raise
        return sock

    def is_guest(self, address: tuple[int, int]) -> bool:
        """Whether an accepted connection's address, (context id, port), is this guest's."""
        return address[0] == self.cid


class Choice(NamedTuple):
    """A transport ("vhost-user" or "kernel"), and why it is that one."""

    transport: str
    reason: str


def choose(transport: str, *, obstacle: str | None) -> Choice:
    """Decide how to reach a guest. `obstacle` is what keeps us from the kernel's way, None if nothing does.

    ValueError for an unknown name; OSError if "kernel" is demanded and there is an obstacle.
    """
    if transport not in TRANSPORTS:
        raise ValueError(f"transport {transport!r}: one of {', '.join(TRANSPORTS)} is needed")
    if transport == "vhost-user":
        return Choice("vhost-user", "as asked for")
    if transport == "kernel":
        if obstacle:
            raise OSError(f"transport 'kernel' cannot be had: {obstacle}; 'vhost-user' needs neither")
        return Choice("kernel", "as asked for")
    if obstacle:
        return Choice("vhost-user", obstacle)
    return Choice("kernel", f"{VHOST_VSOCK} opens")


def kernel_obstacle(path: str = VHOST_VSOCK) -> str | None:
    """What keeps this process from the kernel's vsock; None if nothing does."""
    try:
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {path} (modprobe vhost_vsock makes it)"
    except PermissionError:
        return f"{path} may not be opened by this user (its group is usually kvm)"
    except OSError as error:
        return f"the kernel's vsock does not work here: {error}"
    return None


def reserve_cid(path: str = VHOST_VSOCK) -> tuple[int, int]:
    """Claim a context id no other guest of this host has: (file descriptor, cid).

    The descriptor goes to QEMU (`vhost-vsock-pci,vhostfd=…,guest-cid=…`); the claim lasts as long as it is open.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            cid = _FIRST_CID + secrets.randbelow(_LAST_CID - _FIRST_CID)
            try:
                fcntl.ioctl(fd, _SET_GUEST_CID, struct.pack("=Q", cid))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return fd, cid
    except BaseException:
        os.close(fd)
        raise
