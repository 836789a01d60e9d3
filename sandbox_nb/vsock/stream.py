"""The UNIX socket at the host's end of one connection."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from .framing import MAX_VIEWS
from .loop import EDGE, PEER_DONE, READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Connection
    from .loop import Loop

# Edge-triggered: one registration serves a connection's whole life, and a socket that cannot be read from for
# want of credit costs nothing. WRITE is left out until it is waited for, or each read by the peer would wake
# the device.
EVENTS = READ | PEER_DONE | EDGE

_TRUNCATED = int(socket.MSG_CTRUNC)  # a plain number: `&` of an IntFlag takes as long as a system call

SEND_BUFFER = 1 << 20
"""Asked of the kernel for each socket, in bytes; it gives what `net.core.wmem_max` allows."""

MIN_STRIDE = 16 * 1024
MAX_STRIDE = 256 * 1024
"""Bytes read at once: from little, which is quickly prepared for, to much, which costs few system calls."""


class Stream:
    """A socket, what could not be written to it yet (never more than the credit granted), and how it stands.

    When the guest is done with the stream, `connection` is closed; what it sent is still delivered, then the
    socket is closed too.
    """

    __slots__ = (
        "_loop", "backlog", "broken", "connection", "ending", "eof", "finished", "hung_up",
        "received", "sent", "socket", "stride",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, loop: Loop, connection: Connection) -> None:
        self.socket = sock
        self.connection = connection
        self.backlog = bytearray()
        self.ending = False
        """The peer has sent its last byte; the end may still lie behind bytes not read."""
        self.eof = False
        """The peer will send no more."""
        self.hung_up = False
        """The peer will neither send nor receive any more."""
        self.broken = False
        """Writing failed: whatever else the guest sends is dropped."""
        self.finished = False
        """The peer has been told that the guest will send no more."""
        self.stride = MIN_STRIDE
        """Bytes worth making room for before the next read: as many as the last ones suggest."""
        self.sent = 0
        """Bytes taken from the host for the guest."""
        self.received = 0
        """Bytes delivered from the guest to the host."""
        self._loop = loop
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def greet(self, line: bytes) -> None:
        """Answer the CONNECT line. Nothing was written yet, so there is room; who has left is noticed later."""
        with contextlib.suppress(OSError):
            self.socket.send(line)

    def read(self, views: list[memoryview]) -> tuple[int, bool]:
        """Read into `views`: (bytes, whether more may be waiting). At the stream's end `eof` becomes true."""
        try:
            size, _, flags, _ = self.socket.recvmsg_into(views)
        except BlockingIOError:
            return 0, False
        except OSError:  # ECONNRESET: the peer closed with bytes of ours unread
            size, flags = 0, 0
        if not size:
            self.eof = True
            return 0, False
        self.sent += size
        if size == sum(map(len, views)):
            self.stride = min(2 * self.stride, MAX_STRIDE)
            return size, True
        self.stride = MIN_STRIDE
        # A short read has emptied the socket, unless file descriptors sent along cut it short. Where the peer
        # ended with these bytes no further edge comes, so the end must be asked for.
        return size, self.ending or flags & _TRUNCATED != 0

    def write(self, views: list[memoryview]) -> int:
        """Write `views`, keeping what the socket does not take; how many bytes are done with."""
        if self.backlog:
            self._keep(views, 0)
            return 0
        done = self._send(lambda: self.socket.sendmsg(views[:MAX_VIEWS]))
        if self.broken:
            return sum(map(len, views))
        self._keep(views, done)
        if self.backlog:
            self._loop.rewatch(self.socket.fileno(), EVENTS | WRITE)
        return done

    def flush(self) -> int:
        """Write what was kept, after EPOLLOUT; how many bytes are done with."""
        done = self._send(lambda: self.socket.send(self.backlog))
        if self.broken:
            done = len(self.backlog)
        del self.backlog[:done]
        if done and not self.backlog:
            self._loop.rewatch(self.socket.fileno(), EVENTS)
        return done

    def _send(self, send: Callable[[], int]) -> int:
        if self.broken:
            return 0
        try:
            done = send()
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE, ECONNRESET: nobody is there to read it
            self.broken = True
            return 0
        self.received += done
        return done

    def _keep(self, views: list[memoryview], done: int) -> None:
        for view in views:
            if done < len(view):
                self.backlog += view[done:] if done else view
            done = max(0, done - len(view))

    def finish(self) -> None:
        """Tell the peer that the guest will send no more."""
        self.finished = True
        with contextlib.suppress(OSError):  # ENOTCONN: the peer is gone and needs no telling
            self.socket.shutdown(socket.SHUT_WR)

    def refuse_input(self) -> None:
        """Tell the peer that the guest will receive no more: its writes fail."""
        self.eof = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)

    def statistics(self) -> dict[str, Any]:
        """How the stream stands, for people."""
        own = {"bytes_to_guest": self.sent, "bytes_to_host": self.received, "backlog": len(self.backlog)}
        return own | self.connection.statistics()
