"""What a terminal showed, as lines of text: for readers who have no kernel and no xterm.js.

A small terminal emulator (ECMA-48 and the parts of xterm's control sequences that move the cursor or erase), so
that line editing, progress bars and redrawn screens read as they looked. Colours are kept as SGR sequences, which
JupyterLab, Notebook, nbconvert and so nbviewer and GitHub show in plain text outputs. What a full-screen program
drew on the alternate screen is gone when it has ended, as in the terminal.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from dataclasses import dataclass, field, replace

LARGEST = 9999
"""What a parameter of a sequence counts for at most; more than any screen has rows or columns."""

MAX_PARAMETERS = 32
"""Parameters of a sequence that are looked at, as many as in xterm.js."""

MAX_MARKS = 30
"""Combining marks on a character, as many as in Unicode's stream-safe text (UAX #15)."""

# Longest first, and finals may be missing: an unfinished sequence must not be taken for text.
_TOKENS = re.compile(
    r"\x1b\[(?P<parameters>[0-?]*)[ -/]*(?P<final>[@-~])?"
    r"|\x1b[\]PX^_][^\x07\x18\x1a\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b(?P<escape>[ -/]*[0-~]?)"
    r"|(?P<control>[\x00-\x1f\x7f])"
    r"|(?P<text>[^\x00-\x1f\x7f]+)"
)

_RESET = "\x1b[0m"


@dataclass(frozen=True)
class Style:
    """How a character looks; the colours are SGR parameters, such as ``31`` or ``38;5;208``."""

    flags: frozenset[str] = frozenset()
    foreground: str = ""
    background: str = ""

    def sgr(self) -> str:
        parts = [*sorted(self.flags), self.foreground, self.background]
        return f"\x1b[{';'.join(['0', *filter(None, parts)])}m"


PLAIN = Style()

# SGR parameters that take back others.
_UNSET = {"22": {"1", "2"}, "23": {"3"}, "24": {"4"}, "27": {"7"}, "28": {"8"}, "29": {"9"}}


@dataclass(slots=True)
class Line:
    """A row of the screen. ``wrapped``: its text goes on in the next one."""

    cells: list[tuple[str, Style]] = field(default_factory=list)
    wrapped: bool = False

    def put(self, column: int, char: str, style: Style) -> None:
        blanks = column + 1 - len(self.cells)
        self.cells.extend([(" ", PLAIN)] * blanks)
        self.cells[column] = (char, style)


