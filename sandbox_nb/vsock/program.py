"""The device process: arguments, sockets, signals."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from .device import Device, log

MAX_PATH = 107
"""Bytes in the path of a UNIX socket (sun_path, less the closing NUL)."""
LONGEST_SUFFIX = len("_4294967295")

DEFAULT_LIMIT = 1024
OTHER_FILES = 64
"""File descriptors kept for other things than connections."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox_nb.vsock",
        description="A vhost-user-vsock device: a guest's vsock ports as UNIX sockets, in Firecracker's manner.",
    )
    parser.add_argument("--socket", metavar="PATH", help="listen here for QEMU (-chardev socket,path=PATH)")
    parser.add_argument("--socket-fd", type=int, metavar="N", help="or on this inherited, listening socket")
    parser.add_argument(
        "--uds",
        metavar="PATH",
        required=True,
        help="listen here for connections to the guest; connections of the guest to a port go to PATH_<port>",
    )
    parser.add_argument("--uds-fd", type=int, metavar="N", help="listen on this inherited socket, bound to --uds")
    parser.add_argument("--cid", type=int, default=3, metavar="N", help="the guest's context id (3)")
    parser.add_argument(
        "--connections", type=int, default=DEFAULT_LIMIT, metavar="N",
        help=f"most connections at once ({DEFAULT_LIMIT}); more are refused",
    )  # fmt: skip
    parser.add_argument("--trace", metavar="FILE", help="write every packet to FILE, for Wireshark")
    parser.add_argument("--control-fd", type=int, metavar="N", help="inherited socket for control, see control.py")
    parsed = parser.parse_args(arguments)
    if (parsed.socket is None) == (parsed.socket_fd is None):
        parser.error("one of --socket and --socket-fd is needed")
    if not 3 <= parsed.cid <= 0xFFFF_FFFE:
        parser.error(f"--cid {parsed.cid}: a guest's context id is 3 to 4294967294")
    if parsed.connections < 1:
        parser.error(f"--connections {parsed.connections}: at least 1 is needed")
    if len(os.fsencode(parsed.uds)) + LONGEST_SUFFIX > MAX_PATH:
        parser.error(f"--uds {parsed.uds}: with _<port> behind it a socket's path must fit into {MAX_PATH} bytes")
    return parsed


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or the end of the control connection."""
    parsed = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    made: list[str] = []
    try:
        vhost = _listener(parsed.socket, parsed.socket_fd, made)
        hybrid = _listener(parsed.uds, parsed.uds_fd, made)
        limit = min(parsed.connections, _most_files() - OTHER_FILES)
        device = Device(vhost, hybrid, uds=parsed.uds, cid=parsed.cid, limit=limit)
        if parsed.control_fd is not None:
            device.control(socket.socket(fileno=parsed.control_fd))
        if parsed.trace:
            device.trace(parsed.trace)
        device.run()
    except OSError as error:
        log(str(error))
        return 1
    finally:
        for path in made:
            Path(path).unlink(missing_ok=True)
    return 0


def _listener(path: str | None, fd: int | None, made: list[str]) -> socket.socket:
    if fd is not None:
        return socket.socket(fileno=fd)
    assert path is not None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    made.append(path)
    sock.listen(128)
    return sock


def _most_files() -> int:
    """Raise the limit on open files as far as the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
