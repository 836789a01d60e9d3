from __future__ import annotations

import itertools

import pytest

from sandbox_nb.vsock.framing import Inbox, parse, split
from sandbox_nb.vsock.memory import GuestMemory, MemoryFault, Region
from sandbox_nb.vsock.packet import Header
from sandbox_nb.vsock.trace import Tap
from sandbox_nb.vsock.virtqueue import INDIRECT, NEXT, WRITE, QueueError, Virtqueue, ring_sizes
from vsock.model import GUEST_BASE, DriverRing

SIZE = 8
DATA = 0x4000


class Pair:
    """A driver's and a device's side of one queue over 64 KiB."""

    def __init__(self, *, writable=False, event_idx=True, base=0):
        self.bytes = bytearray(1 << 16)
        self.fences = 0
        view = memoryview(self.bytes)
        self.driver = DriverRing(view, 0, SIZE)
        parts = zip((self.driver.desc, self.driver.avail, self.driver.used), ring_sizes(SIZE), strict=True)
        self.device = Virtqueue(
            SIZE,
            *(view[place : place + size] for place, size in parts),
            memory=GuestMemory([Region(GUEST_BASE, 0, view)]),
            fence=self.fence,
            writable=writable,
            event_idx=event_idx,
            base=base,
        )

    def fence(self):
        self.fences += 1


def address(offset):
    return GUEST_BASE + DATA + offset


def test_chains_arrive_in_order_with_their_buffers():
    pair = Pair()
    pair.bytes[DATA : DATA + 6] = b"abcdef"
    heads = [pair.driver.add([(address(0), 2), (address(4), 2)], writable=False)]
    heads.append(pair.driver.add([(address(2), 1)], writable=False))
    chains = pair.device.take(10)
    assert [chain.head for chain in chains] == heads
    assert [[bytes(view) for view in chain.buffers] for chain in chains] == [[b"ab", b"ef"], [b"c"]]
    assert pair.device.take(10) == []


def test_no_more_chains_are_taken_than_asked_for():
    pair = Pair()
    for _ in range(3):
        pair.driver.add([(address(0), 1)], writable=False)
    assert [len(pair.device.take(2)) for _ in range(3)] == [2, 1, 0]


def test_an_indirect_table_holds_the_chain():
    pair = Pair()
    pair.bytes[DATA : DATA + 4] = b"wxyz"
    pair.driver.add_indirect(address(0x100), [(address(0), 1), (address(3), 1)], writable=False)
    (chain,) = pair.device.take(1)
    assert [bytes(view) for view in chain.buffers] == [b"w", b"z"]


def test_buffers_are_views_of_guest_memory():
    pair = Pair(writable=True)
    pair.driver.add([(address(0), 4)], writable=True)
    (chain,) = pair.device.take(1)
    chain.buffers[0][:] = b"done"
    assert pair.bytes[DATA : DATA + 4] == b"done"


def test_chains_put_back_show_only_when_published():
    pair = Pair()
    head = pair.driver.add([(address(0), 4)], writable=False)
    pair.device.take(1)
    pair.device.put(head, 3)
    assert pair.driver.used_chains() == []
    pair.device.publish()
    assert pair.driver.used_chains() == [(head, 3)]


def test_indices_wrap():
    pair = Pair()
    for count in range(70_000):
        head = pair.driver.add([(address(0), 1)], writable=False)
        (chain,) = pair.device.take(1)
        assert chain.head == head
        pair.device.put(head, count & 0xFF)
        pair.device.publish()
        assert pair.driver.used_chains() == [(head, count & 0xFF)]


def test_a_queue_goes_on_where_another_device_left_it():
    pair = Pair()
    heads = [pair.driver.add([(address(n), 1)], writable=False) for n in range(3)]
    pair.device.take(2)
    pair.device.put(heads[0], 0)
    pair.device.publish()
    assert pair.device.base == 1
    pair.device._next = pair.device._used_idx = pair.device.base  # as a new device with that base would begin
    assert [chain.head for chain in pair.device.take(9)] == heads[1:]


@pytest.mark.parametrize("size", [0, 3, 65536])
def test_a_queue_has_a_size_that_virtio_allows(size):
    with pytest.raises(QueueError, match=f"size {size}"):
        Virtqueue(
            size, memoryview(b""), memoryview(b""), memoryview(b""), memory=GuestMemory(), fence=int, writable=True
        )


