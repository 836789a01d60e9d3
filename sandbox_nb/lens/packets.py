"""vsock packets as crossings, each with what its sender and its receiver may still send after it.

A sender may have ``peer_buf_alloc - (sent - peer_fwd_cnt)`` bytes more under way (virtio 1.2, 5.10.6.3); a packet
tells the two of its sender. What was sent is known of connections that began under the lens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sandbox_nb.lens.crossings import Crossing
from sandbox_nb.vsock import packet, trace
from sandbox_nb.vsock.packet import HOST_CID, Header

_PREVIEW = 48
_WRAP = 1 << 32

Ports = tuple[int, int]
"""The host's and the guest's."""


class _Side:
    """What one end of a connection has told and sent."""

    def __init__(self) -> None:
        self.sent = 0
        self.buf_alloc = 0
        self.fwd_cnt = 0

    def sends(self, header: Header) -> None:
        self.sent = (self.sent + header.len) % _WRAP
        self.buf_alloc, self.fwd_cnt = header.buf_alloc, header.fwd_cnt

    def may_send(self, peer: _Side) -> int:
        return max(0, peer.buf_alloc - (self.sent - peer.fwd_cnt) % _WRAP)


def crossings(file: bytes) -> Iterator[Crossing]:
    """The packets of a trace."""
    return _told(trace.packets(file))


def _told(packets: Iterable[tuple[int, Header, bytes]]) -> Iterator[Crossing]:
    sides: dict[Ports, tuple[_Side, _Side]] = {}
    for time_ns, header, payload in packets:
        to_guest = header.src_cid == HOST_CID
        ports = (header.src_port, header.dst_port) if to_guest else (header.dst_port, header.src_port)
        if header.op == packet.REQUEST:
            sides[ports] = _Side(), _Side()
        pair = sides.get(ports)
        if pair is not None:
            pair[0 if to_guest else 1].sends(header)
        what = packet.OP_NAMES.get(header.op, f"op {header.op}")
        where = f"{ports[0]}:{ports[1]}"
        yield Crossing(time_ns, "vsock", to_guest, what, where, header.len, _detail(header, payload, pair))
        if header.op == packet.RST:
            sides.pop(ports, None)


def _detail(header: Header, payload: bytes, pair: tuple[_Side, _Side] | None) -> str:
    parts = [f"buf_alloc={header.buf_alloc} fwd_cnt={header.fwd_cnt}"]
    if header.op == packet.SHUTDOWN:
        ends = [name for bit, name in ((1, "receive"), (2, "send")) if header.flags & bit]
        parts.append(f"will no more {' nor '.join(ends)}")
    if pair is not None and header.op != packet.RST:
        host, guest = pair
        parts.append(f"host may send {host.may_send(guest)}, guest {guest.may_send(host)}")
    if payload:
        parts.append(repr(payload[:_PREVIEW])[1:] + ("…" if header.len > _PREVIEW else ""))
    return "; ".join(parts)
