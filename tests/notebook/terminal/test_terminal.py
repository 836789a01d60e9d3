"""A terminal as an object, with no page to see it."""

from __future__ import annotations

import subprocess
import sys

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


IN_A_SCRIPT = """
from sandbox_nb.notebook.terminal import Terminal
from sandbox_nb.notebook.terminal_source import LocalPty
Terminal(LocalPty(["true"])).begin().wait(60)
print("done")
"""


def test_in_a_script_it_shows_nothing():
    done = subprocess.run([sys.executable, "-c", IN_A_SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"