class TestNotification:
    def test_the_driver_is_interrupted_for_what_it_asked(self):
        pair = Pair()
        pair.driver.wish_interrupt()
        heads = [pair.driver.add([(address(0), 1)], writable=False) for _ in range(3)]
        pair.device.take(3)
        interrupts = []
        for head in heads:
            pair.device.put(head, 0)
            pair.device.publish()
            interrupts.append(pair.device.interrupt_due())
        assert interrupts == [True, False, False]

    def test_a_batch_is_one_interrupt(self):
        pair = Pair()
        pair.driver.wish_interrupt()
        heads = [pair.driver.add([(address(0), 1)], writable=False) for _ in range(5)]
        pair.device.take(5)
        for head in heads:
            pair.device.put(head, 0)
        pair.device.publish()
        assert pair.device.interrupt_due()
        assert not pair.device.interrupt_due()

    def test_without_event_idx_the_flag_decides(self):
        pair = Pair(event_idx=False)
        for flag, due in ((0, True), (1, False)):
            pair.driver._avail[0] = flag
            head = pair.driver.add([(address(0), 1)], writable=False)
            pair.device.take(1)
            pair.device.put(head, 0)
            pair.device.publish()
            assert pair.device.interrupt_due() is due

    @pytest.mark.parametrize("event_idx", [True, False])
    def test_the_driver_kicks_only_when_the_device_is_not_looking(self, event_idx):
        pair = Pair(event_idx=event_idx)
        kicks = []
        for wanted in (True, False, True):
            if wanted:
                assert not pair.device.want_kick()
            pair.driver.add([(address(0), 1)], writable=False)
            kicks.append(pair.driver.kick_needed(event_idx=event_idx))
            pair.device.take(1)
        assert kicks == [True, False, True]

    def test_what_came_before_the_wish_is_found(self):
        pair = Pair()
        pair.driver.add([(address(0), 1)], writable=False)
        assert pair.device.want_kick()

    def test_a_fence_stands_between_the_wish_and_the_look(self):
        pair = Pair()
        order = []
        pair.device._fence = lambda: order.append(pair.device._avail_event[0])
        pair.device._next = 5
        pair.device.want_kick()
        assert order == [5]


class TestHostileDrivers:
    """A chain can be wrong in many ways; each is an error, found in time bounded by the queue's size."""

    def refuse(self, pair, match):
        with pytest.raises((QueueError, MemoryFault), match=match):
            pair.device.take(SIZE)

    def test_an_index_that_runs_ahead(self):
        pair = Pair()
        pair.driver.set_available_index(SIZE + 1)
        self.refuse(pair, "runs 9 ahead")

    def test_a_head_outside_the_table(self):
        pair = Pair()
        pair.driver.offer(SIZE)
        self.refuse(pair, "descriptor 8 in a queue of 8")

    def test_a_chain_that_leaves_the_table(self):
        pair = Pair()
        pair.driver.write_descriptor(0, address(0), 1, NEXT, 99)
        pair.driver.offer(0)
        self.refuse(pair, "descriptor 99")

    def test_a_chain_that_loops(self):
        pair = Pair()
        pair.driver.write_descriptor(0, address(0), 1, NEXT, 1)
        pair.driver.write_descriptor(1, address(0), 1, NEXT, 0)
        pair.driver.offer(0)
        self.refuse(pair, "longer than its table")

    @pytest.mark.parametrize("where", [0, GUEST_BASE - 1, GUEST_BASE + (1 << 16) - 3, (1 << 64) - 2])
    def test_a_buffer_outside_memory(self, where):
        pair = Pair()
        pair.driver.write_descriptor(0, where, 4, 0, 0)
        pair.driver.offer(0)
        self.refuse(pair, "not in one memory region")

    def test_a_buffer_of_the_wrong_kind(self):
        for writable, flags in ((False, WRITE), (True, 0)):
            pair = Pair(writable=writable)
            pair.driver.write_descriptor(0, address(0), 4, flags, 0)
            pair.driver.offer(0)
            self.refuse(pair, "buffer belongs")

    @pytest.mark.parametrize(
        ("length", "flags"),
        [(0, 0), (15, 0), (16, NEXT), (16 * (SIZE + 1), 0)],
        ids=["empty", "ragged", "next", "long"],
    )
    def test_a_malformed_indirect_table(self, length, flags):
        pair = Pair()
        pair.driver.write_descriptor(0, address(0), length, INDIRECT | flags, 0)
        pair.driver.offer(0)
        self.refuse(pair, "indirect")

    def test_an_indirect_table_in_an_indirect_table(self):
        pair = Pair()
        pair.driver.add_indirect(address(0), [(address(0), 16)], writable=False)
        pair.bytes[DATA + 12] = INDIRECT
        self.refuse(pair, "flags 0x4")


