"""What a start says while it takes time, and the one line it says when it is done."""

from __future__ import annotations

import time
from typing import Any

from IPython.display import DisplayHandle, display

from sandbox_nb.blocking import Sandbox

MIN_INTERVAL = 0.1
"""Seconds between two updates: a notebook server drops messages that come faster than 1000 a second."""


class ProgressLine:
    """One line in the output cell that is rewritten as work goes on, and taken away when it is done.

    Nothing is shown for work that never reports, which a start with an image at hand does not.
    """

    def __init__(self) -> None:
        self._handle: DisplayHandle | None = None
        self._last = 0.0
        self._shown = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show ``stage`` and the share done."""
        text = f"{stage} {100 * done // total} %" if total else f"{stage} …"
        now = time.monotonic()
        if text == self._shown or (self._handle is not None and now - self._last < MIN_INTERVAL):
            return
        self._shown, self._last = text, now
        if self._handle is None:
            self._handle = display(Text(text), display_id=True)
        else:
            self._handle.update(Text(text))

    def finish(self, text: str) -> None:
        """Leave ``text`` in the line's place."""
        if self._handle is None:
            print(text)
        else:
            self._handle.update(Text(text))


class Text:
    """Text that displays as itself, not as a quoted string."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _repr_mimebundle_(self, **keywords: Any) -> dict[str, str]:
        return {"text/plain": self._text}


def started_line(sandbox: Sandbox) -> str:
    """Say how the machine came up, on which accelerator and why, and how long it took."""
    boot, options = sandbox.boot, sandbox.options
    processors = "1 processor" if options.cpu_count == 1 else f"{options.cpu_count} processors"
    return (
        f"{sandbox.name}: started {boot.kind} in {boot.seconds:.2f} s on {boot.accelerator}; "
        f"{processors}, {options.memory_mib} MiB, image {options.image}"
    )
