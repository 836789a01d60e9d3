"""The server extension, in a real Jupyter server: is what a page is sent held back?"""

from __future__ import annotations

import base64
import ctypes
import os
import socket
from urllib.parse import urlsplit

import pytest
from lab import skipping

from sandbox_nb.bench.terminal_page import Server

OFF = "--ServerApp.jpserver_extensions=sandbox_nb.notebook.server=False"
PIDFD_GETFD = 438
"""The system call's number, on all architectures."""

libc = ctypes.CDLL(None, use_errno=True)


def websocket(server):
    """A websocket to a new kernel of the server, of which nothing but the opening is spoken."""
    address = urlsplit(server.address)
    kernel = server.api("kernels", "POST")["id"]
    sock = socket.create_connection((address.hostname, address.port), timeout=30)
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET /api/kernels/{kernel}/channels?token={server.token} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
    sock.recv(1)  # the kernel's first word: its server is done with connecting
    return sock


def other_end(sock, pid):
    """The socket that a process has at the other end of ours."""
    pidfd = os.pidfd_open(pid)
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                continue
            if (got := libc.syscall(PIDFD_GETFD, pidfd, int(number), 0)) < 0:
                pytest.skip(f"this host lets nobody look at another's sockets: {os.strerror(ctypes.get_errno())}")
            theirs = socket.socket(fileno=got)
            if theirs.family == sock.family and theirs.type == sock.type and peer(theirs) == sock.getsockname():
                return theirs
            theirs.close()
    finally:
        os.close(pidfd)
    raise AssertionError("the server has no such socket")


def peer(sock):
    try:
        return sock.getpeername()
    except OSError:  # it listens
        return None


@pytest.mark.parametrize(("options", "nodelay"), [([], True), ([OFF], False)], ids=["as installed", "off"])
def test_what_a_kernel_says_is_sent_at_once_where_the_extension_is_on(options, nodelay):
    with (
        skipping(),
        Server(options=options) as server,
        websocket(server) as ours,
        other_end(ours, server.pid) as theirs,
    ):
        assert bool(theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is nodelay
