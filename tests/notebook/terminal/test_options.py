"""A terminal's options, when it is made and later."""

from __future__ import annotations

import pytest

from sandbox_nb import InvalidArgument
from sandbox_nb.notebook.terminal import Terminal

from .room import Source


@pytest.mark.parametrize(
    ("name", "value"),
    [("height", 0), ("font_size", 3), ("scrollback", -1), ("readonly", "no"), ("renderer", "crt")],
)
def test_a_value_out_of_range_is_refused_at_once_and_later(name, value):
    with pytest.raises(InvalidArgument, match=name):
        Terminal(Source(), **{name: value})
    terminal = Terminal(Source())
    before = getattr(terminal, name)
    with pytest.raises(InvalidArgument, match=name):
        setattr(terminal, name, value)
    assert getattr(terminal, name) == before
    terminal.close()
