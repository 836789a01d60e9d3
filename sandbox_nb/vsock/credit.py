"""Credit: how much each side of a connection may send before the other has made room.

Virtio 1.2, section 5.10.6.3 "Buffer Space Management". Every packet carries its sender's `buf_alloc` (room for the
connection, in bytes) and `fwd_cnt` (bytes taken out of that room since the connection began, modulo 2**32).
Sans-IO.

Two things Linux does are in no specification, and a sender that ignores them hangs or is reset. Since 6.12.92 it
counts packets too: one that waits costs 576 bytes of `buf_alloc` even if it carries a single byte. And it never
has more in flight than its own `buf_alloc`, however much it was granted.
"""

from __future__ import annotations

from collections import deque

_WRAP = 0xFFFF_FFFF
_HALF = 1 << 31

PACKET_COST = 1024
"""Bytes of the peer's buffer that a waiting packet is taken to cost at least."""

MAX_BURSTS = 1024
"""Bursts told apart. A buffer of 1 MiB has room for no more; a peer may claim one of 4 GiB and take nothing."""


class CreditError(Exception):
    """The peer sent more than it was granted."""


class Credit:
    """Both directions of one connection's credit.

    `buf_alloc` is the room we grant, in bytes. It never shrinks: a peer that computes `alloc - in_flight` without
    a clamp would take a shrunk grant for a huge one.
    """

    __slots__ = (
        "_announced", "_bursts", "_fwd_cnt", "_packets", "_peer_alloc", "_peer_fwd", "_received", "_sent",
        "buf_alloc",
    )  # fmt: skip

    def __init__(self, buf_alloc: int) -> None:
        self.buf_alloc = buf_alloc
        self._received = 0
        self._fwd_cnt = 0
        self._announced = 0
        self._sent = 0
        self._peer_alloc = 0
        self._peer_fwd = 0
        self._packets = 0
        # Where each burst of packets ends, and how many they are: they wait with the peer until it has taken all.
        self._bursts: deque[tuple[int, int]] = deque()

    # Towards the peer.

    def update(self, peer_alloc: int, peer_fwd: int) -> None:
        """Note the credit fields of a packet the peer sent."""
        self._peer_alloc = peer_alloc
        self._peer_fwd = peer_fwd
        bursts = self._bursts
        while bursts and (peer_fwd - bursts[0][0]) & _WRAP < _HALF:
            self._packets -= bursts.popleft()[1]

    @property
    def peer_free(self) -> int:
        """Bytes that may be sent now.

        The counters wrap at 32 bits, so their difference is taken modulo 2**32; the difference to `buf_alloc` is
        not, so a peer that shrinks its buffer (or lies about what it took) stops us rather than granting four
        gigabytes.
        """
        if self.crowded:
            return 0
        return max(0, self._peer_alloc - ((self._sent - self._peer_fwd) & _WRAP))

    @property
    def crowded(self) -> bool:
        """Whether it is the number of packets that stops us: the peer, with room left, may never speak of it."""
        return self._packets * PACKET_COST > self._peer_alloc

    def sent(self, size: int, packets: int) -> None:
        """Count `size` payload bytes sent to the peer in so many packets."""
        self._sent = (self._sent + size) & _WRAP
        self._packets += packets
        if len(self._bursts) == MAX_BURSTS:
            packets += self._bursts.pop()[1]
        self._bursts.append((self._sent, packets))

    # From the peer.

    def received(self, size: int) -> None:
        """Count `size` payload bytes from the peer; CreditError if that exceeds what we granted."""
        if size > self.room:
            raise CreditError(f"{size} bytes sent, only {self.room} of {self.buf_alloc} granted")
        self._received = (self._received + size) & _WRAP

    @property
    def held(self) -> int:
        """Bytes received and not yet passed on."""
        return (self._received - self._fwd_cnt) & _WRAP

    @property
    def room(self) -> int:
        """Bytes the peer may still send, by our own count."""
        return self.buf_alloc - self.held

    def forwarded(self, size: int) -> None:
        """Count `size` received bytes as passed on: their room is free again."""
        self._fwd_cnt = (self._fwd_cnt + size) & _WRAP

    @property
    def update_due(self) -> bool:
        """Whether the peer should be told of freed room without waiting for a packet to carry it.

        Due once half of what it will have in flight has been freed in silence: seldom enough to cost little, early
        enough that a peer sending at full speed does not stop.
        """
        silent = (self._fwd_cnt - self._announced) & _WRAP
        return silent > 0 and silent * 2 >= min(self.buf_alloc, self._peer_alloc)

    def announce(self) -> tuple[int, int]:
        """(buf_alloc, fwd_cnt) for a header about to be sent."""
        self._announced = self._fwd_cnt
        return self.buf_alloc, self._fwd_cnt