class Screen:
    """A terminal of ``rows`` by ``columns`` that keeps the last ``kept`` lines which scrolled out at its top."""

    def __init__(self, rows: int, columns: int, *, kept: int = sys.maxsize) -> None:
        self._rows = rows
        self._columns = columns
        self._kept = kept
        self._lines = [Line()]
        # The index of the screen's first line; lines at the screen's end that are blank may be missing.
        self._top = 0
        self._main: tuple[list[Line], int] | None = None
        self._row = 0
        self._column = 0
        self._style = PLAIN
        self._saved = (0, 0, PLAIN)

    def feed(self, text: str) -> None:
        """Show ``text``, control sequences included. What is not understood is left out."""
        for token in _TOKENS.finditer(text):
            if run := token["text"]:
                self._print(run)
            elif control := token["control"]:
                self._control(control)
            elif final := token["final"]:
                self._sequence(token["parameters"], final)
            elif escape := token["escape"]:
                self._escape(escape)

    def lines(self) -> list[str]:
        """What is there now, lines that were too long for the screen as one, without the blank ones at the end."""
        joined: list[list[tuple[str, Style]]] = []
        goes_on = False
        for line in self._lines:
            if goes_on:
                joined[-1].extend(line.cells)
            else:
                joined.append(list(line.cells))
            goes_on = line.wrapped
        lines = [_render(cells) for cells in joined]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    # Characters

    def _print(self, text: str) -> None:
        for char in text:
            if unicodedata.combining(char):
                self._combine(char)
                continue
            width = 2 if unicodedata.east_asian_width(char) in "WF" else 1
            if self._column + width > self._columns:
                self._line.wrapped = True
                self._column = 0
                self._down()
            self._line.put(self._column, char, self._style)
            if width == 2:
                # The second half of a wide character has no text of its own.
                self._line.put(self._column + 1, "", self._style)
            self._column += width

    def _combine(self, mark: str) -> None:
        cells = self._line.cells
        if 0 < self._column <= len(cells):
            char, style = cells[self._column - 1]
            if len(char) <= MAX_MARKS:
                cells[self._column - 1] = (char + mark, style)

    def _control(self, char: str) -> None:
        match char:
            case "\r":
                self._column = 0
            case "\n" | "\v" | "\f":
                self._down()
            case "\b":
                self._column = max(0, min(self._column, self._columns) - 1)
            case "\t":
                self._column = min(self._columns - 1, self._column // 8 * 8 + 8)

    def _escape(self, escape: str) -> None:
        match escape:
            case "7":
                self._saved = (self._row - self._top, self._column, self._style)
            case "8":
                self._restore()
            case "D":
                self._down()
            case "E":
                self._column = 0
                self._down()
            case "M":
                self._reverse()
            case "c":
                self._style = PLAIN
                self._erase_display(2)
                self._move(0, 0)

    # Sequences

    def _sequence(self, parameters: str, final: str) -> None:
        if parameters.startswith("?"):
            # DECSET and DECRST; these are the ones that change what is shown.
            if final in "hl" and set(parameters[1:].split(";")) & {"47", "1047", "1049"}:
                self._alternate(final == "h")
            return
        if set(parameters) & set("<=>?"):
            return
        if final == "m":
            self._style = _styled(self._style, parameters)
            return
        numbers = _numbers(parameters)
        first = numbers[0]
        count = max(first, 1)
        row, column = self._row - self._top, min(self._column, self._columns - 1)
        match final:
            case "A":
                self._move(row - count, column)
            case "B" | "e":
                self._move(row + count, column)
            case "C" | "a":
                self._move(row, column + count)
            case "D":
                self._move(row, column - count)
            case "E":
                self._move(row + count, 0)
            case "F":
                self._move(row - count, 0)
            case "G" | "`":
                self._move(row, count - 1)
            case "d":
                self._move(count - 1, column)
            case "H" | "f":
                self._move(count - 1, (numbers[1] if len(numbers) > 1 else 1) - 1)
            case "J":
                self._erase_display(first)
            case "K":
                self._erase_line(first)
            case "L" | "M":
                self._shift_lines(count if final == "L" else -count)
            case "@" | "P" | "X":
                self._shift_cells(final, count)
            case "s":
                self._saved = (row, column, self._style)
            case "u":
                self._restore()

    def _erase_display(self, what: int) -> None:
        if what == 0:
            self._erase_line(0)
            del self._lines[self._row + 1 :]
        elif what == 1:
            self._erase_line(1)
            for index in range(self._top, self._row):
                self._lines[index] = Line()
        elif what == 2:
            self._lines[self._top :] = [Line() for _ in self._screen]
        elif what == 3:
            self._drop(self._top)

    def _erase_line(self, what: int) -> None:
        line = self._line
        if what == 0:
            del line.cells[self._column :]
            line.wrapped = False
        elif what == 1:
            for index in range(min(self._column + 1, len(line.cells))):
                line.cells[index] = (" ", PLAIN)
        elif what == 2:
            self._lines[self._row] = Line()

    def _shift_lines(self, count: int) -> None:
        if count > 0:
            self._lines[self._row : self._row] = [Line() for _ in range(min(count, self._rows))]
            del self._lines[self._top + self._rows :]
        else:
            del self._lines[self._row : self._row - count]
            self._fill()

    def _shift_cells(self, final: str, count: int) -> None:
        cells, column = self._line.cells, self._column
        count = min(count, self._columns)
        if final == "P":
            del cells[column : column + count]
        elif final == "@":
            cells[column:column] = [(" ", PLAIN)] * count
            del cells[self._columns :]
        else:
            cells[column : column + count] = [(" ", PLAIN)] * min(count, max(0, len(cells) - column))

    def _alternate(self, on: bool) -> None:
        if on and self._main is None:
            self._saved = (self._row - self._top, self._column, self._style)
            self._main, self._lines = (self._lines, self._top), [Line()]
            self._row = self._column = self._top = 0
        elif not on and self._main is not None:
            (self._lines, self._top), self._main = self._main, None
            self._restore()

    # The cursor

    @property
    def _screen(self) -> list[Line]:
        return self._lines[self._top :]

    @property
    def _line(self) -> Line:
        return self._lines[self._row]

    def _move(self, row: int, column: int) -> None:
        self._row = self._top + min(max(row, 0), self._rows - 1)
        self._column = min(max(column, 0), self._columns - 1)
        self._fill()

    def _down(self) -> None:
        self._row += 1
        self._fill()

    def _reverse(self) -> None:
        if self._row > self._top:
            self._row -= 1
        else:
            self._shift_lines(1)

    def _restore(self) -> None:
        row, column, self._style = self._saved
        self._move(row, column)

    def _fill(self) -> None:
        """Have a line where the cursor is, and above the screen only those that are kept."""
        self._lines.extend(Line() for _ in range(self._row + 1 - len(self._lines)))
        self._top = max(self._top, len(self._lines) - self._rows)
        if self._top > self._kept:
            self._drop(self._top - self._kept)

    def _drop(self, count: int) -> None:
        """Forget the first lines of those above the screen."""
        del self._lines[:count]
        self._top -= count
        self._row -= count


def transcript(data: bytes, rows: int, columns: int) -> list[str]:
    """The lines of a terminal of this size that was sent ``data``, UTF-8, with SGR sequences for colours."""
    screen = Screen(rows, columns)
    screen.feed(data.decode(errors="replace"))
    return screen.lines()


def _numbers(parameters: str) -> list[int]:
    """The parameters of a sequence, as far as they count; 0 for one that is not said."""
    parts = re.split("[;:]", parameters, maxsplit=MAX_PARAMETERS)[:MAX_PARAMETERS]
    # Python makes no number of thousands of digits, leading zeros among them.
    return [min(int(part.lstrip("0")[: len(str(LARGEST)) + 1] or 0), LARGEST) for part in parts]


def _styled(style: Style, parameters: str) -> Style:
    """``style`` after an SGR sequence."""
    codes = [str(number) for number in _numbers(parameters)]
    while codes:
        code = codes.pop(0)
        if code == "0":
            style = PLAIN
        elif code in _UNSET:
            style = replace(style, flags=style.flags - _UNSET[code])
        elif code in {"1", "2", "3", "4", "7", "8", "9"}:
            style = replace(style, flags=style.flags | {code})
        elif code in {"38", "48"}:
            # One of 256 colours (5;n), or red, green and blue (2;r;g;b).
            size = {"5": 2, "2": 4}.get(codes[0] if codes else "", len(codes))
            colour, codes = ";".join([code, *codes[:size]]), codes[size:]
            style = replace(style, foreground=colour) if code == "38" else replace(style, background=colour)
        elif re.fullmatch("3[0-79]|9[0-7]", code):
            style = replace(style, foreground="" if code == "39" else code)
        elif re.fullmatch("4[0-79]|10[0-7]", code):
            style = replace(style, background="" if code == "49" else code)
    return style


def _render(cells: list[tuple[str, Style]]) -> str:
    """A line without the blanks at its end; a sequence only where the look changes, and none at the end of it."""
    end = len(cells)
    while end and cells[end - 1][0].isspace() and not cells[end - 1][1].background:
        end -= 1
    parts: list[str] = []
    current = PLAIN
    for char, style in cells[:end]:
        if style != current:
            parts.append(style.sgr() if style != PLAIN else _RESET)
            current = style
        parts.append(char)
    if current != PLAIN:
        parts.append(_RESET)
    return "".join(parts)
