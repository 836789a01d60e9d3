"""The kernel's end of the short way to a page, called as the Jupyter server calls it."""

from __future__ import annotations

import errno
import queue
import secrets
import socket

import pytest

from sandbox_nb.notebook import terminal_wire
from sandbox_nb.notebook.terminal_flow import CHUNK, WINDOW
from sandbox_nb.notebook.terminal_wire import LENGTH, Wire, address, pack, unpack

from .room import wait_for_threads


class Caller:
    """Who calls a terminal by its name."""

    def __init__(self, name):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        try:
            self.socket.connect(address(name))
        except ConnectionRefusedError:
            self.socket.close()
            raise
        self.stream = self.socket.makefile("rwb")

    def send(self, message, data=b""):
        self.send_frame(pack(message, data))

    def send_frame(self, frame):
        self.stream.write(LENGTH.pack(len(frame)) + frame)
        self.stream.flush()

    def receive(self):
        """The next message and its buffer; None at the end."""
        length = self.stream.read(LENGTH.size)
        return unpack(self.stream.read(*LENGTH.unpack(length))) if length else None

    def close(self):
        self.stream.close()
        self.socket.close()


class Terminal:
    """A terminal that does nothing but write down what it hears."""

    def __init__(self):
        self.name = secrets.token_hex(16)
        self.heard = queue.Queue()
        self.lost = queue.Queue()
        self.wire = Wire(self.name, lambda *args: self.heard.put(args), self.lost.put)
        self.callers = []

    def call(self):
        self.callers.append(Caller(self.name))
        return self.callers[-1]


@pytest.fixture
def terminal():
    terminal = Terminal()
    terminal.wire.listen()
    yield terminal
    terminal.wire.close()
    for caller in terminal.callers:
        caller.close()
    wait_for_threads()


@pytest.mark.parametrize("data", [b"", b"x", b"\n\n{}\0\xff", bytes(300_000)])
def test_a_frame_has_a_message_and_any_bytes(data):
    message = {"kind": "output", "at": 7, "ending": "a line\nand another \u2028 é"}
    assert unpack(pack(message, data)) == (message, data)
    assert unpack(pack(message, None)) == (message, b"")


def test_messages_and_bytes_go_both_ways_in_order(terminal):
    caller = terminal.call()
    for number in range(3):
        caller.send({"kind": "input", "number": number}, bytes([number]) * 100_000 * number)
    for number in range(3):
        message, data, send = terminal.heard.get(timeout=10)
        assert (message["number"], data) == (number, bytes([number]) * 100_000 * number)
    send({"kind": "output", "at": 0}, b"\n" * 1000)
    send({"kind": "end"}, None)
    assert caller.receive() == ({"kind": "output", "at": 0}, b"\n" * 1000)
    assert caller.receive() == ({"kind": "end"}, b"")


def test_each_page_has_a_way_of_its_own(terminal):
    callers = [terminal.call() for _ in range(3)]
    for number, caller in enumerate(callers):
        caller.send({"number": number})
        message, _, send = terminal.heard.get(timeout=10)
        send(message, None)
    assert [caller.receive()[0]["number"] for caller in callers] == [0, 1, 2]


def test_a_page_that_goes_is_lost_and_what_is_sent_to_it_then_does_no_harm(terminal):
    caller = terminal.call()
    caller.send({"kind": "hello"})
    send = terminal.heard.get(timeout=10)[2]
    caller.close()
    assert terminal.lost.get(timeout=10) is send
    send({"kind": "output"}, b"x")


@pytest.mark.parametrize("frame", [b"", b"{", b"\xff\n", b"[" * 100_000])
def test_what_is_no_message_ends_the_page_and_nothing_else(terminal, frame):
    other, caller = terminal.call(), terminal.call()
    caller.send_frame(frame)
    assert caller.receive() is None
    other.send({"kind": "still there"})
    assert terminal.heard.get(timeout=10)[0] == {"kind": "still there"}
    assert terminal.heard.empty()


