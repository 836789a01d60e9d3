"""The host's side: dial a guest port, or listen for the guest, through the device's UNIX sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from . import address

if TYPE_CHECKING:
    from os import PathLike

SEND_BUFFER = 1 << 20
"""Asked of the kernel for a dialled socket, in bytes; it gives what `net.core.wmem_max` allows."""


async def dial(uds: str | PathLike[str], port: int, *, timeout: float | None, first: bytes = b"") -> socket.socket:
    """Connect to guest port `port` through the device's socket `uds`; return the connected, non-blocking socket.

    `first` is sent right behind the request, which saves a round trip to a guest that expects it.

    Raises ConnectionRefusedError when nothing listens there, TimeoutError after `timeout` seconds, OSError
    when the device cannot be reached.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        async with asyncio.timeout(timeout):
            await _handshake(sock, str(uds), port, first)
    except TimeoutError:
        sock.close()
        raise TimeoutError(f"guest port {port} did not answer through {uds} within {timeout:g} s") from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _handshake(sock: socket.socket, uds: str, port: int, first: bytes) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, uds)
    line = b""
    try:
        await loop.sock_sendall(sock, b"CONNECT %d\n" % port + first)
        # One byte at a time, so that nothing of what the guest says next is taken: the answer is about 14 bytes.
        while not line.endswith(b"\n") and len(line) < 32:
            byte = await loop.sock_recv(sock, 1)
            if not byte:
                break
            line += byte
    except ConnectionError:
        line = b""
    if not line.startswith(b"OK ") or not line.endswith(b"\n"):
        raise ConnectionRefusedError(
            f"guest port {port} refused through {uds}: nothing listens there, the guest is not up, "
            "or the device is at its limit of connections"
        )


def listen(uds: str | PathLike[str], port: int) -> socket.socket:
    """A listening socket for connections of the guest to host port `port`. Its file is the caller's to remove."""
    return address.listen(f"{uds}_{port}")
