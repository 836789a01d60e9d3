from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_nb.vsock.credit import MAX_BURSTS, PACKET_COST, Credit, CreditError

KIB = 1024


@pytest.fixture
def credit():
    made = Credit(256 * KIB)
    made.update(64 * KIB, 0)
    return made


def test_what_is_in_flight_is_not_free(credit):
    credit.sent(1000, 1)
    assert credit.peer_free == 64 * KIB - 1000
    credit.update(64 * KIB, 1000)
    assert credit.peer_free == 64 * KIB


def test_counters_that_wrap_go_on_counting(credit):
    done = 0
    while done < (1 << 32) + 5 * 64 * KIB:
        credit.sent(64 * KIB, 16)
        done += 64 * KIB
        assert credit.peer_free == 0
        credit.update(64 * KIB, done & 0xFFFF_FFFF)
        assert credit.peer_free == 64 * KIB


def test_a_peer_that_shrinks_its_buffer_leaves_no_credit_rather_than_four_gigabytes(credit):
    credit.sent(60 * KIB, 15)
    credit.update(16 * KIB, 0)
    assert credit.peer_free == 0
    credit.update(16 * KIB, 50 * KIB)
    assert credit.peer_free == 6 * KIB


def test_a_peer_that_took_more_than_was_sent_leaves_no_credit(credit):
    credit.update(64 * KIB, 1)
    assert credit.peer_free == 0


def test_small_packets_stop_us_before_they_are_too_many_for_the_peer(credit):
    sent = 0
    while credit.peer_free:
        credit.sent(1, 1)
        sent += 1
    assert credit.crowded
    assert 16 < sent <= 64 * KIB // 576  # where Linux from 6.12.92 on would reset the connection
    credit.update(64 * KIB, sent // 2)
    assert credit.peer_free
    assert not credit.crowded


def test_packets_not_taken_whole_still_wait(credit):
    credit.sent(64 * KIB // PACKET_COST + 1, 64 * KIB // PACKET_COST + 1)
    credit.update(64 * KIB, 1)
    assert credit.crowded


def test_a_peer_that_claims_a_huge_buffer_and_takes_nothing_costs_no_more_memory_for_it(credit):
    credit.update(0xFFFF_FFFF, 0)
    for _ in range(3 * MAX_BURSTS):
        credit.sent(1, 1)
    assert len(credit._bursts) == MAX_BURSTS
    assert credit._packets == 3 * MAX_BURSTS
    credit.update(0xFFFF_FFFF, MAX_BURSTS - 1)
    assert credit._packets == 2 * MAX_BURSTS + 1, "the last burst waits as a whole"
    credit.update(0xFFFF_FFFF, 3 * MAX_BURSTS)
    assert (credit._packets, len(credit._bursts)) == (0, 0)


def test_more_than_was_granted_is_refused_and_not_counted():
    credit = Credit(100)
    credit.received(60)
    with pytest.raises(CreditError, match="41 bytes sent, only 40 of 100"):
        credit.received(41)
    credit.received(40)
    assert credit.room == 0


def test_an_update_is_due_when_half_the_buffer_was_freed_in_silence():
    credit = Credit(100)
    credit.update(1000, 0)
    credit.received(100)
    credit.forwarded(49)
    assert not credit.update_due
    credit.forwarded(1)
    assert credit.update_due
    assert credit.announce() == (100, 50)
    assert not credit.update_due


def test_a_peer_that_caps_itself_at_its_own_buffer_hears_in_time():
    """Linux never has more in flight than its own buf_alloc, whatever it was granted."""
    credit = Credit(1000)
    credit.update(200, 0)
    credit.received(200)
    credit.forwarded(100)
    assert credit.update_due


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=200), st.integers(0, (1 << 32) - 1))
def test_nothing_is_lost_or_invented_between_two_sides(steps, start):
    """A sender and a receiver that tell each other the truth never exceed the buffer and never get stuck."""
    here, there = Credit(1), Credit(256)
    here._sent = here._peer_fwd = there._received = there._fwd_cnt = start
    here.update(256, start)
    for send, take in steps:
        size = min(send, here.peer_free)
        here.sent(size, 0)
        there.received(size)
        there.forwarded(min(take, there.held))
        here.update(*there.announce())
        assert here.peer_free == there.room
