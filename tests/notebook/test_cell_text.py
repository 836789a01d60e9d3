"""What programs write for a terminal, as a cell's text; a page is played by what JupyterLab does with it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_nb.notebook.cell_text import CellText
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
    ],
)
def test_it_looks_as_in_a_terminal(pieces, says):
    assert shown(*pieces) == says


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["ab", "\r", "\n", "\r\n", "\b", "\x1b[K", "\x1b[2K", "\x1b[31m", "\x1b[0m", "ü", " x"])
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


def test_a_megabyte_of_progress_is_one_line():
    text = CellText()
    pieces = "".join(f"\r{n / 1000:7.3f} %" for n in range(100_001))
    assert page(text.feed(pieces)) == "100.000 %".rjust(9)
    assert len(text.feed("\r")) == 0
