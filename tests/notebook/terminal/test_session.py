"""A session between a source made of queues and a page made of a list."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from sandbox_nb.notebook import terminal_session
from sandbox_nb.notebook.terminal_flow import KEEP, WINDOW

from .room import Room, wait_for_threads


def test_the_source_begins_with_the_size_of_the_first_view(room):
    assert room.source.calls.empty()
    room.hello(rows=31, cols=97)
    assert room.source.call() == ("open", 31, 97)
    assert room.page.last("welcome") == {
        "kind": "welcome", "view": "v", "turn": 0, "at": 0, "typed": 0, "answered": 0,
        "rows": 31, "cols": 97, "leader": "v",
    }  # fmt: skip


def test_what_was_typed_before_there_was_a_view_comes_after_the_beginning(room):
    room.session.write(b"early")
    room.hello()
    assert [room.source.call() for _ in range(2)] == [("open", 24, 80), ("write", b"early")]


def test_output_reaches_the_page_and_input_the_source(room):
    room.hello()
    room.source.outputs.put(b"$ ")
    room.page.wait(lambda: room.page.text == b"$ ")
    room.type(b"ls\r")
    assert room.source.call()[0] == "open"
    assert room.source.call() == ("write", b"ls\r")


def test_sizes_follow_the_leader_and_reach_every_view(room):
    room.hello("a", 10, 40)
    room.hello("b", 20, 80)
    assert [room.source.call() for _ in range(2)] == [("open", 10, 40), ("resize", 20, 80)]
    room.say("size", view="a", rows=11, cols=41)
    room.say("focus", view="a")
    assert room.source.call() == ("resize", 11, 41)
    assert room.page.last("size") == {"kind": "size", "rows": 11, "cols": 41, "leader": "a"}
    room.type(b"x", "b")
    assert sorted(room.source.call()[0] for _ in range(2)) == ["resize", "write"]
    assert room.page.last("size")["leader"] == "b"


def test_a_size_of_one_by_one_is_taken_and_a_mad_one_bounded(room):
    room.hello(rows=1, cols=1)
    assert room.source.call() == ("open", 1, 1)
    room.say("size", rows=-5, cols=10**9)
    assert room.source.call() == ("resize", 1, terminal_session.LARGEST)


NONSENSE = [
    {},
    [],
    None,
    "hello",
    {"kind": "hello"},
    {"kind": "hello", "view": "v", "rows": "many"},
    {"kind": "hello", "view": "v", "at": None},
    {"kind": "size", "view": "v", "rows": float("inf")},
    {"kind": "dance", "view": "v"},
]


@pytest.mark.parametrize("message", NONSENSE)
def test_a_message_that_makes_no_sense_changes_nothing(room, message):
    room.session.receive(message, b"")
    assert room.source.calls.empty()


def test_a_view_nobody_knows_is_asked_who_it_is(room):
    room.hello("a")
    room.say("focus", view="stranger")
    assert room.page.last("who") == {"kind": "who", "view": "stranger"}


def test_keys_of_a_view_that_may_only_look_are_dropped(room):
    room.hello()
    room.session.receive({"kind": "input", "view": "v"}, b"rm -rf /\r", readonly=True)
    room.session.write(b"from Python")
    assert [room.source.call() for _ in range(2)] == [("open", 24, 80), ("write", b"from Python")]


def test_output_is_not_read_while_a_megabyte_is_unacknowledged(room):
    room.hello()
    piece = b"x" * 65536
    for _ in range(40):
        room.source.outputs.put(piece)
    room.page.wait(lambda: len(room.page.bytes) == WINDOW)
    time.sleep(0.2)
    reads = room.source.reads
    assert reads == WINDOW // len(piece)
    room.say("ack", drawn=len(piece))
    room.page.wait(lambda: len(room.page.bytes) == WINDOW + len(piece))
    assert room.source.reads <= reads + 2


def test_without_a_view_the_program_runs_on_and_memory_is_bounded(room):
    room.hello()
    room.say("bye")
    piece = bytes(65536)
    for _ in range(100):
        room.source.outputs.put(piece)
    deadline = time.monotonic() + 10
    while not room.source.outputs.empty() and time.monotonic() < deadline:
        time.sleep(0.01)
    room.source.outputs.put(b"\nlast")
    room.acknowledges = True
    room.hello("later")
    room.page.wait(lambda: room.page.text.endswith(b"last"))
    assert len(room.page.bytes) <= KEEP + len("\nlast"), "which may have come after hello"
    assert len(room.session.tail()[0]) <= KEEP


def test_what_was_sent_is_replayed_and_marked_as_answered(room):
    room.hello()
    room.source.outputs.put(b"question?")
    room.page.wait(lambda: room.page.text == b"question?")
    room.say("ack", drawn=9)
    room.page.bytes.clear()
    room.hello("reloaded")
    room.page.wait(lambda: room.page.text == b"question?")
    assert room.page.last("welcome")["answered"] == 9


def test_a_view_that_says_nothing_is_asked(room, monkeypatch):
    monkeypatch.setattr("sandbox_nb.notebook.terminal_flow.PING", 0.1)
    room.hello()
    room.source.outputs.put(b"lost on the way")
    room.page.wait(lambda: "sync" in room.page.kinds())
    assert room.page.last("sync")["at"] == 15


def test_the_end_is_told_with_its_reason_also_to_views_that_come_later(room):
    room.hello()
    room.source.outputs.put(b"bye\r\n")
    room.source.outputs.put(b"")
    assert room.ended.wait(10)
    assert room.page.last("end") == {"kind": "end", "at": 5, "ending": "the test said so"}
    assert room.session.ending == "the test said so"
    room.page.messages.clear()
    room.hello("later")
    room.page.wait(lambda: "end" in room.page.kinds())


@pytest.mark.parametrize("where", ["open", "read", "write", "resize"])
def test_a_source_that_raises_ends_the_terminal_with_its_message_and_one_line_in_the_log(where, caplog):
    room = Room()

    def fail(*_):
        raise RuntimeError("the cable is cut")

    if where == "read":
        room.source.outputs.put(RuntimeError("the cable is cut"))
    else:
        setattr(room.source, where, fail)
    with caplog.at_level(logging.INFO):
        room.hello()
        room.type(b"x")
        room.say("size", rows=5, cols=5)
        assert room.ended.wait(10)
    assert room.session.ending == "the cable is cut"
    assert room.source.closed.is_set()
    assert [record.getMessage() for record in caplog.records] == ["terminal: RuntimeError: the cable is cut"]
    assert not caplog.records[0].exc_info


def test_an_error_after_the_end_and_one_of_many_lines_make_no_noise(caplog):
    room = Room()
    room.source.outputs.put(RuntimeError("the cable is cut\nand\nfurther details"))
    hold = threading.Event()

    def write(data):
        hold.wait(10)
        raise BrokenPipeError("nobody takes it")

    room.source.write = write
    with caplog.at_level(logging.INFO):
        room.session.write(b"x")
        room.hello()
        assert room.ended.wait(10)
        hold.set()
        wait_for_threads()
    assert room.session.ending == "the cable is cut"
    assert [record.getMessage() for record in caplog.records] == ["terminal: RuntimeError: the cable is cut"]


def test_the_threads_end_when_the_views_have_all_there_was_and_a_late_view_gets_it_too():
    room = Room()
    room.hello()
    room.source.outputs.put(b"all of it")
    room.source.outputs.put(b"")
    assert room.ended.wait(10)
    room.page.wait(lambda: room.page.text == b"all of it")
    room.say("ack", drawn=9)
    wait_for_threads()
    room.page.bytes.clear()
    room.hello("later")
    room.page.wait(lambda: room.page.text == b"all of it")
    room.say("ack", view="later", drawn=9)
    wait_for_threads()


def test_the_threads_end_also_when_a_page_went_without_a_word(monkeypatch):
    monkeypatch.setattr("sandbox_nb.notebook.terminal_flow.FORGET", 0.1)
    room = Room()
    room.hello()
    room.source.outputs.put(b"for nobody")
    room.source.outputs.put(b"")
    assert room.ended.wait(10)
    wait_for_threads()


def test_what_a_view_typed_and_nobody_took_is_asked_for(room):
    room.hello(typed=3)
    room.say("input", b"def", at=6)
    assert room.page.kinds()[-1] == "who"
    room.hello(typed=3)
    assert room.page.last("welcome")["typed"] == 3
    room.say("input", b"abcdef", at=3)
    room.say("input", b"def", at=6)
    assert [room.source.call() for _ in range(2)] == [("open", 24, 80), ("write", b"abcdef")]
    assert room.source.calls.empty()


def test_views_hear_with_the_output_how_far_what_they_typed_was_taken(room):
    room.hello()
    room.type(b"ls\r")
    room.source.outputs.put(b"ls")
    room.page.wait(lambda: room.page.text == b"ls")
    assert room.page.last("output")["typed"] == {"v": 3}


def test_what_was_said_before_the_last_hello_and_comes_late_changes_nothing(room):
    room.hello("other", rows=10, cols=40)
    room.hello("v", rows=20, cols=80, turn=2)
    room.hello("other", rows=10, cols=40, turn=1)
    room.say("focus", view="other", turn=1)
    for kind in ("size", "focus", "bye"):
        room.say(kind, turn=1, rows=5, cols=5)
    assert [room.source.call() for _ in range(3)] == [("open", 10, 40), ("resize", 20, 80), ("resize", 10, 40)]
    assert room.source.calls.empty()
    assert "who" not in room.page.kinds()
    room.say("ack", turn=2)
    assert "who" not in room.page.kinds()


def test_close_ends_everything_and_may_be_called_again():
    room = Room()
    room.hello()
    room.session.close()
    room.session.close()
    assert room.ended.wait(10)
    wait_for_threads()


def test_a_session_closed_before_it_began_has_ended(caplog):
    room = Room()
    room.session.close()
    assert room.ended.wait(10)
    room.hello()
    assert room.source.calls.empty()
    assert room.page.last("end")["ending"] == "closed"


def test_input_beyond_what_is_kept_is_dropped_with_a_line_in_the_log(room, caplog):
    room.hello()
    assert room.source.call()[0] == "open"
    hold = threading.Event()
    room.source.write = lambda data: hold.wait(10)
    room.session.write(b"x" * terminal_session.INPUT_LIMIT)
    room.session.write(b"one too many")
    hold.set()
    assert "input dropped" in caplog.text


def test_a_recording_has_what_came_before_and_after_and_ends_with_the_session(room, tmp_path):
    room.hello(rows=10, cols=40)
    room.source.outputs.put(b"before ")
    room.page.wait(lambda: room.page.text == b"before ")
    room.session.record(tmp_path / "x.cast", 24, 80)
    room.source.outputs.put(b"after")
    room.page.wait(lambda: room.page.text == b"before after")
    room.say("size", rows=11, cols=41)
    room.session.close()
    assert room.ended.wait(10)
    text = (tmp_path / "x.cast").read_text()
    assert '"width": 40, "height": 10' in text
    assert [line.partition(", ")[2] for line in text.splitlines()[1:]] == [
        '"o", "before "]', '"o", "after"]', '"r", "41x11"]',
    ]  # fmt: skip


def test_a_recording_that_cannot_go_on_ends_and_the_terminal_does_not(room, tmp_path, caplog):
    room.hello()
    room.session.record(tmp_path / "x.cast", 24, 80)
    room.session._cast._file.close()
    room.session._cast._file = open("/dev/full", "w", buffering=1)  # noqa: SIM115 - the session closes it
    for piece in (b"one ", b"two"):
        room.source.outputs.put(piece)
    room.page.wait(lambda: room.page.text == b"one two")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("terminal: the recording ends here: ")


def test_a_recording_of_what_has_ended_has_what_is_kept(tmp_path):
    room = Room()
    room.hello()
    room.source.outputs.put(b"all")
    room.source.outputs.put(b"")
    assert room.ended.wait(10)
    room.session.record(tmp_path / "x.cast", 24, 80)
    room.session.close()
    assert '"o", "all"]' in (tmp_path / "x.cast").read_text()
