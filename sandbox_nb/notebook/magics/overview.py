"""``%sandbox help``: what there is, to be read from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sandbox_nb.notebook.magics.verbs import Verb
from sandbox_nb.tools import COMMANDS

_TOP = """\
A real Linux machine in a notebook cell.

  %sandbox start                 start one
  %%sandbox run                  run the cell in it
  %sandbox terminal              open a terminal
  %sandbox stop                  stop it

Commands; %sandbox help COMMAND, or %sandbox COMMAND?, says more of each:"""

_BOTTOM = """
Which machine: --name NAME, else the current one (%sandbox use NAME), else the only one.
Values of Python variables go in by {name}, in lines and not in cells. --debug shows tracebacks.
Defaults are set as for any magic: %config SandboxMagics.memory = 512, or c.SandboxMagics.memory in a profile."""


def overview(groups: Mapping[str, Sequence[Verb]]) -> str:
    """All commands with a line each, in their groups."""
    rows = {title: [(verb.typed, verb.summary) for verb in verbs] for title, verbs in groups.items()}
    rows["the host"] = [(f"%sandbox {name}", f"{text}.".capitalize()) for name, (text, _) in COMMANDS.items()]
    lines = [_TOP]
    for title, commands in rows.items():
        lines += ["", f"  {title}"]
        lines += [f"    {typed:20} {summary}" for typed, summary in commands]
    return "\n".join([*lines, _BOTTOM])
