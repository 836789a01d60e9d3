"""The flow without threads, page or clock: what is sent to whom, and when nothing is read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sandbox_nb.notebook import terminal_flow
from sandbox_nb.notebook.terminal_flow import CHUNK, FORGET, GONE, KEEP, LEASE, PING, TICK, WINDOW, Flow


def drain(flow, now):
    """All that may be sent if the clock does not stand in the way."""
    sent = b""
    while (wait := flow.due(now)) is not None:
        now += wait
        sent += flow.take(now)[1]
    return sent


def test_nothing_is_sent_to_nobody():
    flow = Flow()
    flow.output(b"hello")
    assert flow.due(0) is None
    assert flow.blocked(0) == 0


def test_a_view_that_comes_late_gets_everything():
    flow = Flow()
    flow.output(b"one ")
    assert flow.hello("a", 24, 80, 0, 0) == 0
    flow.output(b"two")
    assert drain(flow, 0) == b"one two"


def test_a_hello_that_comes_several_times_is_answered_once():
    flow = Flow()
    flow.output(b"hello")
    flow.hello("a", 24, 80, 0, 0)
    assert drain(flow, 0) == b"hello"
    flow.hello("a", 24, 80, 0, 0.1)
    assert drain(flow, 0.1) == b""
    flow.hello("a", 24, 80, 0, PING + 0.1)
    assert drain(flow, PING + 0.2) == b"hello"


def test_a_view_that_missed_something_gets_it_from_there():
    flow = Flow()
    flow.hello("a", 24, 80, 0, 0)
    flow.output(b"0123456789")
    drain(flow, 0)
    assert flow.hello("a", 24, 80, 4, 1) == 4
    assert drain(flow, 1) == b"456789"


def test_a_view_behind_what_is_kept_goes_on_with_a_whole_line():
    flow = Flow()
    flow.output(b"x" * 100 + b"\n" + b"y" * (KEEP - 50))
    assert flow.hello("a", 24, 80, 0, 0) == 101


def test_the_first_bytes_after_a_pause_are_sent_at_once_and_the_next_with_others():
    flow = Flow()
    flow.hello("a", 24, 80, 0, 0)
    flow.output(b"a")
    assert flow.due(10) == 0
    flow.take(10)
    flow.output(b"b")
    assert flow.due(10) == pytest.approx(TICK)
    flow.output(b"c")
    assert flow.take(10 + TICK)[1] == b"bc"


def test_an_echo_is_never_held_back():
    flow = Flow()
    flow.hello("a", 24, 80, 0, 0)
    flow.output(b"prompt")
    flow.take(10)
    flow.key()
    flow.output(b"k")
    assert flow.due(10) == 0


def test_a_full_window_stops_sending_and_reading_until_it_is_acknowledged():
    flow = Flow()
    flow.hello("a", 24, 80, 0, 0)
    flow.output(b"x" * (WINDOW + 1))
    assert len(drain(flow, 0)) == WINDOW
    assert flow.blocked(0) > 0
    flow.acknowledge("a", CHUNK, 0)
    assert flow.blocked(0) == 0
    assert drain(flow, 0) == b"x"


def test_a_view_that_is_gone_holds_nobody_up_for_longer_than_its_lease():
    flow = Flow()
    flow.hello("a", 24, 80, 0, 0)
    flow.output(b"x" * WINDOW)
    drain(flow, 0)
    assert 0 < flow.blocked(0) <= LEASE
    assert flow.blocked(LEASE + 1) == 0
    flow.output(b"y" * WINDOW)
    assert drain(flow, LEASE + 1) == b"", "more than a window would be kept for it somewhere"
    flow.acknowledge("a", WINDOW, LEASE + 2)
    assert drain(flow, LEASE + 2) == b"y" * WINDOW


def test_a_view_that_was_idle_for_long_has_its_lease_when_output_comes():
    flow = Flow()
    flow.hello("a", 24, 80, 0, 0)
    later = 1000.0
    flow.output(b"x" * WINDOW)
    drain(flow, later)
    assert flow.blocked(later) > 0


def test_the_slowest_of_the_views_that_are_there_sets_the_pace():
    flow = Flow()
    for name in ("fast", "slow"):
        flow.hello(name, 24, 80, 0, 0)
    flow.output(b"x" * WINDOW)
    drain(flow, 0)
    flow.acknowledge("fast", WINDOW, 0)
    assert flow.blocked(0) > 0
    flow.acknowledge("slow", WINDOW, 0)
    assert flow.blocked(0) == 0


def test_a_view_that_owes_is_asked_and_not_when_it_owes_nothing():
    flow = Flow()
    flow.hello("a", 24, 80, 0, 0)
    assert flow.silent(100) == (False, None)
    flow.output(b"x")
    drain(flow, 100)
    late, again = flow.silent(100)
    assert not late
    assert 0 < again <= PING
    assert flow.silent(100 + PING)[0]
    assert not flow.silent(100 + PING)[0]
    flow.acknowledge("a", 1, 101)
    assert flow.silent(102) == (False, None)


def test_a_view_that_stays_silent_is_asked_ever_more_seldom_and_forgotten_in_the_end():
    flow = Flow()
    flow.hello("a", 24, 80, 0, 0)
    flow.output(b"x")
    drain(flow, 0)
    now, asked = 0.0, []
    while flow.views:
        late, again = flow.silent(now)
        if late:
            asked.append(now)
        now += again
    assert asked == [PING * 2**n for n in range(10)]
    assert now == FORGET
    assert not flow.owes


def test_a_view_that_has_lost_its_wire_is_forgotten_unless_it_is_heard():
    flow = Flow()
    for name in ("gone", "here"):
        flow.hello(name, 24, 80, 0, 0, turn=1, typed=5)
        flow.lose(name, 10)
    flow.acknowledge("here", 0, 11)
    assert flow.silent(11)[1] <= LEASE
    assert flow.silent(10 + LEASE) == (False, 0.0)
    assert flow.views == {"here"}
    assert flow.silent(1000) == (False, None)
    assert flow.is_stale("gone", 1)
    flow.hello("gone", 24, 80, 0, 1000, turn=2, typed=3)
    assert flow.typed("gone") == 5


def test_what_is_typed_is_taken_once_and_in_order():
    flow = Flow()
    assert flow.type("a", 0, 3) is None, "nobody knows it"
    flow.hello("a", 24, 80, 0, 0, typed=10)
    assert flow.type("a", 10, 3) == 0
    assert flow.type("a", 10, 3) == 3
    assert flow.type("a", 12, 3) == 1
    assert flow.type("a", 16, 1) is None, "number 15 is missing"
    assert flow.typed("a") == 15
    assert flow.type("a", 0, 15) == 15
    assert flow.typed("a") == 15


def test_views_are_told_what_they_have_typed_once():
    flow = Flow()
    for name in ("a", "b"):
        flow.hello(name, 24, 80, 0, 0)
    assert flow.news_of_typed() == {}
    flow.type("a", 0, 7)
    assert flow.news_of_typed() == {"a": 7}
    assert flow.news_of_typed() == {}
    flow.type("b", 0, 1)
    assert flow.news_of_typed() == {"b": 1}


def test_a_view_that_comes_back_to_what_is_no_longer_kept_gets_all_that_is():
    flow = Flow()
    flow.hello("a", 24, 80, 0, 0)
    flow.output(b"x" * WINDOW)
    drain(flow, 0)
    assert flow.blocked(LEASE + 1) == 0
    flow.output(b"y\n" * KEEP)
    flow.acknowledge("a", WINDOW, LEASE + 2)
    # What it is sent is not what comes next for it, so it says hello.
    assert flow.take(LEASE + 2)[0] > WINDOW
    begin = flow.hello("a", 24, 80, WINDOW, LEASE + 2)
    got = b""
    while flow.due(LEASE + 2 + len(got)) is not None:
        got += flow.take(LEASE + 2 + len(got))[1]
        flow.acknowledge("a", begin + len(got), LEASE + 2)
    assert begin + len(got) == flow.ring.end
    assert len(got) > KEEP - 4096


def test_the_view_used_last_leads_and_a_goodbye_hands_on():
    flow = Flow()
    flow.hello("a", 10, 40, 0, 0)
    flow.hello("b", 20, 80, 0, 0)
    assert flow.leader == "b"
    flow.use("a")
    assert (flow.leader, flow.size) == ("a", (10, 40))
    flow.resize("a", 11, 41)
    assert flow.size == (11, 41)
    flow.bye("a")
    assert (flow.leader, flow.size) == ("b", (20, 80))
    flow.bye("b")
    assert flow.size is None


def test_a_hello_repeated_does_not_take_the_lead():
    flow = Flow()
    flow.hello("a", 10, 40, 0, 0)
    flow.hello("b", 20, 80, 0, 0)
    flow.hello("a", 10, 40, 0, 1)
    assert flow.leader == "b"


def test_pages_that_come_and_go_without_a_goodbye_do_not_pile_up():
    flow = Flow()
    for number in range(1000):
        flow.hello(f"view {number}", 24, 80, 0, float(number))
    assert len(flow._views) <= terminal_flow.VIEWS
    assert flow.leader == "view 999"


class Views(RuleBasedStateMachine):
    """Two views, messages that are lost, doubled or late: each ends with every byte, once and in order."""

    def __init__(self):
        super().__init__()
        self.flow = Flow()
        self.now = 0.0
        self.stream = b""
        self.wire = []
        self.got = {"a": b"", "b": b""}
        for name in self.got:
            self.flow.hello(name, 24, 80, 0, self.now)

    @rule(size=st.sampled_from([1, 100, 70_000, 300_000]))
    def write(self, size):
        if self.flow.blocked(self.now) == 0 and len(self.stream) + size < KEEP:
            data = bytes([len(self.stream) % 251]) * size
            self.stream += data
            self.flow.output(data)

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds):
        self.now += seconds
        while self.flow.due(self.now) == 0:
            self.wire.append(self.flow.take(self.now))

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def lose(self, data):
        self.wire.pop(data.draw(st.integers(0, len(self.wire) - 1)))

    @precondition(lambda self: self.wire)
    @rule(name=st.sampled_from("ab"), acknowledges=st.booleans())
    def receive(self, name, acknowledges):
        for at, data in self.wire:
            self.take(name, at, data)
        if acknowledges:
            self.wire.clear()
            self.flow.acknowledge(name, len(self.got[name]), self.now)

    def take(self, name, at, data):
        known = len(self.got[name])
        if at > known:
            resumed = self.flow.hello(name, 24, 80, known, self.now)
            assert resumed == known
        elif at + len(data) > known:
            self.got[name] += data[known - at :]

    @invariant()
    def nothing_false_arrives(self):
        for got in self.got.values():
            assert self.stream.startswith(got)

    @invariant()
    def no_more_than_a_window_is_under_way(self):
        assert self.flow.sent - max(v.acked for v in self.flow._views.values()) <= WINDOW

    def teardown(self):
        for _ in range(200):
            self.now += PING + 1
            while self.flow.due(self.now) == 0:
                self.wire.append(self.flow.take(self.now))
            for name in self.got:
                for at, data in self.wire:
                    self.take(name, at, data)
                self.flow.acknowledge(name, len(self.got[name]), self.now)
                if len(self.got[name]) < self.flow.sent:
                    self.flow.hello(name, 24, 80, len(self.got[name]), self.now)
            self.wire.clear()
        assert self.got == {"a": self.stream, "b": self.stream}


TestViews = Views.TestCase
TestViews.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(st.integers(1, 400_000), st.floats(0, 0.05)), max_size=30))
@settings(deadline=None)
def test_a_chunk_is_never_larger_than_agreed_and_what_is_due_is_something(steps):
    flow = Flow()
    flow.hello("a", 24, 80, 0, 0)
    now = 0.0
    for size, pause in steps:
        flow.output(b"x" * size)
        now += pause
        while flow.due(now) == 0:
            at, data = flow.take(now)
            assert 0 < len(data) <= CHUNK
            flow.acknowledge("a", at + len(data), now)


def test_of_views_that_said_good_bye_a_bounded_number_is_remembered():
    flow = Flow()
    for number in range(GONE + 10):
        flow.hello(f"v{number}", 24, 80, 0, 0.0, turn=1)
        flow.bye(f"v{number}")
    assert not flow.is_stale("v0", 1)
    assert flow.is_stale(f"v{GONE + 9}", 1)
    assert len(flow._gone) == GONE
