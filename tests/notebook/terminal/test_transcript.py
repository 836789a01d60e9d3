"""What a terminal showed, as lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_nb.notebook.terminal_transcript import MAX_MARKS, Screen, transcript


def lines(data, rows=5, columns=20):
    return transcript(data if isinstance(data, bytes) else data.encode(), rows, columns)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("progress 10%\rprogress 99%", ["progress 99%"]),
        ("typo\b\b\b\b\x1b[Kright", ["right"]),
        ("abc\x1b[2Dx", ["axc"]),
        ("a\tb", ["a       b"]),
        ("abcdef\x1b[3G\x1b[2Pz", ["abzf"]),
        ("abcdef\x1b[3G\x1b[2@", ["ab  cdef"]),
        ("abcdef\x1b[3G\x1b[2X", ["ab  ef"]),
        ("one\r\ntwo\r\nthree\x1b[2A\x1b[1G\x1b[1L", ["", "one", "two", "three"]),
        ("one\r\ntwo\r\nthree\x1b[2A\x1b[1M", ["two", "three"]),
        ("one\x1b7\r\ntwo\x1b8!", ["one!", "two"]),
        ("one\r\ntwo\x1b[H\x1b[Jnew", ["new"]),
        ("one\r\ntwo\x1b[2J\x1b[Hnew", ["new"]),
        ("x" * 45, ["x" * 45]),
        ("世界" * 6, ["世界" * 6]),
        ("e\u0301", ["e\u0301"]),
        ("\x1b]0;title\x07text", ["text"]),
        ("\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\", ["link"]),
        ("\x1b[?25l\x1b[>c\x1b[6nquiet", ["quiet"]),
        ("before\r\n\x1b[?1049h\x1b[Hfull screen\x1b[?1049lafter", ["before", "after"]),
        ("unfinished \x1b[3", ["unfinished"]),
        ("unfinished \x1b[3 ", ["unfinished"]),
        ("unfinished \x1b(", ["unfinished"]),
        ("unfinished \x1b]0;title", ["unfinished"]),
        ("unfinished \x1b]0;title\x1b[4Dand given up", ["unfinisand given up"]),
        ("huge \x1b[" + "9" * 5000 + "Dx", ["xuge"]),
        ("none \x1b[" + "0" * 5000 + "Dx", ["nonex"]),
        ("one\r\ntwo\x1b[" + "9" * 5000 + "Hx", ["one", "two", "", "", "x"]),
        ("private \x1b[3?1mx", ["private x"]),
        ("", []),
        ("\r\n\r\n", []),
    ],
)
def test_it_reads_as_it_looked(sent, shown):
    assert lines(sent) == shown


def test_what_scrolled_out_is_there():
    assert lines("".join(f"{n}\r\n" for n in range(100))) == [str(n) for n in range(100)]


def test_colours_are_kept_and_end_with_the_line():
    assert lines("\x1b[31mred\x1b[0m plain") == ["\x1b[0;31mred\x1b[0m plain"]
    assert lines("\x1b[1;38;5;208mx\r\ny") == ["\x1b[0;1;38;5;208mx\x1b[0m", "\x1b[0;1;38;5;208my\x1b[0m"]
    assert lines("\x1b[48;2;1;2;3mx\x1b[49my") == ["\x1b[0;48;2;1;2;3mx\x1b[0my"]
    assert lines("\x1b[1;4mx\x1b[22;24my") == ["\x1b[0;1;4mx\x1b[0my"]


@pytest.mark.parametrize("shift", ["\x1b[J", "\x1b[5M", "\x1b[5L", "\x1bM" * 5])
def test_what_scrolled_out_is_not_drawn_over(shift):
    before = "".join(f"{n}\r\n" for n in range(10))
    frames = "".join(f"\x1b[H{shift}frame {n}\r\nline\r\nend" for n in range(10))
    assert lines(before + frames) == ["0", "1", "2", "3", "4", "5", "frame 9", "line", "end"]


def test_no_more_is_kept_above_the_screen_than_was_asked_for():
    screen = Screen(2, 20, kept=3)
    screen.feed("".join(f"{n}\r\n" for n in range(100)) + "\x1b[Hfirst")
    assert screen.lines() == ["96", "97", "98", "first"]


def test_a_screen_drawn_anew_a_hundred_times_is_one_screen():
    frames = "".join(f"\x1b[Hframe {n}\x1b[K\r\nline\x1b[K" for n in range(100))
    assert lines(frames) == ["frame 99", "line"]


def test_the_rows_of_a_full_screen_program_that_runs_are_shown():
    assert lines("shell\r\n\x1b[?1049h\x1b[2;3Hhere") == ["", "  here"]


@given(st.binary(max_size=300), st.integers(1, 6), st.integers(1, 12))
def test_no_bytes_and_no_size_break_it(data, rows, columns):
    lines(data, rows, columns)


SEQUENCES = [*"a世1;HJKALMP@hl\n\r\b\t", "\x1b[", "?1049", "3J", "\x1b7", "\x1b8", "\x1bM", "\x1bc"]


@given(st.lists(st.sampled_from(SEQUENCES), max_size=60), st.integers(1, 4), st.integers(1, 6))
def test_no_order_of_sequences_breaks_it(parts, rows, columns):
    lines("".join(parts), rows, columns)


NOISE = st.one_of(
    st.binary(max_size=40).map(lambda data: data.decode(errors="replace")),
    st.sampled_from(SEQUENCES),
    st.builds(
        lambda part, many, final: f"\x1b[{part * many}{final}",
        st.sampled_from(["0", "9", ";", "38;"]),
        st.integers(1, 5000),
        st.sampled_from(["", *"ABCDHLMPX@JKmsu"]),
    ),
    st.integers(1, 200).map(lambda many: "\u0301" * many),
)


@given(st.lists(NOISE, max_size=60), st.integers(1, 50), st.integers(1, 100), st.integers(0, 5))
def test_whatever_is_fed_a_screen_takes_it_and_stays_small(parts, rows, columns, kept):
    screen = Screen(rows, columns, kept=kept)
    for part in parts:
        screen.feed(part)
        assert len(screen._lines) <= kept + rows
        for line in screen._lines:
            assert len(line.cells) <= columns + 1  # a wide character on a screen of one column
            assert all(len(char) <= 1 + MAX_MARKS and len(style.sgr()) < 500 for char, style in line.cells)
    screen.lines()


def test_lines_put_in_push_those_at_the_screens_end_out():
    screen = Screen(24, 80)
    screen.feed("\x1b[24L" * 1000)
    assert len(screen._lines) <= 24