@pytest.mark.parametrize("frame", [b'{"kind": "inp', b'{"kind": "input"}\nhalf a pas'], ids=["message", "buffer"])
def test_of_a_page_that_goes_in_the_middle_of_a_frame_nothing_is_taken(terminal, frame):
    caller = terminal.call()
    caller.stream.write(LENGTH.pack(len(frame) + 1) + frame)
    caller.close()
    terminal.lost.get(timeout=10)
    assert terminal.heard.empty()


def test_out_of_descriptors_it_takes_the_page_later(monkeypatch):
    monkeypatch.setattr(terminal_wire, "PAUSE", 0.01)
    accept, failures = socket.socket.accept, [OSError(errno.EMFILE, "too many open files")] * 2

    def flaky(listener):
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", flaky)
    terminal = Terminal()
    terminal.wire.listen()
    caller = terminal.call()
    caller.send({"kind": "hello"})
    assert terminal.heard.get(timeout=10)[0] == {"kind": "hello"}
    terminal.wire.close()
    caller.close()
    wait_for_threads()


def test_a_server_that_takes_nothing_is_given_up(terminal, monkeypatch):
    monkeypatch.setattr(terminal_wire, "PATIENCE", 1)
    caller = terminal.call()
    caller.send({"kind": "hello"})
    send = terminal.heard.get(timeout=10)[2]
    send({"kind": "output"}, bytes(10_000_000))
    assert terminal.lost.get(timeout=10) is send


def test_another_user_is_not_answered(terminal, monkeypatch):
    monkeypatch.setattr(terminal_wire.os, "getuid", lambda: 12345)
    caller = terminal.call()
    assert caller.receive() is None
    assert terminal.heard.empty()
    assert terminal.lost.empty()


def test_no_page_is_taken_before_it_listens_nor_after_it_is_closed_but_pages_stay():
    terminal = Terminal()
    with pytest.raises(ConnectionRefusedError):
        terminal.call()
    terminal.wire.listen()
    terminal.wire.listen()
    caller = terminal.call()
    caller.send({"kind": "hello"})
    send = terminal.heard.get(timeout=10)[2]
    terminal.wire.close()
    terminal.wire.close()
    terminal.wire.listen()
    with pytest.raises(ConnectionRefusedError):
        terminal.call()
    send({"kind": "end"}, None)
    assert caller.receive() == ({"kind": "end"}, b"")
    caller.close()
    wait_for_threads()


def test_where_its_name_cannot_be_had_pages_do_with_the_comm(terminal):
    second = Wire(terminal.name, terminal.wire._receive, terminal.wire._lost)
    second.listen()
    terminal.call().send({"kind": "for the first"})
    assert terminal.heard.get(timeout=10)[0] == {"kind": "for the first"}
    second.close()


# With a session


class Wired:
    """A view that is on a wire, of the session of a room."""

    def __init__(self, room, name):
        self.room, self.name = room, name
        self.heard = []

    def __call__(self, message, data):
        with self.room.page.changed:
            self.heard.append((message["kind"], data))
            self.room.page.changed.notify_all()

    def say(self, kind, data=b"", **fields):
        self.room.session.receive({"kind": kind, "view": self.name, **fields}, data, wire=self)

    def hello(self, at=0, turn=0):
        self.say("hello", rows=24, cols=80, at=at, turn=turn)

    @property
    def output(self):
        return b"".join(data for kind, data in self.heard if kind == "output")


