"""What a terminal shows: a byte stream both ways and a size. Two kinds: a socket, a program on this machine."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

READ = 64 * 1024
"""Bytes asked for at a time."""

ENDING = 2.0
"""Seconds a program is given to end once its terminal is closed."""


class TerminalSource(Protocol):
    """The far end of a terminal.

    Every method may block: none is called on an event loop. ``read`` is called from one thread; ``open``,
    ``write`` and ``resize`` from another, in order, ``open`` before anything else; ``close`` from any. What they
    raise ends the terminal, which shows the message.
    """

    def open(self, rows: int, cols: int) -> None:
        """Begin. The first view is there and has this size, so a program started now sees it from the start."""

    def read(self) -> bytes:
        """Wait for output and return it; ``b""`` when there will be no more, or once ``close`` was called."""

    def write(self, data: bytes) -> None:
        """Hand over all of ``data``, what the user typed."""

    def resize(self, rows: int, cols: int) -> None:
        """Tell the program that the terminal has another size."""

    def close(self) -> None:
        """End it, from any thread and any number of times; a ``read`` or ``write`` that waits returns."""

    def ending(self) -> str:
        """Say in a few words how it ended, once ``read`` has returned ``b""``."""


class SocketSource:
    """A pty somewhere else, reached by a connected stream socket.

    ``connect(rows, cols)`` starts the program with that size and returns the blocking socket; ``resize(rows,
    cols)`` changes it; ``ending()`` says how it ended.
    """

    def __init__(
        self,
        connect: Callable[[int, int], socket.socket],
        resize: Callable[[int, int], None],
        ending: Callable[[], str] = lambda: "closed by the other side",
    ) -> None:
        self._connect = connect
        self._resize = resize
        self._ending = ending
        self._socket: socket.socket | None = None
        self._closed = False

    def open(self, rows: int, cols: int) -> None:
        self._socket = self._connect(rows, cols)
        if self._closed:
            self.close()

    def read(self) -> bytes:
        assert self._socket is not None
        # Whoever is reset has something left to send, and a machine that was killed resets: that is an end too.
        with contextlib.suppress(ConnectionError):
            if data := self._socket.recv(READ):
                return data
        self.close()
        self._socket.close()
        return b""

    def write(self, data: bytes) -> None:
        assert self._socket is not None
        # Where nobody takes it any more, the reader finds the end and how it came.
        with contextlib.suppress(OSError):
            self._socket.sendall(data)

    def resize(self, rows: int, cols: int) -> None:
        self._resize(rows, cols)

    def close(self) -> None:
        self._closed = True
        if self._socket is not None:
            # Not close(): a thread that waits in recv would go on waiting, on a number that may be reused.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def ending(self) -> str:
        return self._ending()


class LocalPty:
    """A program on this machine, with the rights of the kernel.

    ``env`` is added to the environment; LINES and COLUMNS are taken out of it, since they outlive a resize.
    """

    def __init__(
        self,
        argv: Sequence[str] = ("/bin/sh", "-i"),
        *,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._argv = list(argv)
        kept = {name: value for name, value in os.environ.items() if name not in {"LINES", "COLUMNS"}}
        self._env = kept | {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | dict(env or {})
        self._pid: int | None = None
        self._status: int | None = None
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False
        self._descriptors: tuple[int, int] | None = None
        """The terminal's and an eventfd's, which wakes those who wait for it; None before open and when let go."""

    def open(self, rows: int, cols: int) -> None:
        with self._lock:
            if self._closed:
                return
            master, slave = pty.openpty()
            self._descriptors = master, os.eventfd(0)
        try:
            os.set_blocking(master, False)
            self.resize(rows, cols)
            # A session's leader gets the first terminal it opens as its controlling one (tty_ioctl(4)). A kernel
            # that is idle ignores SIGINT, and what is ignored stays so in a child: Ctrl-C would do nothing.
            self._pid = os.posix_spawnp(
                self._argv[0],
                self._argv,
                self._env,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.ttyname(slave), os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, 0, 1),
                    (os.POSIX_SPAWN_DUP2, 0, 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE],
            )
        finally:
            # Ours would keep the terminal open after its last program.
            os.close(slave)

    def read(self) -> bytes:
        with self._terminal() as (master, wake):
            while _ready(master, select.POLLIN, wake):
                try:
                    return os.read(master, READ)
                except BlockingIOError:
                    continue
                except OSError as error:
                    # The kernel's word for a terminal that no program has open any more.
                    if error.errno != errno.EIO:
                        raise
                    break
        return b""

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        with self._terminal() as (master, wake):
            # Once no program has the terminal open it takes some more, and then nothing ever again.
            while view and _ready(master, select.POLLOUT, wake) & select.POLLOUT:
                with contextlib.suppress(BlockingIOError):
                    view = view[os.write(master, view) :]

    def resize(self, rows: int, cols: int) -> None:
        with self._terminal() as (master, _):
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._descriptors is not None:
                os.eventfd_write(self._descriptors[1], 1)
            self._let_go()
            # Once it has been waited for, its number may be somebody else's.
            if self._pid is not None and self._status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._pid, signal.SIGHUP)

    def ending(self) -> str:
        deadline = time.monotonic() + ENDING
        while (status := self._poll()) is None:
            if self._pid is None or time.monotonic() > deadline:
                self._give_up()
                return "closed"
            time.sleep(0.01)
        return how_it_ended(status)

    def _poll(self) -> int | None:
        """The exit status, negative for a signal's number; None while it runs, or when it never did."""
        with self._lock:
            if self._status is None and self._pid is not None:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
                self._status = os.waitstatus_to_exitcode(status) if pid else None
            return self._status

    def _give_up(self) -> None:
        """Leave a program that ignores the hang-up alone. Whenever it ends, somebody has to wait for it."""
        with self._lock:
            pid, self._pid = self._pid, None
        if pid is not None:
            threading.Thread(target=os.waitpid, args=(pid, 0), name="terminal-reaper", daemon=True).start()

    @contextlib.contextmanager
    def _terminal(self) -> Iterator[tuple[int, int]]:
        """The descriptors, which stay ours until the last user is done: their numbers may be reused after that."""
        with self._lock:
            descriptors = self._descriptors or (-1, -1)
            self._users += 1
        try:
            yield descriptors
        finally:
            with self._lock:
                self._users -= 1
                self._let_go()

    def _let_go(self) -> None:
        if self._closed and self._users == 0 and self._descriptors is not None:
            for descriptor in self._descriptors:
                os.close(descriptor)
            self._descriptors = None


def how_it_ended(status: int) -> str:
    """In words, the exit status of a program; a negative one is the number of a signal."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:  # most real-time signals have no name
        return f"ended by signal {-status}"


def _ready(descriptor: int, event: int, wake: int) -> int:
    """Wait for ``event`` or a hang-up, and return which; 0 for no descriptor, or once ``wake`` is readable."""
    if descriptor < 0:
        return 0
    poll = select.poll()
    poll.register(descriptor, event)
    poll.register(wake, select.POLLIN)
    found = dict(poll.poll())
    return 0 if wake in found else found[descriptor]
