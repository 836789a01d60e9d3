"""What programs write for a terminal, as a cell's text; a page is played by what JupyterLab does with it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_nb.notebook import cell_output
from sandbox_nb.notebook.cell_text import LONGEST, WIDEST, CellText
from sandbox_nb.notebook.spool import SpoolFolder
from sandbox_nb.notebook.terminal_transcript import transcript


def page(text: str) -> str:
    """What a page makes of a cell's text: a carriage return goes to the beginning of the line, and overwrites."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return "\n".join(lines)


def shown(*pieces: str) -> str:
    text = CellText()
    return page("".join(text.feed(piece) for piece in pieces))


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        (["a\nb\n"], "a\nb\n"),
        (["a\r\nb\r", "\nc"], "a\nb\nc"),
        (["abc\rx"], "xbc"),
        (["10%\r", "20%\r", "done\n"], "done\n"),
        (["a long line\r\x1b[Kshort\n"], "short\n"),
        (["a long line\r", "\x1b[K", "short"], "short"),
        (["ab\b\bx"], "xb"),
        (["one\x1b[2K\rtwo"], "two"),
        (["1\x1b[", "1mbold\x1b[0m"], "1\x1b[1mbold\x1b[0m"),
        (["\x1b]0;title\x07text"], "text"),
        (["tab\there"], "tab\there"),
        (["\x1b[31mred 10%\x1b[0m\r", "\x1b[31mred\x1b[0m\x1b[K\n"], "\x1b[0;31mred\x1b[0m\n"),
        (["[####    ]\r[########]"], "[########]"),
        (["bell\x07"], "bell"),
        (["\x1b]0;a ", "title\x07text"], "text"),
        (["\x1b]0;a ", "long ", "title\x1b", "\\text"], "text"),
        (["\x1bPq#0;", "1\x1b\\text"], "text"),
        (["\x1b]0;no end", "\ntext"], "\ntext"),
        (["\x1b]0;broken off", "\x18text"], "text"),
        (["\x1b(", "Btext"], "text"),
    ],
)
def test_it_looks_as_in_a_terminal(pieces, says):
    assert shown(*pieces) == says


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["ab", "\r", "\n", "\r\n", "\b", "\x1b[K", "\x1b[2K", "\x1b[31m", "\x1b[0m", "ü", " x"])
        | st.sampled_from(["\x1b]0;title\x07", "\x1b]8;;link\x1b\\", "\x1bPq#0\x1b\\", "\x1b(B"])
    ),
    st.data(),
)
def test_however_it_is_cut_it_shows_what_a_terminal_does(tokens, data):
    whole = "".join(tokens)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = "\n".join(transcript(whole.replace("\n", "\r\n").encode(), 1000, 200))
    assert plain(shown(*pieces)).rstrip() == plain(expected).rstrip()


def test_text_that_is_only_added_is_not_written_again():
    text = CellText()
    assert [text.feed(piece) for piece in ("a", "b", "\nc", "d")] == ["a", "b", "\nc", "d"]
    assert not text.redrew


def test_a_redrawn_line_is_said_to_be_one():
    text = CellText()
    text.feed("10%")
    assert not text.redrew
    text.feed("\r20%")
    assert text.redrew


def test_of_a_string_that_does_not_end_next_to_nothing_is_kept():
    text = CellText()
    assert [text.feed(piece) for piece in ("\x1b]52;c;", *["x" * 1000] * 100)] == [""] * 101
    assert len(text._held) <= 3
    assert text.feed("\x07seen") == "seen"


def test_a_megabyte_of_progress_is_one_line():
    text = CellText()
    pieces = "".join(f"\r{n / 1000:7.3f} %" for n in range(100_001))
    assert page(text.feed(pieces)) == "100.000 %".rjust(9)
    assert len(text.feed("\r")) == 0


@pytest.mark.parametrize("piece", ["\v" * 1000, "\b" + "x" * 1000, "\x1b[9999C\x1bD" * 100])
def test_of_a_line_that_never_ends_no_more_than_its_end_is_kept(piece):
    text = CellText()
    for _ in range(100):
        text.feed(piece)
    assert len(text._shown) <= LONGEST + WIDEST
    assert len(text._screen._lines) <= LONGEST // WIDEST + 1


def test_a_parameter_of_more_digits_than_python_takes_is_only_a_large_one():
    assert shown(f"ab\x1b[{'9' * 5000}Dx") == "xb"


def test_what_cannot_be_drawn_is_shown_as_it_is_and_ends_no_command(monkeypatch, capsys):
    def fail(text, piece):
        raise ValueError("a sequence nobody thought of")

    monkeypatch.setattr(CellText, "feed", fail)
    output = cell_output.CellOutput(SpoolFolder().pair())
    output(1, b"one\n")
    output(1, b"two\n")
    output.finish()
    assert capsys.readouterr().out == "one\ntwo\n"
    assert output.spools[1].read() == b"one\ntwo\n"
