"""A terminal in the output of a cell: ``Terminal(source)``, a widget on anywidget and xterm.js.

It knows nothing of sandboxes: a source is anything with a byte stream both ways and a size (terminal_source).
Nothing is fetched from anywhere and no port is opened: all bytes go through the notebook's own server.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import threading
import weakref
from pathlib import Path
from typing import Any, Self

import anywidget
import traitlets
from IPython.display import display

from sandbox_nb.errors import DeadlineExceeded, InvalidArgument
from sandbox_nb.notebook.subshells import route_by_sender
from sandbox_nb.notebook.terminal_session import Message, Send, Session
from sandbox_nb.notebook.terminal_source import TerminalSource
from sandbox_nb.notebook.terminal_transcript import transcript
from sandbox_nb.notebook.terminal_wire import Wire

STATIC = Path(__file__).parent / "static"

TRANSCRIPT_LINES = 100
"""Lines of a terminal that has ended which stay in the notebook."""

TRANSCRIPT_BYTES = 256 * 1024
"""Bytes of output looked at for them: a fifth of a second's work."""

_alive: weakref.WeakSet[Terminal] = weakref.WeakSet()


class Terminal(anywidget.AnyWidget):
    """Shows ``source``, takes what is typed to it, and becomes a transcript when it has ended.

    The source begins when the terminal is first seen, so that its program has the right size from the start. The
    view used last (opened, focused or typed in) sets the size.

    - ``height``: rows. The width is the cell's, and the lower edge can be dragged.
    - ``font_size``: pixels; that of the notebook's code when None.
    - ``scrollback``: lines kept above the screen in each view.
    - ``readonly``: show, and take no keys.
    - ``screen_reader``: keep the text where a screen reader finds it; costs speed.
    - ``renderer``: "dom", or "webgl" where the browser has it.

    All can be set later as attributes of the same names. Raises InvalidArgument, then and now, for a value that is
    out of range.
    """

    _esm = STATIC / "terminal.js"
    _css = STATIC / "terminal.css"

    height = traitlets.Int(min=1, max=500).tag(sync=True)
    font_size = traitlets.Int(allow_none=True, default_value=None, min=4, max=100).tag(sync=True)
    scrollback = traitlets.Int(min=0, max=1_000_000).tag(sync=True)
    readonly = traitlets.Bool().tag(sync=True)
    screen_reader = traitlets.Bool().tag(sync=True)
    renderer = traitlets.Enum(["dom", "webgl"]).tag(sync=True)
    display_id = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        source: TerminalSource,
        *,
        height: int = 24,
        font_size: int | None = None,
        scrollback: int = 5000,
        readonly: bool = False,
        screen_reader: bool = False,
        renderer: str = "dom",
    ) -> None:
        self._done = threading.Event()
        self._displayed = False
        self._session = Session(source, self._post, self._ended)
        name = secrets.token_hex(16)
        super().__init__(
            model_id=name,
            display_id=name,
            height=height,
            font_size=font_size,
            scrollback=scrollback,
            readonly=readonly,
            screen_reader=screen_reader,
            renderer=renderer,
        )
        self._wire = Wire(name, self._receive_by_wire, self._session.lose)
        route_by_sender(self.comm)
        self.on_msg(self._receive)
        _alive.add(self)

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except traitlets.TraitError as error:
            raise InvalidArgument(str(error)) from None

    def begin(self, rows: int = 24, columns: int = 80) -> Self:
        """Begin at this size without waiting for a view, for a notebook that nobody watches."""
        self._session.open(rows, columns)
        return self

    def write(self, data: str | bytes) -> None:
        """Type ``data``, which is not shown unless the program echoes it."""
        self._session.write(data.encode() if isinstance(data, str) else data)

    def text(self) -> str:
        """What the terminal showed and shows, without colours: as much as is kept, some 2 MB of output."""
        data, (rows, columns) = self._session.tail()
        return "\n".join(_plain(line) for line in transcript(data, rows, columns))

    def record(self, path: str | os.PathLike[str]) -> Self:
        """Write what was shown, as far as it is kept, and what will be, as asciinema does (format version 2).

        Raises OSError when the file cannot be written.
        """
        self._session.record(path, self.height, 80)
        return self

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the source has ended, and return how. Raises DeadlineExceeded after ``timeout`` seconds."""
        if not self._done.wait(timeout):
            raise DeadlineExceeded(f"the terminal was still open after {timeout} s")
        return str(self.ending)

    @property
    def ending(self) -> str | None:
        """In a few words how the source ended; None until then."""
        return self._session.ending

    def close(self) -> None:
        """End the source. The transcript stays. Idempotent."""
        self._session.close()
        # Else the page would take away the output of a widget that it is told is gone.
        if self._done.wait(5):
            super().close()

    def __del__(self) -> None:
        """Nothing: a widget closes itself here, but a terminal that was refused has nothing to close."""

    # The notebook

    def _ipython_display_(self) -> None:
        self._displayed = True
        bundle: dict[str, Any] = {"text/plain": self._transcript()}
        if not self._done.is_set():
            self._wire.listen()  # a cell that runs may keep us from hearing the page's first word
            view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = view
        # With an id, so that the transcript can take its place. As long as the widget's type is in an output,
        # nbconvert shows nothing, and JupyterLab without a kernel "model not found", whatever types are beside it.
        display(bundle, raw=True, display_id=self.display_id)

    def _ended(self) -> None:
        self._done.set()
        self._wire.close()
        _alive.discard(self)
        if not self._displayed:
            return
        # Nobody listens any more when the kernel is on its way out.
        with contextlib.suppress(Exception):
            display({"text/plain": self._transcript()}, raw=True, display_id=self.display_id, update=True)

    def _transcript(self) -> str:
        data, (rows, columns) = self._session.tail()
        lines = transcript(data[-TRANSCRIPT_BYTES:], rows, columns)
        if len(lines) > TRANSCRIPT_LINES:
            lines[:-TRANSCRIPT_LINES] = [f"… {len(lines) - TRANSCRIPT_LINES} earlier lines"]
        return "\n".join([*lines, f"[{self.ending or 'a terminal, which needs a running kernel'}]"])

    def _post(self, message: Message, data: bytes | None) -> None:
        self.send(message, None if data is None else [data])

    def _receive(self, _: Any, message: Message, buffers: list[memoryview]) -> None:
        if not self._done.is_set():
            self._wire.listen()  # if it is shown in some other way than by itself
        self._session.receive(message, bytes(buffers[0]) if buffers else b"", readonly=self.readonly)

    def _receive_by_wire(self, message: Message, data: bytes, send: Send) -> None:
        self._session.receive(message, data, readonly=self.readonly, wire=send)


def _plain(line: str) -> str:
    """A line of a transcript without its SGR sequences, the only ones that are in it."""
    head, *rest = line.split("\x1b[")
    return head + "".join(part.partition("m")[2] for part in rest)


@atexit.register
def _leave_transcripts() -> None:
    """The kernel stops, or restarts: no page can show these terminals any more."""
    for terminal in list(_alive):
        terminal.close()
