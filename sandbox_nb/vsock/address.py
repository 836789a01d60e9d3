"""Listening on a path."""

from __future__ import annotations

import errno
import os
import socket
import stat

MAX_PATH = 107
"""Bytes in the path of a UNIX socket (sun_path, less the closing NUL)."""

BACKLOG = 128


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, in place of one left by a process that has died.

    OSError if the path is in use, too long, or cannot be made.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, f"a UNIX socket's path has at most {MAX_PATH} bytes", path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(sock, path)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, path: str) -> None:
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _is_stale(path):
            raise OSError(error.errno, error.strerror, path) from None
        os.unlink(path)  # noqa: PTH108 (pathlib takes a third of the device's start)
        sock.bind(path)


def _is_stale(path: str) -> bool:
    """Whether there is a socket that nobody listens on."""
    if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
