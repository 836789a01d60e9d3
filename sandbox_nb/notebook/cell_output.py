"""The output of a command in a cell, within what a notebook server takes, and nothing lost.

A server drops what exceeds 1000 messages or 1 MB of stream output a second (over three), and a page with megabytes
in one cell is slow for ever. So of long output the head is shown as it comes and the tail at the end; all of it is
kept, long output in a file that the cell names.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from IPython.display import DisplayHandle, display

from sandbox_nb.notebook.cell_text import CellText
from sandbox_nb.notebook.progress import Text
from sandbox_nb.notebook.spool import IN_MEMORY, Spool, SpoolFolder

HEAD = 64 * 1024
"""Characters of a stream that are shown as they come."""

TAIL = IN_MEMORY - HEAD
"""Bytes of a long stream that are shown at its end."""

INTERVAL = 0.02
"""Seconds between two messages: 50 a second. A program that writes faster has its pieces joined."""

REDRAW_INTERVALS = (0.1, 1.0)
"""Seconds between two redrawn lines, the first 200 and later. They do not count as output shown."""

NOTICE_INTERVAL = 0.5
"""Seconds between two words on how much there is."""

_RESET = "\x1b[0m"

logger = logging.getLogger(__name__)

_ECHOED = SpoolFolder()
"""Keeps what ``Sandbox.run`` echoes in cells."""


class CellOutput:
    """A sink for ``Sandbox.run`` that keeps output in ``spools`` and, when ``shown``, shows it in the cell."""

    def __init__(self, spools: dict[int, Spool], *, shown: bool = True) -> None:
        self.spools = spools
        self._shown: dict[int, _Stream] = {}
        if shown:
            self._shown = {number: _Stream(number, spool) for number, spool in spools.items()}

    def __call__(self, number: int, data: bytes) -> None:
        """Take a piece of output. Slow on purpose when pieces come faster than the page can show them."""
        self.spools[number].write(data)
        if number in self._shown:
            self._shown[number].show(data)

    def finish(self) -> None:
        """Show what is left to show."""
        for stream in self._shown.values():
            stream.finish()


@contextlib.contextmanager
def echoed() -> Iterator[CellOutput]:
    """A sink for one command, for the length of the block."""
    output = CellOutput(_ECHOED.pair())
    try:
        yield output
    finally:
        output.finish()


class _Stream:
    """What a cell shows of one of the streams."""

    def __init__(self, number: int, spool: Spool) -> None:
        self._number = number
        self._spool = spool
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = CellText()
        self._offset = 0
        self._left = HEAD
        self._redrawn = 0
        self._next = 0.0
        self._notice: DisplayHandle | None = None
        # A terminal shows what comes, as it comes.
        self._raw = self._out.isatty()

    @property
    def _out(self) -> TextIO:
        return sys.stderr if self._number == 2 else sys.stdout

    def show(self, data: bytes) -> None:
        """Show a piece as far as the head goes; of what comes behind it, say how much it is."""
        if self._raw:
            self._write(self._decoder.decode(data))
            return
        while data and self._left > 0:
            piece, data = data[: self._left], data[self._left :]
            self._offset += len(piece)
            text = self._drawn(piece)
            if self._text.redrew:
                self._redrawn += 1
            else:
                self._left -= len(piece)
            self._write(text)
        if data and self._hidden > 0 and time.monotonic() >= self._next:
            self._tell(f"… {size_text(self._hidden + TAIL)} more until now")

    def finish(self) -> None:
        """Show the tail."""
        if self._raw or self._offset == self._spool.size:
            return
        tail = self._spool.tail(min(TAIL, self._spool.size - self._offset))
        if self._hidden > 0:
            # A line whose beginning is not shown would only puzzle.
            tail = tail[tail.find(b"\n") + 1 :]
            self._tell(f"… {size_text(self._hidden)} not shown; all of it is in {self._spool.file}")
            self._decoder.reset()
            self._text = CellText()
        self._write(self._drawn(tail))

    @property
    def _hidden(self) -> int:
        """Bytes that neither head nor tail show."""
        return self._spool.size - self._offset - TAIL

    def _drawn(self, data: bytes) -> str:
        """What the cell is to show of a piece. Where that fails, the piece as it is: the command must go on."""
        text = self._decoder.decode(data)
        try:
            return self._text.feed(text)
        except Exception:
            logger.exception("output is shown as it is, since it cannot be shown as in a terminal")
            self._text = CellText()
            return text

    def _write(self, text: str) -> None:
        if not text:
            return
        if not self._raw:
            time.sleep(max(0.0, self._next - time.monotonic()))
            pause = REDRAW_INTERVALS[self._redrawn > 200] if self._text.redrew else INTERVAL
            self._next = time.monotonic() + pause
        self._out.write(text)
        self._out.flush()

    def _tell(self, text: str) -> None:
        """Show ``text`` between head and tail."""
        if self._notice is None:
            self._out.write(f"{_RESET}\n")
            self._notice = display(Text(text), display_id=True)
        else:
            self._notice.update(Text(text))
        self._next = time.monotonic() + NOTICE_INTERVAL


def size_text(count: int) -> str:
    """A number of bytes as people say it."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
