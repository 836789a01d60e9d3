"""The panel's form: a field for every option, rows for what there may be several of.

All is made from the fields of ``Options`` and of the devices, so an option that is new there appears here.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ipywidgets import widgets

from sandbox_nb import config
from sandbox_nb.config import FLAGS, Kind
from sandbox_nb.devices import Device, Filesystem
from sandbox_nb.errors import SandboxError
from sandbox_nb.notebook.panel_controls import Argument, Changed, Control, Number, Pairs, Several, Switch
from sandbox_nb.notebook.subshells import route_all_by_sender
from sandbox_nb.options import PATHS, Options

_UNITS = {"MIB": "MiB", "SECONDS": "seconds"}
"""What those of options that are amounts are counted in."""


def labelled(name: str, control: Control, text: str = "", *, placeholder: str | None = None) -> widgets.VBox:
    """A control below its name, with its unit where the ``placeholder`` of the option says one."""
    title = html.escape(text, quote=True)
    words = name.replace("_", " ") + (f", {_UNITS[placeholder]}" if placeholder in _UNITS else "")
    label = widgets.HTML(f'<label title="{title}">{html.escape(words)}</label>')
    box = widgets.VBox([label, control.box])
    box.add_class("sandbox-nb-field")
    if isinstance(control.box, widgets.VBox):
        box.add_class("sandbox-nb-wide")
    return box


def option_control(option: dataclasses.Field[Any], changed: Changed) -> Control:
    """The control for an option that is one word."""
    default = _default(option)
    if option.metadata["choices"]:
        return Control(changed, default=default, choices=option.metadata["choices"])
    if option.metadata["metavar"] in PATHS:
        return Control(changed, path=PATHS[option.metadata["metavar"]])
    return (Number if _is_number(option) else Control)(changed, default=default)


def close_parts(widget: widgets.Widget) -> None:
    """Close all that is in a widget, its looks too; ipywidgets closes the widget alone."""
    looks = (getattr(widget, name, None) for name in ("layout", "style"))
    for part in (*getattr(widget, "children", ()), *filter(None, looks)):
        close_parts(part)
        part.close()


def device_control(kind: Kind, key: str, changed: Changed) -> Control:
    """The control for a key of a device's table, by the type of the field behind it."""
    if key in FLAGS[kind]:
        return Switch(changed, key)
    field = next(field for field in dataclasses.fields(kind) if field.name == key)
    default = _default(field)
    match str(field.type):
        case "bool":
            return Switch(changed, key)
        case "NetworkMode":
            return Control(changed, default=config.MODES[0], choices=config.MODES)
        case said if "Mapping" in said:
            return Pairs(changed, default="8080:80, 2222:22")
        case said if "Sequence" in said:
            return Several(changed, default=default)
        case said if "PathLike" in said:
            return Control(changed, path="folder" if kind is Filesystem else "file")
    return (Number if _is_number(field) else Control)(changed, default=default)


def _default(field: dataclasses.Field[Any]) -> str:
    """What an empty control means."""
    default = field.default
    if isinstance(default, tuple):
        return ", ".join(default)
    return "" if default is None or default is dataclasses.MISSING else str(default)


def _is_number(field: dataclasses.Field[Any]) -> bool:
    return "int" in str(field.type) or "float" in str(field.type)


