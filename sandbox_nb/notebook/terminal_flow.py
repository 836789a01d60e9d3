"""What is sent to which view of a terminal, and when. Decisions only: bytes and the time come in as arguments.

A terminal has one stream of output and any number of views: cells of one page, pages of several browsers. What
the kernel sends reaches all of them, since a comm is a broadcast. So the bytes are numbered (terminal_ring),
and the flow keeps one position, ``sent``; to replay for one view is to move it back for all, and the others
drop what they know.

Three rules keep memory bounded everywhere:

- No more than ``WINDOW`` bytes are under way to the view that is furthest on. Nothing is sent to nobody: the
  Jupyter server keeps what no page has fetched, without bound.
- Output is not read while a view that is alive owes an acknowledgement for ``WINDOW`` bytes; the pty then
  stops the program.
- A view that owes one and has not been heard of for ``LEASE`` seconds holds nobody up. It is not forgotten at
  once: a page whose kernel is busy goes on from where it was. When more is outstanding than it could ever owe,
  nothing more is sent for its sake (``is_left_behind``); it asks for the rest. Pages go without a word, so who is
  silent for long is forgotten, and asked who it is when it speaks again.

What a view types is numbered too: it may come twice, by the comm and by a wire, or not at all on a connection that
is lost, and then the view sends it again.

The view used last (opened, focused or typed in) is the leader: its size is the terminal's, and it alone answers
what programs ask a terminal, lest they get two answers.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from sandbox_nb.notebook.terminal_ring import Ring

KEEP = 2 * 1024 * 1024
"""Bytes of output kept for replay: some ten thousand lines."""

WINDOW = 1536 * 1024
"""Bytes a view may have outstanding. With a third less a fast program's view would at times have none to draw."""

CHUNK = 256 * 1024
"""Bytes in a message at most. A browser spends about as long on a small message as on this one."""

BUSY = 192 * 1024
"""With this much outstanding a view has work; only a whole CHUNK is worth a further message."""

TICK = 0.016
"""Seconds between messages while output keeps coming: one a frame, far below the limit of 1000 a second."""

PATIENCE = 0.064
"""Seconds for which a busy view's next message may grow to a whole CHUNK."""

PING = 1.0
"""Seconds after which a view that owes an acknowledgement is asked for the first time if it missed something."""

LEASE = 3.0
"""Seconds after which a view that owes an acknowledgement is no longer waited for; one that has lost its wire, and
does not go on by the comm, is forgotten then."""

FORGET = 600.0
"""Seconds after which a view is forgotten that owes an acknowledgement and was asked for it in vain."""

VIEWS = 32
"""Views that are remembered at a time."""

GONE = 64
"""Views of those that are gone, of which is remembered how far they were."""


@dataclass
class View:
    """One place where the terminal is seen."""

    rows: int
    cols: int
    used: int
    """Rises with every use; the highest is the leader."""

    acked: int
    """Everything below this number is drawn."""

    heard: float
    """When it last said something, or began to owe."""

    asked: float
    """When it was last asked whether it missed something."""

    turn: int = 0
    """The number of its last hello."""

    typed: int = 0
    """Everything it typed below this number was taken."""

    lost: float | None = None
    """When its wire was lost, if it has not been heard of since."""

    wants: int = -1
    wanted: float = float("-inf")
    """What its last hello asked for, and when: a hello is repeated until it is answered."""

    @property
    def forget_at(self) -> float:
        """When to forget it, if it owes or has lost its wire."""
        return self.heard + FORGET if self.lost is None else self.lost + LEASE

    @property
    def ask_at(self) -> float:
        """When to ask it next, as long as it owes."""
        return self.heard + max(PING, 2 * (self.asked - self.heard))


