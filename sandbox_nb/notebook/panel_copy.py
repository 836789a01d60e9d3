"""What a form says, as text to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

from sandbox_nb import config, grammar
from sandbox_nb.notebook.magics import words
from sandbox_nb.options import Options

WIDGETS = Path(__file__).parent / "widgets"


class CopyBox(anywidget.AnyWidget):
    """A text with a button that copies it; and what is the whole panel's: its style, and its end.

    When the kernel is gone, the page puts ``left`` into the document in place of the widget ``panel_id``.
    """

    _esm = WIDGETS / "copybox.js"
    _css = WIDGETS / "panel.css"

    text = traitlets.Unicode().tag(sync=True)
    panel_id = traitlets.Unicode().tag(sync=True)
    left = traitlets.Unicode().tag(sync=True)


def as_magic(options: Options, name: str) -> str:
    """A line that starts such a machine. Raises InvalidArgument for what no line can say."""
    named = [] if name == "sandbox" else ["--name", name]
    return words.escaped(["%sandbox", "start", *named, *grammar.machine_words(options)])


def as_python(options: Options, name: str) -> str:
    """Python that starts such a machine."""
    call = config.to_python(options)
    if name != "sandbox":
        call = call.replace("(", f"(name={name!r}, " if not call.endswith("()") else f"(name={name!r}", 1)
    return f"from sandbox_nb import *\n\nsb = {call}"


def as_toml(options: Options, name: str) -> str:
    """A file for ``--config``. Raises InvalidArgument for a path that is no UTF-8."""
    return config.to_toml(options) or "# nothing but the defaults\n"


def as_shell(argv: list[str]) -> str:
    """A command line, an option in each line."""
    lines: list[str] = []
    for word in argv:
        if word.startswith("-") or len(lines) < 1:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return " \\\n  ".join(lines)


RENDERINGS: dict[str, Callable[[Options, str], str]] = {
    "as magic": as_magic,
    "as Python": as_python,
    "as TOML": as_toml,
}
