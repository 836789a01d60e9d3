"""The device: one front end at a time, its two queues, and the bridge between them and the UNIX sockets."""

from __future__ import annotations

import contextlib
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from .bridge import Bridge
from .control import Control
from .framing import BATCH
from .frontend import RX, TX, FrontEnd
from .loop import READ, Loop
from .memory import MemoryFault
from .trace import Tap
from .virtqueue import QueueError
from .vring import EventFileError

if TYPE_CHECKING:
    import socket

    from .framing import Inbox
    from .virtqueue import Virtqueue

STREAMING = 32 * 1024
PATIENCE = 0.001
"""A turn in which the guest sent so many bytes is not announced at once: that only frees memory in the guest, and
more such turns are likely. It is announced with them, when an eighth of the queue waits or after so many seconds.
"""


class Device:
    """A vhost-user-vsock back end for one guest.

    `vhost` listens for the front end, `hybrid` (bound to the path `uds`) for hosts that want to reach the guest.
    """

    def __init__(self, vhost: socket.socket, hybrid: socket.socket, *, uds: str, cid: int, limit: int) -> None:
        self.loop = Loop()
        self.tap = Tap()
        self.bridge = Bridge(self.loop, self.tap, hybrid, uds=uds, guest_cid=cid, limit=limit)
        self._vhost = vhost
        self._cid = cid
        self._front: FrontEnd | None = None
        self._announce_at: float | None = None
        vhost.setblocking(False)
        hybrid.setblocking(False)
        self.loop.watch(vhost.fileno(), READ, self._accept)

    def control(self, sock: socket.socket) -> None:
        """Obey a controller; the process ends when it closes."""
        Control(sock, self.loop, {"statistics": self.statistics, "trace": self.trace})

    def statistics(self) -> dict[str, Any]:
        """Numbers of the device and of each connection."""
        running = self._front is not None and self._front.inbox is not None
        return {"attached": self.bridge.attached, "running": running} | self.bridge.statistics()

    def trace(self, file: str | int | None = None, lines: bool = False, **limits: int) -> None:
        """Write every packet to a new pcapng file, or a line of each to standard error; neither turns it off.

        `file` is a path, or the descriptor of an empty file, ours from then on. `limits` as for `Tap.open`.
        """
        self.tap.open(file, lines=lines, **limits)

    def run(self) -> NoReturn:
        """Serve until an exception (SystemExit, from a signal) ends it."""
        busy = False
        while True:
            busy = self.step(wait=not busy)

    def step(self, *, wait: bool) -> bool:
        """One round: events (waited for, if asked), what is overdue, the queues. True if there is more."""
        deadline = self._deadline()
        if not wait:
            self.loop.run_once(0)
        elif deadline is None:
            self.loop.run_once(None)
        else:
            self.loop.run_once(max(0, deadline - monotonic()))
        if deadline is not None and monotonic() >= deadline:
            self.bridge.expire()
        return self._turn()

    def _deadline(self) -> float | None:
        if self._announce_at is None:
            return self.bridge.deadline
        return min(self._announce_at, self.bridge.deadline or self._announce_at)

    def _turn(self) -> bool:
        front = self._front
        if not front or not front.inbox or not front.outbox:
            self._announce_at = None
            return False
        try:
            return self._serve(front, front.inbox, front.outbox)
        except (QueueError, MemoryFault) as error:
            log(f"the driver broke the device, which stays silent until it is reset: {error}")
            front.report_broken()
            self.bridge.guest_gone()
        except EventFileError as error:
            self._front_gone(f"front end dropped: its event file: {error}")
        return False

    def _serve(self, front: FrontEnd, inbox: Inbox, outbox: Virtqueue) -> bool:
        """One turn of both queues; False when there is nothing to do before a kick or a socket's event."""
        bridge = self.bridge
        size = self._receive(outbox)
        if size is not None:
            self._announce(front, outbox, streaming=size >= STREAMING)
        elif self._announce_at is not None:
            self._announce(front, outbox, streaming=True)
        if bridge.waiting:
            bridge.feed(inbox)
            inbox.queue.publish()
            if inbox.queue.interrupt_due():
                front.interrupt(RX)
        # While there is work the driver need not notify us. Asking it to, when there is none, may find some.
        return (
            size is not None
            or (bridge.waiting and (inbox.ready() or inbox.queue.want_kick()))
            or (bridge.accepting and outbox.want_kick())
        )

    def _receive(self, outbox: Virtqueue) -> int | None:
        """Take packets from the guest, at most a batch; their bytes, or None when there were none to take."""
        chains = outbox.take(BATCH) if self.bridge.accepting else []
        if not chains:
            return None
        size = self.bridge.receive(chains)
        for chain in chains:
            outbox.put(chain.head, 0)
        outbox.publish()
        return size

    def _drain(self) -> None:
        """Pass on what the guest has sent before its queues end, so that last words arrive.

        It is a queue full at most, for the guest may go on sending.
        """
        front = self._front
        if not front or not front.outbox:
            return
        # What is wrong with the queues is of no consequence any more.
        with contextlib.suppress(QueueError, MemoryFault, EventFileError):
            for _ in range(front.outbox.size // BATCH + 1):
                if self._receive(front.outbox) is None:
                    break
            if front.outbox.interrupt_due():
                front.interrupt(TX)

    def _announce(self, front: FrontEnd, outbox: Virtqueue, *, streaming: bool) -> None:
        """Interrupt the driver for packets taken from it, if it is time."""
        if streaming and outbox.unannounced < outbox.size // 8:
            now = monotonic()
            if self._announce_at is None:
                self._announce_at = now + PATIENCE
            if now < self._announce_at:
                return
        self._announce_at = None
        if outbox.interrupt_due():
            front.interrupt(TX)

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._vhost.accept()
        except OSError:  # gone again already
            return
        if self._front and self._front.hung_up():
            self._front_gone("")
        if self._front:
            log("a second front end was refused: this device serves one at a time")
            sock.close()
            return
        self._front = FrontEnd(
            sock,
            self.loop,
            self._cid,
            self.tap,
            on_change=self._queues_changed,
            on_stop=self._drain,
            on_gone=self._front_gone,
        )
        self.bridge.attached = True

    def _queues_changed(self) -> None:
        if self._front and self._front.inbox and self._front.fresh:
            self.bridge.guest_gone()

    def _front_gone(self, reason: str) -> None:
        if reason:
            log(reason)
        assert self._front
        self._drain()
        self._front.close()
        self._front = None
        self.bridge.attached = False
        self.bridge.guest_gone()


def log(message: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"vsock: {message}\n")
    sys.stderr.flush()