class Flow:
    """Output in by ``output``, out by ``due`` and ``take``; views come and go in between.

    Times are seconds on any clock that does not go back.
    """

    def __init__(self) -> None:
        self.ring = Ring(KEEP)
        self.sent = 0
        self.answered = 0
        """Questions below this number have been answered by some view, and are not to be again."""
        self._views: dict[str, View] = {}
        self._gone: dict[str, View] = {}
        self._told: dict[str, int] = {}
        """What views were last told to have typed."""
        self._uses = 0
        self._last = float("-inf")
        self.urgent = False
        """Whether a key was typed since something was sent."""

    # What happens

    def output(self, data: bytes) -> None:
        """The program wrote ``data``."""
        self.ring.append(data)

    def is_stale(self, name: str, turn: int) -> bool:
        """Whether a view has said a later hello, or good-bye, since it said what belongs to this one."""
        if view := self._views.get(name):
            return turn < view.turn
        gone = self._gone.get(name)
        return gone is not None and turn <= gone.turn

    def hello(self, name: str, rows: int, cols: int, at: int, now: float, *, turn: int = 0, typed: int = 0) -> int:
        """A view asks for everything from ``at`` on. Returns the number its stream goes on with.

        ``typed`` is the number of what it would type next, if nobody knows better.
        """
        begin = self.ring.resume(at)
        view = self._views.get(name)
        if view is None:
            if gone := self._gone.pop(name, None):
                typed = gone.typed
            view = self._views[name] = View(rows, cols, self._use(), begin, now, now, typed=typed)
            if len(self._views) > VIEWS:
                self.bye(min(self._views, key=lambda name: self._views[name].used))
        view.rows, view.cols, view.heard, view.lost, view.turn = rows, cols, now, None, turn
        # A busy kernel may find several copies of one hello; one replay answers them all.
        if at != view.wants or now - view.wanted >= PING:
            view.wants, view.wanted = at, now
            view.acked = begin
            self.sent = min(self.sent, begin)
        return begin

    def acknowledge(self, name: str, at: int, now: float) -> None:
        """A view has drawn everything below ``at``."""
        if view := self._views.get(name):
            view.acked = max(view.acked, min(at, self.ring.end))
            view.heard, view.lost = now, None
            self.answered = max(self.answered, view.acked)

    def resize(self, name: str, rows: int, cols: int) -> None:
        """A view has changed its size."""
        if view := self._views.get(name):
            view.rows, view.cols = rows, cols

    def use(self, name: str) -> None:
        """A view was focused or typed in."""
        if (view := self._views.get(name)) and self.leader != name:
            view.used = self._use()

    def type(self, name: str, at: int, size: int) -> int | None:
        """A view typed so many bytes, from number ``at`` on. Returns how many of them are known already.

        None: bytes before them are missing, or nobody knows the view; it is to say hello, and to send them again.
        """
        view = self._views.get(name)
        if view is None or at > view.typed:
            return None
        known = min(view.typed - at, size)
        view.typed += size - known
        return known

    def typed(self, name: str) -> int:
        """The number of what a view types next."""
        return self._views[name].typed

    def news_of_typed(self) -> dict[str, int]:
        """The same of all views that have typed since they were told last, by name."""
        news = {name: view.typed for name, view in self._views.items() if view.typed != self._told.get(name, 0)}
        self._told |= news
        return news

    def lose(self, name: str, now: float) -> None:
        """A view's wire is lost; it may be gone."""
        if view := self._views.get(name):
            view.lost = now

    def key(self) -> None:
        """Something was typed: what comes next may be its echo and is not held back."""
        self.urgent = True

    def bye(self, name: str) -> None:
        """A view is gone, at least for now."""
        if view := self._views.pop(name, None):
            self._told.pop(name, None)
            self._gone[name] = view
            if len(self._gone) > GONE:
                del self._gone[next(iter(self._gone))]

    # What follows from it

    def is_left_behind(self, name: str) -> bool:
        """Whether so much is outstanding that this view is not waited for, and is to ask for the rest itself."""
        view = self._views.get(name)
        return view is not None and self.sent - view.acked > WINDOW + CHUNK

    @property
    def views(self) -> Set[str]:
        """The names of those that have said hello, and are remembered."""
        return self._views.keys()

    @property
    def owes(self) -> bool:
        """Whether a view has not drawn everything."""
        return any(view.acked < self.ring.end for view in self._views.values())

    @property
    def leader(self) -> str | None:
        """The view used last."""
        return max(self._views, key=lambda name: self._views[name].used, default=None)

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns of the leader."""
        leader = self.leader
        return None if leader is None else (self._views[leader].rows, self._views[leader].cols)

    def blocked(self, now: float) -> float:
        """Seconds for which nothing may be read from the program unless a view acknowledges; 0 means read on."""
        waits = [
            view.heard + LEASE - now
            for view in self._views.values()
            if self.ring.end - view.acked >= WINDOW and now - view.heard < LEASE
        ]
        return max(waits, default=0.0)

    def due(self, now: float) -> float | None:
        """Seconds until ``take`` has something; None when that needs an event first."""
        size = self._sendable()
        if size == 0:
            return None
        if self.urgent:
            return 0.0
        if size < CHUNK and self._outstanding() >= BUSY:
            return max(0.0, self._last + PATIENCE - now)
        return max(0.0, self._last + TICK - now)

    def take(self, now: float) -> tuple[int, bytes]:
        """The number of the first byte to send now, and the bytes."""
        self.sent = self.ring.resume(self.sent)
        data = self.ring.read(self.sent, min(self._sendable(), CHUNK))
        for view in self._views.values():
            if view.acked >= self.sent:
                view.heard = view.asked = now
        begin, self.sent = self.sent, self.sent + len(data)
        self._last, self.urgent = now, False
        return begin, data

    def silent(self, now: float) -> tuple[bool, float | None]:
        """Whether a view should be asked now if it missed something, and in how many seconds to look again.

        A view that goes on saying nothing is asked after twice the time, and forgotten in the end.
        """
        doubtful = {
            name: view for name, view in self._views.items() if view.acked < self.sent or view.lost is not None
        }
        if gone := [name for name, view in doubtful.items() if view.forget_at <= now]:
            for name in gone:
                self.bye(name)
            return False, 0.0
        late = [view for view in doubtful.values() if view.ask_at <= now]
        for view in late:
            view.asked = now
        waits = [min(view.ask_at, view.forget_at) - now for view in doubtful.values()]
        return bool(late), min(waits, default=None)

    def _use(self) -> int:
        self._uses += 1
        return self._uses

    def _outstanding(self) -> int:
        """Bytes under way to the view that is furthest on."""
        return self.sent - max(view.acked for view in self._views.values())

    def _sendable(self) -> int:
        if not self._views:
            return 0
        return max(0, min(self.ring.end - self.sent, WINDOW - self._outstanding()))
