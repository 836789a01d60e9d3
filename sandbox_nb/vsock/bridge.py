r"""Guest ports as UNIX sockets: which stream a packet belongs to, and which stream may send next.

The host's side is Firecracker's hybrid vsock. To reach a guest port, connect to the device's socket, send
`CONNECT <port>\n` and read `OK <number>\n`; bytes sent along with the line arrive too; closed without OK is a
refusal (nothing listens there, no guest, or too many connections). To be reached by the guest on a port,
listen on `<socket>_<port>`.
"""

from __future__ import annotations

import socket
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import packet
from .connection import Event, ProtocolViolation, State, reset_reply
from .framing import parse
from .handshake import TIMEOUT, Handshakes, overdue
from .loop import HANG_UP, PEER_DONE, WRITE
from .packet import HOST_CID, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, STREAM, Header
from .stream import EVENTS, Stream
from .table import Table

if TYPE_CHECKING:
    from .framing import Inbox
    from .loop import Loop
    from .trace import Tap
    from .virtqueue import Chain

DIAL_RETRY = 0.01
"""Seconds between tries to connect to a host's socket whose backlog is full: the kernel has no event for that."""

PROBE = 0.2
"""Seconds after which a guest that leaves us no credit is asked about it, and asked again."""

MAX_REPLIES = 128
"""Resets waiting for the guest to make room, after which nothing more is taken from it (virtio 1.2, 5.10.6.4)."""


