"""A source, the flow of its output to the views, and the threads between. Knows nothing of Jupyter.

Messages are small dicts with a ``kind``. Those of a view also say which ``view`` it is, and that it has ``drawn``
everything below this byte; those of the kernel reach all views. They go over the comm of the terminal's widget, or
over a wire to one page (terminal_wire): what a view is told goes the way its last hello came. Those of a view have
the number of that hello, ``turn``: what comes late, by the way the view has left, changes nothing. Only what was
typed counts all the same, and that is numbered, so that it comes once and in order whichever ways it went.

====== ================================================ ======================================================
from   kind and fields                                  meaning
====== ================================================ ======================================================
view   ``hello`` rows, cols, at, typed                  send everything from byte ``at`` on; repeated till answered
view   ``ack``                                          no more than what every message says
view   ``size`` rows, cols                              the view has this size now
view   ``focus``                                        the view was focused
view   ``input`` at, and a buffer                       the user typed or pasted, from byte ``at`` of the view on
view   ``bye``                                          the view is gone
kernel ``welcome`` view, turn, at, typed, answered,     the answer to hello: bytes go on with ``at``, and those
       ``size``'s                                       typed from ``typed`` on are to be sent again
kernel ``who`` view                                      say hello
kernel ``output`` at, typed, and a buffer               bytes from ``at`` on; ``typed`` of views, by name
kernel ``size`` rows, cols, leader                      the terminal's size and the view that sets it
kernel ``sync`` at                                      all below ``at`` was sent: ack, or hello if it was lost
kernel ``end`` at, ending                               there is nothing from ``at`` on, and why
====== ================================================ ======================================================
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from sandbox_nb.notebook.terminal_cast import Cast
from sandbox_nb.notebook.terminal_flow import Flow
from sandbox_nb.notebook.terminal_source import TerminalSource

log = logging.getLogger("sandbox_nb.terminal")

Message = dict[str, Any]

Send = Callable[[Message, bytes | None], None]
"""Takes a message and the buffer that goes with it: by the comm, for all views, or by the wire of one."""

INPUT_LIMIT = 16 * 1024 * 1024
"""Bytes of input that may wait for a program that does not read."""

KEYS = 64
"""Bytes of input that are keys, not a paste."""

ECHO = 0.02
"""Seconds the message that brought a key is kept open, for its echo to come. Jupyter says "idle" when it is
done with a message, and that frame would be in the echo's way: see frontend/src/link.ts on Nagle's algorithm."""

LARGEST = 1000
"""Rows or columns. Views are never so large, but messages may say anything."""


class Session:
    """Runs one terminal, from its first view to its end.

    Of its three threads one waits for output, one hands input and sizes to the source, one sends what could not
    be sent at once. ``ended`` is called once, in one of them.
    """

    def __init__(self, source: TerminalSource, send: Send, ended: Callable[[], None]) -> None:
        self.ending: str | None = None
        """In a few words how it ended; None until then."""
        self._source = source
        self._send = send
        self._on_end = ended
        self._wires: dict[str, Send] = {}
        """What sends to the views that do not use the comm."""
        self._flow = Flow()
        self._changed = threading.Condition()
        self._sender_wakes = float("-inf")
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._input_waiting = 0
        self._size: tuple[int, int] | None = None
        self._leader: str | None = None
        self._cast: Cast | None = None
        self._closed = False
        self._sending = False

    # From views

    def receive(self, message: Message, data: bytes, *, readonly: bool = False, wire: Send | None = None) -> None:
        """Act on a view's message, come over ``wire`` or the comm. One that makes no sense changes nothing."""
        try:
            kind, view = str(message["kind"]), str(message["view"])
            rows, cols = (max(1, min(int(message.get(key, 1)), LARGEST)) for key in ("rows", "cols"))
            at, typed, drawn, turn = (max(0, int(message.get(key, 0))) for key in ("at", "typed", "drawn", "turn"))
        except (KeyError, TypeError, ValueError, OverflowError):
            return
        now = time.monotonic()
        with self._changed:
            self._flow.acknowledge(view, drawn, now)
            late, known = self._flow.is_stale(view, turn), view in self._flow.views
            match kind:
                case "hello" if not late:
                    self._route(view, wire)
                    begin = self._flow.hello(view, rows, cols, at, now, turn=turn, typed=typed)
                    self._welcome(view, begin, turn)
                    known = True
                case "size" if not late:
                    self._flow.resize(view, rows, cols)
                case "focus" if not late:
                    self._flow.use(view)
                case "input":
                    known = self._input(view, at, data, readonly)
                case "bye" if not late:
                    self._flow.bye(view)
                    self._route(view, None)
            if not known and kind not in ("hello", "bye"):
                (wire or self._send)({"kind": "who", "view": view}, None)
            self._settle()
            self._changed.notify_all()
            if kind == "input" and view not in self._wires and len(data) <= KEYS:
                self._changed.wait_for(lambda: not self._flow.urgent, ECHO)

    def lose(self, wire: Send) -> None:
        """A wire has come to its end. Its view goes on by the comm, unless it was the page that went."""
        now = time.monotonic()
        with self._changed:
            for view in [view for view, used in self._wires.items() if used is wire]:
                self._route(view, None)
                self._flow.lose(view, now)
            self._changed.notify_all()

    # From the program's side

    def open(self, rows: int, cols: int) -> None:
        """Begin with this size, whether or not a view is there. Does nothing when it has begun."""
        with self._changed:
            if self._size is None:
                self._resize(rows, cols)

    def write(self, data: bytes) -> None:
        """Type ``data``, as a view would."""
        with self._changed:
            self._type(data)

    def record(self, path: str | os.PathLike[str], rows: int, cols: int) -> None:
        """Record what is kept and all that comes; ``rows`` and ``cols`` count until there is a size."""
        with self._changed:
            if self._cast is not None:
                self._cast.close()
            self._cast = Cast(path, *(self._size or (rows, cols)))
            self._cast.output(self.tail()[0])
            if self.ending is not None:
                self._cast.close()

    def tail(self) -> tuple[bytes, tuple[int, int]]:
        """The output that is kept, and the size of the terminal."""
        with self._changed:
            ring = self._flow.ring
            begin = ring.resume(0)
            return ring.read(begin, ring.limit), self._size or (24, 80)

    def close(self) -> None:
        """End the source and the threads. Idempotent."""
        with self._changed:
            self._closed = True
            begun = self._size is not None
            self._changed.notify_all()
        self._source.close()
        if not begun:
            self._end("closed")

    # With the lock held

    def _route(self, view: str, wire: Send | None) -> None:
        if wire is None:
            self._wires.pop(view, None)
        else:
            self._wires[view] = wire

    def _tell(self, view: str, message: Message) -> None:
        """Send to one view. On the comm the others hear it too, and know by its field ``view`` whom it is for."""
        self._wires.get(view, self._send)(message, None)

    def _tell_all(self, message: Message, data: bytes | None = None) -> None:
        """Send to all views, but bytes to none that takes nothing: the server would keep them, without bound."""
        views = [view for view in self._flow.views if not data or not self._flow.is_left_behind(view)]
        for view, wire in self._wires.items():
            if view in views:
                wire(message, data)
        if not self._wires or any(view not in self._wires for view in views):
            self._send(message, data)

    def _input(self, view: str, at: int, data: bytes, readonly: bool) -> bool:
        """Take what a view typed, as far as it is new; whether it follows on what was taken."""
        known = self._flow.type(view, at, len(data))
        if known is not None and known < len(data):
            self._flow.use(view)
            if not readonly:
                self._type(data[known:])
        return known is not None

    def _welcome(self, view: str, begin: int, turn: int) -> None:
        """Answer a view's hello."""
        self._settle()
        self._tell(
            view,
            {
                "kind": "welcome",
                "view": view,
                "turn": turn,
                "at": begin,
                "typed": self._flow.typed(view),
                "answered": self._flow.answered,
                **self._shape(),
            },
        )
        if self.ending is not None:
            self._start_sending()
            self._tell_end()

    def _shape(self) -> Message:
        rows, cols = self._size or (0, 0)
        return {"rows": rows, "cols": cols, "leader": self._leader}

    def _settle(self) -> None:
        """Follow the leader, and say so when that changes anything."""
        size, leader = self._flow.size, self._flow.leader
        if size is None or (size, leader) == (self._size, self._leader):
            return
        self._leader = leader
        if size != self._size:
            self._resize(*size)
        self._tell_all({"kind": "size", **self._shape()})

    def _resize(self, rows: int, cols: int) -> None:
        first, self._size = self._size is None, (rows, cols)
        if self._closed:
            return
        if first:
            start_thread(lambda: self._work(rows, cols), "terminal-input")
            self._start_sending()
        else:
            self._tasks.put(lambda: self._source.resize(rows, cols))
        self._record(lambda cast: cast.resize(rows, cols))

    def _type(self, data: bytes) -> None:
        if not data or self.ending is not None:
            return
        if self._input_waiting + len(data) > INPUT_LIMIT:
            log.warning("terminal: %d bytes of input dropped, the program does not read", len(data))
            return
        self._input_waiting += len(data)
        self._flow.key()
        self._tasks.put(lambda: self._hand_over(data))

    def _take(self, data: bytes) -> None:
        self._flow.output(data)
        self._record(lambda cast: cast.output(data))

    def _record(self, write: Callable[[Cast], None]) -> None:
        """Write to the recording, if there is one. When it cannot go on, say on a full disk, the terminal does."""
        if self._cast is None:
            return
        try:
            write(self._cast)
        except OSError as error:
            log.warning("terminal: the recording ends here: %s", error)
            self._cast = None

    def _start_sending(self) -> None:
        if not self._sending:
            self._sending = True
            start_thread(self._send_rest, "terminal-send")

    def _flush(self, now: float) -> None:
        """Send what is due."""
        while self._flow.due(now) == 0:
            at, data = self._flow.take(now)
            self._tell_all({"kind": "output", "at": at, "typed": self._flow.news_of_typed()}, data)
            self._changed.notify_all()

    def _tell_end(self) -> None:
        self._tell_all({"kind": "end", "at": self._flow.ring.end, "ending": self.ending})

    # Threads

    def _work(self, rows: int, cols: int) -> None:
        """Begin with this size, then call the source, one task after the other."""
        try:
            self._source.open(rows, cols)
            start_thread(self._read, "terminal-output")
            while self.ending is None:
                self._tasks.get()()
        except Exception as error:
            self._fail(error)

    def _hand_over(self, data: bytes) -> None:
        self._source.write(data)
        with self._changed:
            self._input_waiting -= len(data)

    def _read(self) -> None:
        """Take output as long as the views keep up."""
        try:
            while data := self._source.read():
                with self._changed:
                    self._take(data)
                    self._pass_on(time.monotonic())
                    while not self._closed and (wait := self._flow.blocked(time.monotonic())) > 0:
                        self._changed.wait(wait)
            self._end(self._source.ending())
        except Exception as error:
            self._fail(error)

    def _pass_on(self, now: float) -> None:
        """Send new output from here when it is due: another thread's turn may be 5 ms away (the GIL)."""
        due = self._flow.due(now)
        if due == 0:
            self._flush(now)
        elif due is not None and now + due < self._sender_wakes:
            self._changed.notify_all()

    def _send_rest(self) -> None:
        """Send what was not due when it came, and ask views that are silent, until all have all there will be."""
        with self._changed:
            while self.ending is None or (self._flow.owes and not self._closed):
                now = time.monotonic()
                self._flush(now)
                late, again = self._flow.silent(now)
                self._settle()
                if late:
                    self._tell_all({"kind": "sync", "at": self._flow.sent})
                waits = [wait for wait in (self._flow.due(now), again) if wait is not None]
                self._sender_wakes = now + min(waits) if waits else float("inf")
                self._changed.wait(min(waits, default=None))
            self._sending = False

    def _fail(self, error: Exception) -> None:
        kind, text = type(error).__name__, str(error).partition("\n")[0]
        self._end(text or kind, complaint=f"{kind}: {text}")

    def _end(self, ending: str, *, complaint: str = "") -> None:
        """End everything. The log gets the ``complaint``, unless it was we who cut the source off."""
        with self._changed:
            if self.ending is not None:
                return
            self.ending = ending
            if complaint and not self._closed:
                log.warning("terminal: %s", complaint)
            if self._cast is not None:
                self._cast.close()
            self._tell_end()
            self._changed.notify_all()
        self._tasks.put(lambda: None)
        self._source.close()
        self._on_end()


def start_thread(work: Callable[[], None], name: str) -> None:
    """Start a thread in a copy of our context: ipykernel 7.0 finds in it what it needs to send a message."""
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name=name, daemon=True).start()