def test_a_view_is_told_things_the_way_its_last_hello_came(room):
    room.hello()
    wired = Wired(room, "v")
    wired.hello()
    room.page.messages.clear()
    room.source.outputs.put(b"one")
    room.page.wait(lambda: wired.output == b"one" or room.page.messages)
    room.say("ack", drawn=3)  # still under way by the comm
    room.source.outputs.put(b"two")
    room.page.wait(lambda: wired.output == b"onetwo" or room.page.messages)
    assert room.page.messages == []
    room.hello(at=6)
    room.source.outputs.put(b"three")
    room.page.wait(lambda: room.page.text == b"three")
    wired.say("ack", drawn=6)  # still under way by the wire
    room.source.outputs.put(b"four")
    room.page.wait(lambda: room.page.text == b"threefour")
    assert wired.output == b"onetwo"


def test_a_hello_that_was_overtaken_changes_nothing(room):
    wired = Wired(room, "v")
    wired.hello(turn=2)
    room.say("hello", rows=5, cols=5, at=0, turn=1)
    room.source.outputs.put(b"by the wire")
    room.page.wait(lambda: wired.output == b"by the wire" or room.page.messages)
    assert room.page.messages == []
    assert room.source.call() == ("open", 24, 80)
    assert room.source.calls.empty()


def test_keys_come_once_and_in_order_by_whichever_way(room):
    wired = Wired(room, "v")
    room.hello()
    room.type(b"a")
    wired.hello(turn=1)
    wired.say("input", b"c", at=2, turn=1)  # before the one that is under way by the comm
    assert wired.heard[-1] == ("who", None)
    wired.say("input", b"bc", at=1, turn=1)
    room.say("input", b"b", at=1)
    room.session.lose(wired)
    room.hello(turn=2)
    room.say("input", b"d", at=3, turn=2)
    assert room.source.call() == ("open", 24, 80)
    assert [room.source.call()[1] for _ in range(3)] == [b"a", b"bc", b"d"]
    assert room.source.calls.empty()


def test_keys_that_were_in_a_wire_when_it_was_lost_are_asked_for(room):
    wired = Wired(room, "v")
    wired.hello()
    wired.say("input", b"ab")
    room.session.lose(wired)
    room.hello(turn=1, typed=0)
    assert room.page.last("welcome")["typed"] == 2


def test_a_good_bye_by_the_way_that_is_no_longer_used_is_not_heard(room):
    wired = Wired(room, "v")
    wired.hello()
    room.hello(turn=1)
    wired.say("bye")
    room.say("ack")
    assert "who" not in room.page.kinds()


def test_what_is_for_all_goes_every_way_there_is_and_once_on_each(room):
    wires = [Wired(room, "a"), Wired(room, "b")]
    room.hello("c")
    for wired in wires:
        wired.hello()
    room.page.messages.clear()
    for wired in wires:
        wired.heard.clear()
    room.source.outputs.put(b"all")
    room.page.wait(lambda: room.page.text == b"all" and all(wired.heard for wired in wires))
    assert [wired.heard for wired in wires] == [[("output", b"all")]] * 2
    assert room.page.kinds() == ["output"]


def test_a_wire_that_is_lost_leaves_its_view_to_the_comm_with_its_place_and_its_rank(room):
    wired, leader = Wired(room, "wired"), Wired(room, "leader")
    wired.hello()
    leader.hello()
    room.source.outputs.put(b"one")
    room.page.wait(lambda: wired.output == b"one")
    room.session.lose(wired)
    room.source.outputs.put(b"two")
    room.page.wait(lambda: room.page.text == b"two")
    room.hello("wired", at=3)
    assert room.page.last("welcome")["leader"] == "leader"
    room.session.lose(wired)  # whom nobody uses any more
    assert leader.output == b"onetwo" or leader.output == b"onetwotwo", "replayed for the other"


def test_a_page_that_went_without_a_word_has_nothing_sent_by_the_comm_for_long(room, monkeypatch):
    monkeypatch.setattr("sandbox_nb.notebook.terminal_flow.LEASE", 0.2)
    gone, here = Wired(room, "gone"), Wired(room, "here")
    gone.hello()
    room.session.lose(gone)
    here.hello()
    size, piece = 10_000_000, 50_000
    for end in range(piece, size + 1, piece):
        room.source.outputs.put(bytes(piece))
        room.page.wait(lambda end=end: len(here.output) == end)
        here.say("ack", drawn=end)
    assert len(room.page.bytes) <= WINDOW + 2 * CHUNK