class DeviceRow:
    """One disk, share or network card. ``attached``: the machine that runs has it."""

    def __init__(self, kind: Kind, changed: Changed, device: Device | None = None) -> None:
        self.kind = kind
        self.attached = False
        self._controls = {key: device_control(kind, key, changed) for key in config.keys(kind)}
        self.remove = widgets.Button(icon="times", tooltip="take this row away")
        self.plug = widgets.Button(description="attach", tooltip="attach it to the machine that runs")
        self.error = widgets.HTML()
        self.error.add_class("sandbox-nb-error")
        fields = [labelled(key, control) for key, control in self._shown(switches=False)]
        switches = [control.box for _, control in self._shown(switches=True)]
        buttons = widgets.HBox([*switches, self.plug, self.remove])
        buttons.add_class("sandbox-nb-buttons")
        grid = widgets.Box([*fields, buttons])
        grid.add_class("sandbox-nb-grid")
        self.box = widgets.VBox([grid, self.error])
        self.box.add_class("sandbox-nb-row")
        if device is not None:
            table = config.to_table(device)
            for key, control in self._controls.items():
                control.value = table.get(key)

    def device(self) -> Device:
        """What the row says. Raises InvalidArgument."""
        said = {key: control.value for key, control in self._controls.items()}
        device = config.from_table(self.kind, {key: value for key, value in said.items() if value is not None})
        device.check()
        return device

    def check(self) -> str:
        """What is wrong with the row, shown below it; empty when nothing is."""
        try:
            self.device()
        except SandboxError as error:
            self.tell(str(error))
            return str(error)
        self.tell("")
        return ""

    def tell(self, words: str, *, wrong: bool = True) -> None:
        """Put words below the row, and mark the control they are about."""
        self.error.value = html.escape(words)
        about = re.search(r"(\w+)=", words) or re.search(r"without (\w+)", words)
        for key, control in self._controls.items():
            control.mark(wrong and about is not None and about[1] == key)

    def enable(self, *, editable: bool, running: bool) -> None:
        """Say what can be pressed: a row that is attached is detached first."""
        for control in self._controls.values():
            control.enable(editable and not self.attached)
        self.remove.disabled = self.attached or not editable
        self.plug.layout.display = "" if running else "none"
        self.plug.disabled = not editable
        self.plug.description = "detach" if self.attached else "attach"

    def _shown(self, *, switches: bool) -> list[tuple[str, Control]]:
        return [(key, one) for key, one in self._controls.items() if isinstance(one, Switch) is switches]


class ArgumentRow:
    """One argument of the agent."""

    def __init__(self, changed: Changed, value: str | bytes = "") -> None:
        self._control = Argument(changed)
        self._control.value = value
        self.remove = widgets.Button(icon="times", tooltip="take this argument away")
        self.box = widgets.HBox([self._control.box, self.remove])
        self.box.add_class("sandbox-nb-argument")

    @property
    def value(self) -> str | bytes:
        """The argument."""
        return self._control.value

    def enable(self, enabled: bool) -> None:
        """Let it be changed, or not."""
        self._control.enable(enabled)
        self.remove.disabled = not enabled


Row = DeviceRow | ArgumentRow


class Rows:
    """Rows below a title, with a button for each kind of row that can be added."""

    def __init__(self, title: str, adders: Mapping[str, Callable[[], Row]], changed: Changed) -> None:
        self.rows: list[Any] = []
        self._changed = changed
        self.adders = [self._adder(word, make) for word, make in adders.items()]
        head = widgets.HBox([widgets.HTML(f"<h4>{html.escape(title)}</h4>"), *self.adders])
        head.add_class("sandbox-nb-title")
        self._body = widgets.VBox()
        self.box = widgets.VBox([head, self._body])
        self.box.add_class("sandbox-nb-section")

    def add(self, row: Row) -> None:
        """Put a row at the end."""
        route_all_by_sender(row.box)
        row.remove.on_click(lambda _: self._take(row))
        self.rows.append(row)
        self._show()

    def clear(self) -> None:
        """Take all rows away."""
        self._drop(*self.rows)

    def enable(self, enabled: bool) -> None:
        """Let rows be added, or not."""
        for button in self.adders:
            button.disabled = not enabled

    def _adder(self, word: str, make: Callable[[], Row]) -> widgets.Button:
        button = widgets.Button(description=word, icon="plus")

        def add(_: object) -> None:
            self.add(make())
            self._changed()

        button.on_click(add)
        return button

    def _take(self, row: Row) -> None:
        self._drop(row)
        self._changed()

    def _drop(self, *rows: Row) -> None:
        for row in rows:
            self.rows.remove(row)
        self._show()
        for row in rows:
            close_parts(row.box)
            row.box.close()

    def _show(self) -> None:
        self._body.children = [row.box for row in self.rows]


def plain_options() -> Sequence[dataclasses.Field[Any]]:
    """The options that are one word."""
    return [option for option in dataclasses.fields(Options) if "help" in option.metadata]
