"""What takes one value in the panel: a control for each kind of value, made from what a field declares.

A control is empty where its value was not said. What it is given and cannot show, as a path that is no UTF-8, it
keeps as it is, locked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ipywidgets import widgets

from sandbox_nb import config
from sandbox_nb.notebook.panel_paths import HostPath

Changed = Callable[[], None]


class Control:
    """A widget with a value. ``parse`` makes a value of its text, ``show`` a text of a value."""

    def __init__(
        self, changed: Changed, *, default: str = "", path: str = "", choices: tuple[str, ...] = ()
    ) -> None:
        self._kept: Any = None
        self.box: Any
        self._input: Any
        if choices:
            named = [(choice, choice) for choice in choices]
            self.box = self._input = widgets.Dropdown(options=[(f"{default} (default)", ""), *named])
        elif path:
            self.box = HostPath(folder=path == "folder")
            self._input = self.box.text
        else:
            self.box = self._input = widgets.Text()
        if not choices:
            self._input.placeholder = default
        self._input.observe(lambda _: changed(), "value")

    @property
    def value(self) -> Any:
        """What it says; None where that is nothing."""
        if self._kept is not None:
            return self._kept
        return self.parse(self._input.value) if self._input.value != "" else None

    @value.setter
    def value(self, value: Any) -> None:
        text = "" if value is None else self.show(value)
        shown = config.is_utf8(text) and "\n" not in text and "\r" not in text
        if shown:
            with contextlib.suppress(ValueError):
                shown = value is None or self.parse(text) == value
        self._kept = None if shown else value
        if isinstance(self._input, widgets.Dropdown):
            self._input.value = text
            return
        self._input.value = text if shown else ascii(value)
        self.enable(True)

    def enable(self, enabled: bool) -> None:
        """Let it be changed, or not."""
        self.box.disabled = not enabled or self._kept is not None

    def mark(self, wrong: bool) -> None:
        """Show that it is what is wrong."""
        (self._input.add_class if wrong else self._input.remove_class)("sandbox-nb-wrong")

    def parse(self, text: str) -> Any:
        """The value that a text says."""
        return text

    def show(self, value: Any) -> str:
        """The text that says a value."""
        return str(value)


class Number(Control):
    """A number; what is none stays text, to be refused by whoever takes it."""

    def parse(self, text: str) -> int | float | str:
        """See Control."""
        return number(text)


class Several(Control):
    """A list, with commas between."""

    def parse(self, text: str) -> list[str]:
        """See Control."""
        return [part.strip() for part in text.split(",") if part.strip()]

    def show(self, value: Any) -> str:
        """See Control."""
        return value if isinstance(value, str) else ", ".join(value)  # "none", for a list that is to be empty


class Pairs(Control):
    """Ports of the host with ports of the guest: ``8080:80, 2222:22``."""

    def parse(self, text: str) -> dict[str, int | float | str]:
        """See Control."""
        pairs = (part.strip().partition(":") for part in text.split(",") if part.strip())
        return {host: number(guest) for host, _, guest in pairs}

    def show(self, value: Any) -> str:
        """See Control."""
        return ", ".join(f"{host}:{guest}" for host, guest in value.items())


class Switch(Control):
    """True, or not said."""

    def __init__(self, changed: Changed, name: str) -> None:
        self.box = self._input = widgets.Checkbox(description=name, indent=False)
        self._input.observe(lambda _: changed(), "value")

    @property
    def value(self) -> bool | None:
        """See Control."""
        return True if self._input.value else None

    @value.setter
    def value(self, value: bool | None) -> None:
        self._input.value = bool(value)

    def enable(self, enabled: bool) -> None:
        """See Control."""
        self.box.disabled = not enabled


class Argument(Control):
    """An argument of the agent: text, or bytes that are kept. One that is empty is one too."""

    @property
    def value(self) -> str | bytes:
        """See Control."""
        kept: str | bytes | None = self._kept
        return str(self._input.value) if kept is None else kept

    @value.setter
    def value(self, value: str | bytes) -> None:
        Control.value.__set__(self, value)  # type: ignore[attr-defined]

    def parse(self, text: str) -> str:
        """See Control."""
        return text

    def show(self, value: str | bytes) -> str:
        """See Control."""
        return value if isinstance(value, str) else ascii(value)


def number(text: str) -> int | float | str:
    """The number that a text says, or the text."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
