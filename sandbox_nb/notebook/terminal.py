"""A terminal in the output of a cell: ``Terminal(source)``, a widget on anywidget and xterm.js."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from sandbox_nb.notebook.terminal_session import Message, Session
from sandbox_nb.notebook.terminal_source import TerminalSource

STATIC = Path(__file__).parent / "static"


class Terminal(anywidget.AnyWidget):
    """Shows a TerminalSource."""

    _esm = STATIC / "terminal.js"
    _css = STATIC / "terminal.css"

    height = traitlets.Int(24).tag(sync=True)
    font_size = traitlets.Int(13).tag(sync=True)
    scrollback = traitlets.Int(5000).tag(sync=True)
    readonly = traitlets.Bool(False).tag(sync=True)
    screen_reader = traitlets.Bool(False).tag(sync=True)
    renderer = traitlets.Enum(["dom", "webgl"], "dom").tag(sync=True)

    def __init__(self, source: TerminalSource, **traits: Any) -> None:
        super().__init__(**traits)
        route_by_sender(self.comm)
        self._session = Session(source, self._post, self._ended, readonly=self.readonly)
        self.on_msg(self._receive)

    def _post(self, message: Message, data: bytes | None) -> None:
        self.send(message, None if data is None else [data])

    def _receive(self, _: Any, message: Message, buffers: list[memoryview]) -> None:
        self._session.receive(message, bytes(buffers[0]) if buffers else b"")

    def _ended(self) -> None:
        pass


def route_by_sender(comm: Any) -> None:
    """Have messages of a page handled in the subshell the page named, as ipykernel does but in 7.4."""
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, subshell_id: subshell_id