class Bridge:
    """The connections of one guest, in tables of those that wait for the same thing."""

    def __init__(
        self, loop: Loop, tap: Tap, listener: socket.socket, *, uds: str, guest_cid: int, limit: int
    ) -> None:
        self.attached = False
        """Whether a front end (QEMU) is connected: without one there is no guest to wait for."""
        self._loop = loop
        self._tap = tap
        self._uds = uds
        self._guest_cid = guest_cid
        self._table = Table(loop, guest_cid, limit)
        self._handshakes = Handshakes(loop, listener, admit=self._admit, on_request=self._request)
        # By what they wait for: an answer to their request, a host's backlog, buffers of the guest for packets
        # without payload, buffers for payload, credit. The values are when to give up, the path, when to ask.
        self._opening: dict[Stream, float] = {}
        self._dialling: dict[Stream, str] = {}
        self._pending: dict[Stream, None] = {}
        self._readable: dict[Stream, None] = {}
        self._starved: dict[Stream, float] = {}
        self._replies: deque[Header] = deque()
        self._retry_at = 0.0

    # Opening.

    def _admit(self) -> bool:
        """Whether one more connection may come; there must be a guest, too, for a host to wait for."""
        if len(self._table) + len(self._handshakes) < self._table.limit:
            return self.attached
        self._table.counters["over_limit"] += 1
        return False

    def _request(self, sock: socket.socket, guest_port: int) -> None:
        """A host wants to reach a guest port."""
        if not self.attached:
            self._loop.discard(sock)
            return
        self._table.counters["opened_by_host"] += 1
        stream = self._table.open(sock, guest_port)
        stream.connection.request()
        self._opening[stream] = monotonic() + TIMEOUT
        self._pending[stream] = None
        self._loop.hand_over(sock.fileno(), EVENTS, lambda events: self._on_socket(stream, events))

    def _dial(self, header: Header) -> None:
        """The guest wants to reach a host port."""
        if not self._admit():
            self._replies.append(reset_reply(header))
            return
        self._table.counters["opened_by_guest"] += 1
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream = self._table.open(sock, header.src_port, header.dst_port)
        stream.connection.credit.update(header.buf_alloc, header.fwd_cnt)
        self._opening[stream] = monotonic() + TIMEOUT
        self._try_dial(stream, f"{self._uds}_{header.dst_port}")

    def _try_dial(self, stream: Stream, path: str) -> None:
        try:
            stream.socket.connect(path)
        except BlockingIOError:  # the listener's backlog is full
            self._dialling[stream] = path
            return
        except OSError:  # nobody listens
            self._reset(stream)
            return
        # Not earlier: a socket that is not connected is reported as hung up.
        self._loop.watch(stream.socket.fileno(), EVENTS, lambda events: self._on_socket(stream, events))
        self._dialling.pop(stream, None)
        del self._opening[stream]
        stream.connection.accept()
        self._pending[stream] = None

    # Time.

    @property
    def deadline(self) -> float | None:
        """When `expire` is next needed, in seconds of the monotonic clock."""
        deadlines = [next(iter(waiting.values())) for waiting in (self._opening, self._starved) if waiting]
        if self._dialling:
            deadlines.append(self._retry_at)
        if self._handshakes.deadline:
            deadlines.append(self._handshakes.deadline)
        return min(deadlines, default=None)

    def expire(self) -> None:
        """Try again what is to be tried again, give up what has waited too long."""
        now = monotonic()
        self._handshakes.expire(now)
        if self._retry_at <= now:
            self._retry_at = now + DIAL_RETRY
            for stream, path in tuple(self._dialling.items()):
                self._try_dial(stream, path)
        for stream in overdue(self._opening, now):
            self._reset(stream)
        for stream in overdue(self._starved, now):
            self._starved[stream] = self._starved.pop(stream) + PROBE
            self._ask_for_credit(stream)

    # Ending.

    def guest_gone(self) -> None:
        """The guest was reset, unplugged or ended, and its connections with it.

        A request it has not seen yet waits for the next guest, unless the front end is gone too.
        """
        for stream in tuple(self._table.streams.values()):
            if not (self.attached and stream.connection.unseen):
                self._release(stream)
        self._replies.clear()

    def _reset(self, stream: Stream) -> None:
        self._table.counters["reset_by_us"] += 1
        self._replies.append(stream.connection.reset())
        self._release(stream)

    def _release(self, stream: Stream) -> None:
        """The guest is done with a stream; its socket is closed once all the guest sent is delivered."""
        stream.connection.close()
        self._table.release(stream)
        for waiting in (self._opening, self._dialling, self._pending, self._readable, self._starved):
            waiting.pop(stream, None)
        self._settle(stream)

    def _settle(self, stream: Stream) -> None:
        """Draw the conclusions from how a stream's socket and connection stand."""
        connection = stream.connection
        if connection.state is State.CLOSED:
            if stream.broken or not stream.backlog:
                self._table.forget(stream)
            return
        if connection.state is not State.ESTABLISHED:
            return
        if stream.broken:
            connection.shutdown(SHUTDOWN_RECEIVE)
        if stream.eof:
            connection.shutdown(SHUTDOWN_BOTH if stream.hung_up else SHUTDOWN_SEND)
        if connection.guest_shut & SHUTDOWN_SEND and not stream.backlog and not stream.finished:
            stream.finish()
        if connection.pending:
            self._pending[stream] = None

    # From a host.

    def _on_socket(self, stream: Stream, events: int) -> None:
        connection = stream.connection
        if events & (PEER_DONE | HANG_UP):
            stream.ending = True
        if events & HANG_UP:
            stream.hung_up = True
            stream.broken |= connection.state is State.CLOSED
        if events & WRITE and stream.backlog:
            self._forwarded(stream, stream.flush())
        elif stream.eof or connection.state is State.CLOSED:
            self._settle(stream)
        if connection.state is State.ESTABLISHED and not stream.eof and stream not in self._starved:
            self._readable[stream] = None

    def _forwarded(self, stream: Stream, size: int) -> None:
        stream.connection.forwarded(size)
        self._settle(stream)

    # From the guest.

    @property
    def accepting(self) -> bool:
        """Whether packets from the guest may be taken: not while answers to earlier ones pile up."""
        return len(self._replies) < MAX_REPLIES

    def receive(self, chains: list[Chain]) -> int:
        """Handle packets from the guest; how many bytes of payload they carry.

        Payload is written to sockets, or kept, before this returns; that of one stream at once, if nothing but
        payload comes between.
        """
        gathered: dict[Stream, list[memoryview]] = {}
        size = 0
        for chain in chains:
            header, payload = parse(chain)
            if self._tap.on_packet:
                self._tap.on_packet(header.pack(), payload)
            if not self._ours(header):
                continue
            stream = self._table.streams.get((header.dst_port, header.src_port))
            if stream is None:
                self._receive_stray(header)
                continue
            try:
                if header.op == packet.RW:
                    stream.connection.receive_data(header)
                    gathered.setdefault(stream, []).extend(payload)
                    size += header.len
                else:
                    self._deliver(gathered, before=stream)
                    self._receive_control(stream, header)
            except ProtocolViolation:
                self._deliver(gathered, before=stream)
                self._reset(stream)
                continue
            if stream in self._starved and stream.connection.credit.peer_free:
                del self._starved[stream]
                self._readable[stream] = None
        self._deliver(gathered)
        return size

    def _deliver(self, gathered: dict[Stream, list[memoryview]], *, before: Stream | None = None) -> None:
        """Write what was gathered, in the order in which streams spoke: errors do not overtake the output before.

        `before` is the stream that is about to go on; if nothing was gathered of it, all of it may wait.
        """
        if before is not None and before not in gathered:
            return
        for stream, views in gathered.items():
            self._forwarded(stream, stream.write(views))
        gathered.clear()

    def _ours(self, header: Header) -> bool:
        """Whether a packet is addressed as this device's guest must; one to another host or type is answered."""
        if header.src_cid != self._guest_cid:
            return False
        if header.dst_cid == HOST_CID and header.type == STREAM:
            return True
        if header.op != packet.RST:
            self._replies.append(reset_reply(header))
        return False

    def _receive_stray(self, header: Header) -> None:
        if header.op == packet.REQUEST:
            self._dial(header)
        elif header.op != packet.RST:
            self._replies.append(reset_reply(header))

    def _receive_control(self, stream: Stream, header: Header) -> None:
        connection = stream.connection
        event = connection.receive(header)
        if event is Event.RESET:
            self._release(stream)
            return
        if event is Event.CONNECTED:
            del self._opening[stream]
            stream.greet(b"OK %d\n" % connection.host_port)
            self._readable[stream] = None
        if connection.guest_shut == SHUTDOWN_BOTH:  # closed in the guest, where RST frees the port
            self._reset(stream)
            return
        if connection.guest_shut & SHUTDOWN_RECEIVE and not stream.eof:
            stream.refuse_input()
        self._settle(stream)

    # To the guest.

    @property
    def waiting(self) -> bool:
        """Whether there is anything for the guest."""
        return bool(self._replies or self._pending or self._readable)

    def feed(self, inbox: Inbox) -> None:
        """Give the guest what waits for it, each stream its share, as far as there are buffers."""
        replies = self._replies
        while replies and inbox.put(replies[0]):
            replies.popleft()
        while self._pending and inbox.ready():
            stream = next(iter(self._pending))
            if header := stream.connection.next_packet():
                inbox.put(header)
            else:
                del self._pending[stream]
        for stream in tuple(self._readable):
            if not self._pump(stream, inbox):
                break

    def _pump(self, stream: Stream, inbox: Inbox) -> bool:
        """Move bytes from a stream's socket to the guest; False if the guest has no buffers."""
        connection = stream.connection
        free = connection.credit.peer_free
        if not free:
            self._starve(stream)
            return True
        views = inbox.offer(min(free, stream.stride))
        if not views:
            return False
        del self._readable[stream]
        size, more = stream.read(views)
        if size:
            connection.credit.sent(size, inbox.commit(size, connection.data_header))
        if more:
            self._readable[stream] = None  # behind the others
        elif stream.eof:
            self._settle(stream)
        return True

    def _starve(self, stream: Stream) -> None:
        """Wait for the guest's credit. Linux speaks up when it has room for bytes again, not for packets."""
        del self._readable[stream]
        self._starved[stream] = monotonic() + PROBE
        if stream.connection.credit.crowded:
            self._ask_for_credit(stream)

    def _ask_for_credit(self, stream: Stream) -> None:
        stream.connection.ask_for_credit()
        self._pending[stream] = None

    # For people.

    def statistics(self) -> dict[str, Any]:
        """Numbers of the device and of each connection."""
        return {"handshakes": len(self._handshakes)} | self._table.statistics()
