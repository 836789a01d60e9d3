"""A path of the host: typed, or picked from what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import traitlets
from ipywidgets import widgets

MAX_ENTRIES = 500

_UP = "../"


class HostPath(widgets.VBox):
    """A text and, while it is browsed, a list of the folder that the text is in.

    What is picked is a file or, with ``folder``, a folder. Hidden ones are typed.
    """

    disabled = traitlets.Bool(False)

    def __init__(self, *, folder: bool = False) -> None:
        self.text = widgets.Text()
        self._browse = widgets.Button(icon="folder-open", tooltip="browse the host's files")
        self._list = widgets.Select(rows=8)
        self._place = widgets.Label()
        self._folder = folder
        self._at = Path()
        self._filling = False
        foot: list[widgets.Widget] = [self._place]
        if folder:
            use = widgets.Button(description="use this folder", tooltip="take the folder that is listed")
            use.on_click(lambda _: self._take(self._at))
            foot.append(use)
        self._chooser = widgets.VBox([self._list, widgets.HBox(foot)])
        self._chooser.layout.display = "none"
        super().__init__([widgets.HBox([self.text, self._browse]), self._chooser])
        self.add_class("sandbox-nb-path")
        self._browse.on_click(lambda _: self._toggle())
        self._list.observe(self._picked, "value")

    @traitlets.observe("disabled")
    def _disable(self, change: dict[str, Any]) -> None:
        self.text.disabled = self._browse.disabled = change["new"]
        if change["new"]:
            self._chooser.layout.display = "none"

    def _toggle(self) -> None:
        if self._chooser.layout.display != "none":
            self._chooser.layout.display = "none"
            return
        typed = _expanded(Path(self.text.value))
        self._show(next(filter(_is_folder, (typed, *typed.parents)), Path()))
        self._chooser.layout.display = ""

    def _show(self, folder: Path) -> None:
        self._at = folder.resolve()
        try:
            entries = sorted(self._at.iterdir(), key=lambda entry: (not _is_folder(entry), entry.name))
            self._place.value = str(self._at)
        except OSError as error:
            entries = []
            self._place.value = f"{self._at} cannot be listed: {error.strerror}"
        seen = [entry for entry in entries if entry.name[0] != "."]
        names = [f"{entry.name}/" if _is_folder(entry) else entry.name for entry in seen]
        if len(names) > MAX_ENTRIES:
            self._place.value += f", {len(names) - MAX_ENTRIES} more in it"
        self._filling = True
        self._list.options = [_UP, *names[:MAX_ENTRIES]]
        self._list.value = None
        self._filling = False

    def _picked(self, change: dict[str, Any]) -> None:
        name = change["new"]
        if self._filling or name is None:
            return
        if name.endswith("/"):
            self._show(self._at / name)
        elif not self._folder:
            self._take(self._at / name)

    def _take(self, path: Path) -> None:
        self.text.value = str(path)
        self._chooser.layout.display = "none"


def _expanded(path: Path) -> Path:
    """A path with the home of the user it begins with; as it is when there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _is_folder(path: Path) -> bool:
    """Whether a path leads to a folder. What may not be looked at is none."""
    try:
        return path.is_dir()
    except OSError:
        return False
