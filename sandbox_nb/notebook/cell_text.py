"""What a program writes for a terminal, as the text of a cell that looks the same.

A notebook's page knows colours (SGR), line feeds and, in a simple way, carriage returns: what follows one
overwrites as many characters as it has, those of its colours among them. Everything else that redraws a line, as
progress bars do, is carried out here, and the line written anew.
"""

from __future__ import annotations

import re

from sandbox_nb.notebook.terminal_transcript import Screen

WIDEST = 4096
"""Columns of a line that is redrawn."""

MOST = 16 * 1024
"""Characters of a redrawn line that are looked at, the last ones: what came before them is overwritten."""

LONGEST = 64 * 1024
"""Characters of a redrawn line that are kept, the last ones: a program may never end it."""

# What a page does not show as it is: controls but tab, escape sequences but SGR.
_REDRAWS = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]|\x1b(?!\[[0-9;:]*m)")
# What may be the beginning of a sequence, or of CR LF, the rest of which is still to come. A string, such as a
# title (OSC) or a picture (DCS), ends with its line at the latest.
_UNFINISHED = re.compile(r"(?:\r|\x1b(?:\[[0-?]*)?[ -/]*|(?P<string>\x1b[\]PX^_])[^\x07\x18\x1a\x1b\n]*\x1b?)\Z")


class CellText:
    """Turns pieces of a program's output into what is to be written to the cell."""

    def __init__(self) -> None:
        self.redrew = False
        """Whether the last piece only changed the line that was there."""
        self._held = ""
        self._shown = ""
        self._screen: Screen | None = None

    def feed(self, text: str) -> str:
        """What to write for ``text``."""
        text = self._held + text
        if unfinished := _UNFINISHED.search(text):
            text = text[: unfinished.start()]
        self._held = _begun(unfinished)
        *lines, rest = text.replace("\r\n", "\n").split("\n")
        written = []
        for line in lines:
            written.append(self._update(line) + "\n")
            self._shown, self._screen = "", None
        written.append(self._update(rest))
        self.redrew = not lines and written[0].startswith("\r")
        return "".join(written)

    def _update(self, text: str) -> str:
        """What makes the current line show ``text`` too."""
        if self._screen is None:
            if not _REDRAWS.search(text):
                self._shown += text
                return text
            self._screen = Screen(1, WIDEST, kept=LONGEST // WIDEST)
            self._screen.feed(self._shown)
        if len(text) > MOST:
            text = text[max(0, text.find("\r", len(text) - MOST)) :]
        self._screen.feed(text)
        line = "".join(self._screen.lines()[-1:])
        if line.startswith(self._shown):
            written = line[len(self._shown) :]
            self._shown = line
            return written
        self._shown = line.ljust(len(self._shown))
        return "\r" + self._shown


def _begun(unfinished: re.Match[str] | None) -> str:
    """What is to be looked at again; of a string, however long, its first two characters and its last one."""
    if unfinished is None:
        return ""
    if unfinished["string"] is None:
        return unfinished[0]
    return unfinished["string"] + unfinished[0][2:][-1:]
