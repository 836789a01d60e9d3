"""One vsock connection, seen from the host: what each packet means in each state, and which packets to send.

Virtio 1.2, section 5.10.6. Sans-IO: the bridge tells it what its UNIX socket did and what the guest sent; it
answers with events and headers. What waits to be sent is a set of operations, not a list of packets, so a
guest that never makes room for them cannot make it grow.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from . import packet
from .credit import Credit, CreditError
from .packet import HOST_CID, STREAM, Header


class ProtocolViolation(Exception):
    """The guest sent what the connection's state forbids: answer with RST."""


class State(Enum):
    """Where a connection stands."""

    DIALLING = "guest asked, host's socket not connected yet"
    REQUESTED = "host asked, guest has not answered yet"
    ESTABLISHED = "open, at least one way"
    CLOSED = "gone"


class Event(Enum):
    """What a packet of the guest means to the bridge."""

    NOTHING = "credit, or less to come or to send: see `guest_shut`"
    CONNECTED = "guest accepted the host's request"
    RESET = "guest refused or dropped the connection"


# An operation that is missing here is a violation in that state. RW has a method of its own: it is most packets.
_TRANSITIONS = {
    (State.DIALLING, packet.CREDIT_UPDATE): (State.DIALLING, Event.NOTHING),
    (State.DIALLING, packet.CREDIT_REQUEST): (State.DIALLING, Event.NOTHING),
    (State.DIALLING, packet.RST): (State.CLOSED, Event.RESET),
    (State.REQUESTED, packet.RESPONSE): (State.ESTABLISHED, Event.CONNECTED),
    (State.REQUESTED, packet.RST): (State.CLOSED, Event.RESET),
    (State.ESTABLISHED, packet.CREDIT_UPDATE): (State.ESTABLISHED, Event.NOTHING),
    (State.ESTABLISHED, packet.CREDIT_REQUEST): (State.ESTABLISHED, Event.NOTHING),
    (State.ESTABLISHED, packet.SHUTDOWN): (State.ESTABLISHED, Event.NOTHING),
    (State.ESTABLISHED, packet.RST): (State.CLOSED, Event.RESET),
}

# In the order they are sent. RST is not among them: it ends the connection and travels alone.
_ORDER = (packet.REQUEST, packet.RESPONSE, packet.CREDIT_UPDATE, packet.CREDIT_REQUEST, packet.SHUTDOWN)


class Connection:
    """The connection between `host_port` (of CID 2) and `guest_port`; the guest is granted `buf_alloc` bytes."""

    __slots__ = ("_pending", "credit", "guest_cid", "guest_port", "guest_shut", "host_port", "host_shut", "state")

    def __init__(self, guest_cid: int, host_port: int, guest_port: int, buf_alloc: int) -> None:
        self.guest_cid = guest_cid
        self.host_port = host_port
        self.guest_port = guest_port
        self.credit = Credit(buf_alloc)
        self.state = State.DIALLING
        self.guest_shut = 0
        """SHUTDOWN flags the guest has sent."""
        self.host_shut = 0
        """SHUTDOWN flags sent to the guest, or about to be."""
        self._pending = 0

    # What the host's side does.

    def request(self) -> None:
        """The host asks for the connection."""
        self.state = State.REQUESTED
        self._queue(packet.REQUEST)

    def accept(self) -> None:
        """The host takes the connection the guest asked for."""
        self.state = State.ESTABLISHED
        self._queue(packet.RESPONSE)

    def shutdown(self, flags: int) -> None:
        """The host will send no more (SHUTDOWN_SEND), receive no more (SHUTDOWN_RECEIVE), or both."""
        if flags & ~self.host_shut:
            self.host_shut |= flags
            self._queue(packet.SHUTDOWN)

    def close(self) -> None:
        """Nothing comes or goes any more."""
        self.state = State.CLOSED
        self._pending = 0

    def reset(self) -> Header:
        """Close the connection; the packet that tells the guest."""
        self.close()
        return self._header(packet.RST)

    def ask_for_credit(self) -> None:
        """Have the guest say how much room it has."""
        self._queue(packet.CREDIT_REQUEST)

    def forwarded(self, size: int) -> None:
        """`size` bytes of the guest's reached the host's socket (or were given up with it)."""
        self.credit.forwarded(size)
        if self.credit.update_due and self.state is State.ESTABLISHED:
            self._queue(packet.CREDIT_UPDATE)

    # What the guest's side does.

    def receive(self, header: Header) -> Event:
        """Any packet of the guest's but REQUEST and RW."""
        try:
            state, event = _TRANSITIONS[self.state, header.op]
        except KeyError:
            op = packet.OP_NAMES.get(header.op, header.op)
            raise ProtocolViolation(f"{op} while {self.state.name}") from None
        self.state = state
        self.credit.update(header.buf_alloc, header.fwd_cnt)
        if header.op == packet.CREDIT_REQUEST:
            self._queue(packet.CREDIT_UPDATE)
        elif header.op == packet.SHUTDOWN:
            self.guest_shut |= header.flags & packet.SHUTDOWN_BOTH
        return event

    def receive_data(self, header: Header) -> None:
        """An RW packet of the guest's; its payload is the caller's to forward."""
        if self.state is not State.ESTABLISHED:
            raise ProtocolViolation(f"RW while {self.state.name}")
        if self.guest_shut & packet.SHUTDOWN_SEND:
            raise ProtocolViolation("RW after SHUTDOWN")
        credit = self.credit
        credit.update(header.buf_alloc, header.fwd_cnt)
        try:
            credit.received(header.len)
        except CreditError as error:
            raise ProtocolViolation(str(error)) from None

    # What goes to the guest.

    @property
    def pending(self) -> bool:
        """Whether `next_packet` has one."""
        return self._pending != 0

    @property
    def unseen(self) -> bool:
        """Whether the guest knows nothing of the connection yet."""
        return bool(self._pending & 1 << packet.REQUEST)

    def next_packet(self) -> Header | None:
        """The next packet without payload that waits to be sent."""
        for op in _ORDER:
            if self._pending & 1 << op:
                self._pending &= ~(1 << op)
                return self._header(op, flags=self.host_shut if op == packet.SHUTDOWN else 0)
        return None

    def data_header(self, size: int) -> bytes:
        """The packed header of an RW packet of `size` bytes. It carries our credit, as an update would."""
        self._pending &= ~(1 << packet.CREDIT_UPDATE)
        return self._header(packet.RW, size).pack()

    def _queue(self, op: int) -> None:
        self._pending |= 1 << op

    def _header(self, op: int, size: int = 0, flags: int = 0) -> Header:
        buf_alloc, fwd_cnt = self.credit.announce()
        return Header(
            HOST_CID, self.guest_cid, self.host_port, self.guest_port, size, STREAM, op, flags, buf_alloc, fwd_cnt
        )

    def statistics(self) -> dict[str, Any]:
        """How the connection stands, for people."""
        credit = self.credit
        return {
            "host_port": self.host_port,
            "guest_port": self.guest_port,
            "state": self.state.name,
            "guest_shut": self.guest_shut,
            "host_shut": self.host_shut,
            "credit_of_guest": {"granted": credit.buf_alloc, "held": credit.held},
            "credit_of_host": {"free": credit.peer_free, "crowded": credit.crowded},
        }


def reset_reply(header: Header) -> Header:
    """The RST that answers a packet belonging to no connection."""
    return Header(
        header.dst_cid, header.src_cid, header.dst_port, header.src_port, 0, header.type, packet.RST, 0, 0, 0
    )
