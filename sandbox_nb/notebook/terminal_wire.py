"""The short way between a terminal and its pages: a Unix socket to the Jupyter server, and a websocket from there.

A comm carries the same messages in every Jupyter there is, and begins every terminal. But a key that goes over it
is announced to all of the page ("busy", "idle"), is signed, parsed and queued a dozen times on its way, and its
echo waits until the page has drawn its status bar: four times as long, in all, as in JupyterLab's own terminal,
which has a websocket for itself. So has ours where the server has our extension (server.py) and runs beside the
kernel; a cell that runs does not hold it up there, whatever the kernel.

A frame is a message as JSON, a line feed, and the message's buffer, if it has one. It is a websocket message on
one side of the server; on the other its length goes before it, in four bytes.

The socket's name is in Linux's abstract space: no file can be left behind, and no path is too long. Whoever is at
the other end must be the same user, which both ends see to.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from sandbox_nb.notebook.terminal_session import Message, Send, start_thread

LENGTH = struct.Struct(">I")
"""What goes before a frame on the Unix socket."""

PATIENCE = 2
"""Seconds after which a server that takes nothing is given up."""

PAUSE = 1.0
"""Seconds until a page is taken again when there was no descriptor for it."""

Receive = Callable[[Message, bytes, Send], None]
"""Takes a message of a page, its buffer, and what sends to the page."""


def address(name: str) -> str:
    """Where the terminal ``name`` listens: an address of the abstract space."""
    return f"\0sandbox-nb-terminal-{name}"


def is_ours(peer: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket is run by our user."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return bool(uid == os.getuid())


def pack(message: Message, data: bytes | None) -> bytes:
    """A frame."""
    return b"%b\n%b" % (json.dumps(message).encode(), data or b"")


def unpack(frame: bytes) -> tuple[Any, bytes]:
    """The message in a frame, and its buffer. Raises ValueError or RecursionError for one that is no JSON."""
    head, _, data = frame.partition(b"\n")
    return json.loads(head), data


def hang_up(sock: socket.socket) -> None:
    """End what a socket is for, at once and for all who have it, such as a process that the kernel has forked."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class Wire:
    """Listens for pages of the terminal ``name``, and hands what they say to ``receive``.

    ``lost`` is called with what sent to a page when that page, or the server, is gone.
    """

    def __init__(self, name: str, receive: Receive, lost: Callable[[Send], None]) -> None:
        self._name = name
        self._receive = receive
        self._lost = lost
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._closed = threading.Event()

    def listen(self) -> None:
        """Begin to take pages. Idempotent; does nothing after ``close``, or where there is no abstract space."""
        with self._lock:
            if self._listener is not None or self._closed.is_set():
                return
            listener = socket.socket(socket.AF_UNIX)
            try:
                listener.bind(address(self._name))
                listener.listen()
            except OSError:  # not Linux: pages do with the comm
                listener.close()
                return
            self._listener = listener
            start_thread(lambda: self._accept(listener), "terminal-wire")

    def close(self) -> None:
        """Take no more pages; those that are connected stay until they go. Idempotent."""
        with self._lock:
            self._closed.set()
            if self._listener is not None:
                hang_up(self._listener)

    # Threads

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while not self._closed.is_set():
                try:
                    peer, _ = listener.accept()
                except OSError:  # closed, or out of descriptors for now
                    self._closed.wait(PAUSE)
                    continue
                if is_ours(peer):
                    start_thread(functools.partial(self._serve, peer), "terminal-page")
                else:
                    peer.close()

    def _serve(self, peer: socket.socket) -> None:
        """Hand on what a page says until it goes, or says what is no message."""

        def send(message: Message, data: bytes | None) -> None:
            frame = pack(message, data)
            try:
                peer.sendall(LENGTH.pack(len(frame)) + frame)
            except OSError:
                hang_up(peer)  # which ends the loop below

        # A limit for sending only: a page may be silent for as long as it likes.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", PATIENCE, 0))
        with peer, peer.makefile("rb") as frames:
            try:
                while frame := _read_frame(frames):
                    self._receive(*unpack(frame), send)
            except (OSError, ValueError, RecursionError):
                pass
            finally:
                hang_up(peer)
                self._lost(send)


def _read_frame(frames: BinaryIO) -> bytes:
    """The next frame, empty at the end, be it in the middle of one."""
    length = frames.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return b""
    (size,) = LENGTH.unpack(length)
    frame = frames.read(size)
    return frame if len(frame) == size else b""