class TestMemory:
    def test_a_range_is_found_in_the_region_that_holds_it(self):
        low, high = bytearray(b"low!"), bytearray(b"highhigh")
        memory = GuestMemory([Region(0, 1000, memoryview(low)), Region(100, 2000, memoryview(high))])
        assert bytes(memory.view(1, 2)) == b"ow"
        assert bytes(memory.view(104, 4)) == b"high"
        assert bytes(memory.user_view(2000, 8)) == b"highhigh"

    @pytest.mark.parametrize("size", [0x101, 1 << 40])
    def test_a_range_that_leaves_its_region_is_a_fault(self, size):
        memory = GuestMemory(
            [Region(0, 0, memoryview(bytearray(256))), Region(256, 256, memoryview(bytearray(256)))]
        )
        with pytest.raises(MemoryFault, match="0x0"):
            memory.view(0, size)
        with pytest.raises(MemoryFault):
            memory.user_view(0, size)


class TestFraming:
    HEADER = Header(3, 2, 1, 2, 5, 1, 5, 0, 9, 9)

    def chain(self, *sizes, data):
        pair = Pair()
        pair.bytes[DATA : DATA + len(data)] = data
        ends = list(itertools.accumulate(sizes))
        pair.driver.add(
            [(address(end - size), size) for end, size in zip(ends, sizes, strict=True)], writable=False
        )
        return pair.device.take(1)[0]

    @pytest.mark.parametrize(
        "sizes",
        [(44, 5), (49,), (20, 29), (1, 43, 2, 3), (44, 9), (60,)],
        ids=lambda sizes: "-".join(map(str, sizes)),
    )
    def test_a_packet_is_the_same_however_it_is_cut(self, sizes):
        chain = self.chain(*sizes, data=self.HEADER.pack() + b"hello and more")
        header, payload = parse(chain)
        assert header == self.HEADER
        assert b"".join(payload) == b"hello"

    def test_a_packet_without_payload_has_none(self):
        header, payload = parse(self.chain(44, data=self.HEADER._replace(len=0).pack()))
        assert (header.len, payload) == (0, [])

    @pytest.mark.parametrize("sizes", [(43,), (44, 4), (44,)])
    def test_a_chain_shorter_than_its_packet_is_an_error(self, sizes):
        with pytest.raises(QueueError, match=r"short|room for"):
            parse(self.chain(*sizes, data=self.HEADER.pack() + b"hello"))

    def test_splitting_keeps_every_byte_in_order(self):
        views = [memoryview(part) for part in (b"ab", b"c", b"defg")]
        for size in range(8):
            first, rest = split(views, size)
            assert b"".join(first) == b"abcdefg"[:size]
            assert b"".join(first) + b"".join(rest) == b"abcdefg"

    def inbox(self, *chains):
        pair = Pair(writable=True)
        place = 0
        for chain in chains:
            buffers = []
            for size in chain:
                buffers.append((address(place), size))
                place += size
            pair.driver.add(buffers, writable=True)
        return pair, Inbox(pair.device, Tap())

    def test_payload_goes_where_the_offer_was_and_headers_in_front_of_it(self):
        pair, inbox = self.inbox((44, 10), (54,), (30, 24))
        views = inbox.offer(25)
        assert sum(map(len, views)) == 25
        for view in views:
            view[:] = b"x" * len(view)
        made = []
        assert inbox.commit(23, lambda size: made.append(size) or self.HEADER._replace(len=size).pack()) == 3
        pair.device.publish()
        assert [written for _, written in pair.driver.used_chains()] == [54, 54, 47]
        assert made == [10, 3]
        assert [pair.bytes[DATA + 54 * n + 24] for n in range(3)] == [10, 10, 3]
        assert inbox.offer(25) == []

    def test_an_offer_is_no_promise(self):
        _, inbox = self.inbox((44, 10), (44, 10))
        assert len(inbox.offer(20)) == 2
        assert len(inbox.offer(5)) == 1
        assert inbox.put(self.HEADER)
        assert inbox.put(self.HEADER)
        assert not inbox.put(self.HEADER)

    def test_a_receive_buffer_for_a_header_alone_is_an_error(self):
        _, inbox = self.inbox((44,))
        with pytest.raises(QueueError, match="no room for payload"):
            inbox.ready()
