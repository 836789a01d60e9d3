"""The dashboard: a machine as it is now, in the output of a cell. ``Dashboard(sandbox)``, on anywidget."""

from __future__ import annotations

import atexit
import contextlib
import secrets
import threading
import weakref
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython.display import display

from sandbox_nb.blocking import Sandbox
from sandbox_nb.notebook.dashboard_view import Seen
from sandbox_nb.notebook.dashboard_watch import Watch
from sandbox_nb.notebook.subshells import route_by_sender
from sandbox_nb.portrait import page

WIDGETS = Path(__file__).parent / "widgets"

ENDED = "The kernel that watched this machine is gone: this is how it was last seen. Run the cell again."

_shown: weakref.WeakSet[Dashboard] = weakref.WeakSet()


class Dashboard(anywidget.AnyWidget):
    """Shows a machine: what it is, how busy it is, its processes and connections, and the end of its console.

    The guest is asked only while a page shows the dashboard: neither scrolled away nor in a tab behind. Where
    there are no widgets it is text, and HTML that stays as it is.

    Messages of a view: ``{"kind": "hello", "view": name}``, ``{"kind": "look"}`` every 2 s while it is seen, and
    ``{"kind": "end", "pid": N}``. Messages to all of them: ``{"kind": "page", "view": name, "html": …}`` answers
    the first, and ``{"kind": "parts", "parts": {name: html}}`` brings what has changed.
    """

    _esm = WIDGETS / "dashboard.js"
    _css = WIDGETS / "dashboard.css"

    display_id = traitlets.Unicode().tag(sync=True)
    ended = traitlets.Unicode(ENDED).tag(sync=True)

    def __init__(self, sandbox: Sandbox) -> None:
        name = secrets.token_hex(16)
        super().__init__(model_id=name, display_id=name)
        self._seen = Seen(sandbox.portrait())
        self._told = self._seen.parts(live=True)
        # Views say hello in the kernel's threads, the watch tells on its loop: a page must not come after parts
        # that are newer.
        self._telling = threading.Lock()
        self._watch = Watch(sandbox, self._tell)
        route_by_sender(self.comm)
        self.on_msg(self._receive)

    def _receive(self, _: Any, message: dict[str, Any], _buffers: list[memoryview]) -> None:
        match message:
            case {"kind": "hello", "view": str(view)}:
                with self._telling:
                    self.send({"kind": "page", "view": view, "html": page(self._told, every_part=True)})
                self._watch.look()
            case {"kind": "look"}:
                self._watch.look()
            case {"kind": "end", "pid": int(pid)} if pid > 1:
                self._watch.end_process(pid)

    def _tell(self, seen: Seen) -> None:
        parts = seen.parts(live=True)
        with self._telling:
            names = {*parts, *self._told}
            changed = {name: parts.get(name, "") for name in names if parts.get(name) != self._told.get(name)}
            self._seen, self._told = seen, parts
            if changed:
                self.send({"kind": "parts", "parts": changed})

    # The notebook

    def _bundle(self) -> dict[str, Any]:
        return {"text/plain": str(self._seen), "text/html": page(self._seen.parts(live=False))}

    def _ipython_display_(self) -> None:
        bundle = self._bundle()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        bundle["application/vnd.jupyter.widget-view+json"] = view
        # With an id, so that what was seen last can take its place: no page shows a widget without its kernel.
        display(bundle, raw=True, display_id=self.display_id)
        _shown.add(self)

    def _leave(self) -> None:
        bundle = self._bundle()
        parts = {**self._seen.parts(live=False), "notice": ENDED}
        # Nobody listens any more when the kernel is on its way out, or nobody ever did.
        with contextlib.suppress(Exception):
            display(bundle | {"text/html": page(parts)}, raw=True, display_id=self.display_id, update=True)


@atexit.register
def _leave_portraits() -> None:
    """The kernel stops, or restarts: leave in each output what was seen last."""
    for dashboard in list(_shown):
        dashboard._leave()