def test_a_view_that_said_good_bye_is_not_brought_back_by_an_older_hello(room):
    wired = Wired(room, "v")
    wired.hello(turn=5)
    wired.say("bye", turn=5)
    room.say("hello", rows=5, cols=5, at=0, turn=3)
    assert "v" not in room.session._flow.views
    room.say("hello", rows=6, cols=6, at=0, turn=6)
    assert [room.source.call() for _ in range(2)] == [("open", 24, 80), ("resize", 6, 6)]


def test_a_view_behind_what_is_kept_is_told_at_once(room, monkeypatch):
    monkeypatch.setattr("sandbox_nb.notebook.terminal_flow.LEASE", 0.1)
    monkeypatch.setattr("sandbox_nb.notebook.terminal_flow.PING", 60)
    wired = Wired(room, "v")
    wired.hello()
    for _ in range(100):
        room.source.outputs.put(bytes(65536))
    room.page.wait(lambda: len(wired.output) >= WINDOW - CHUNK and room.source.outputs.empty(), timeout=30)
    wired.say("ack", drawn=len(wired.output))
    room.page.wait(lambda: ("output", b"") in wired.heard)


def test_a_page_that_went_has_nothing_sent_by_the_comm_and_keeps_no_thread(room, monkeypatch):
    monkeypatch.setattr("sandbox_nb.notebook.terminal_flow.LEASE", 0.1)
    gone, here = Wired(room, "gone"), Wired(room, "here")
    gone.hello()
    here.hello()
    room.session.lose(gone)
    room.page.wait(lambda: "gone" not in room.session._flow.views)
    room.page.messages.clear()
    room.source.outputs.put(b"for one")
    room.page.wait(lambda: here.output == b"for one")
    here.say("ack", drawn=7)
    room.source.outputs.put(b"")
    assert room.ended.wait(10)
    wait_for_threads()
    assert [message["kind"] for message in room.page.messages if message["kind"] != "end"] == []


def test_a_flood_waits_for_a_view_whose_wire_is_lost(room):
    wired = Wired(room, "v")
    wired.hello()
    room.session.lose(wired)
    for _ in range(100):
        room.source.outputs.put(bytes(65536))
    room.page.wait(lambda: len(room.page.bytes) == WINDOW)
    room.hello(at=0)
    assert room.page.last("welcome")["at"] == 0


def test_a_view_that_takes_nothing_is_left_behind_and_asks_for_the_rest_when_it_does(room, monkeypatch):
    monkeypatch.setattr("sandbox_nb.notebook.terminal_flow.LEASE", 0.2)
    silent = Wired(room, "silent")
    silent.hello()
    room.acknowledges = True
    room.hello("later")
    size = 10_000_000
    for _ in range(0, size, 50_000):
        room.source.outputs.put(bytes(50_000))
    room.page.wait(lambda: len(room.page.bytes) == size, timeout=60)
    assert WINDOW <= len(silent.output) <= WINDOW + 2 * CHUNK
    silent.heard.clear()
    silent.hello(at=size - 100)
    room.page.wait(lambda: silent.output == bytes(100))


def test_a_stranger_on_a_wire_is_asked_there_who_it_is(room):
    wired = Wired(room, "stranger")
    wired.say("ack")
    assert wired.heard == [("who", None)]
    assert room.page.messages == []


def test_the_end_reaches_a_page_that_has_said_good_bye_for_now(room):
    wired = Wired(room, "hidden")
    wired.hello()
    wired.say("bye")
    room.source.outputs.put(b"")
    assert room.ended.wait(10)
    assert room.page.kinds() == ["end"]
