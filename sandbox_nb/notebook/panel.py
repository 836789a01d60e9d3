"""The configuration panel: everything that can be said about a machine, as a form that starts it."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import html
import re
import secrets
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from IPython.display import display
from ipywidgets import widgets

from sandbox_nb.blocking import Sandbox
from sandbox_nb.devices import NIC, Disk, Filesystem, UserNIC
from sandbox_nb.errors import SandboxError
from sandbox_nb.hardware import AttachedDevice
from sandbox_nb.life import State
from sandbox_nb.notebook.panel_copy import RENDERINGS, CopyBox, as_magic, as_shell
from sandbox_nb.notebook.panel_form import (
    ArgumentRow,
    DeviceRow,
    Rows,
    close_parts,
    labelled,
    option_control,
    plain_options,
)
from sandbox_nb.notebook.panel_machine import PanelMachine
from sandbox_nb.notebook.subshells import route_all_by_sender
from sandbox_nb.options import Options

ENDED = "[the kernel of this panel is gone; run the cell again]"

CLOSED = "[this panel is closed; run the cell again for a new one]"

QEMU = "QEMU's command line"

_BUSY = (State.STARTING, State.STOPPING)

_shown: weakref.WeakSet[SandboxPanel] = weakref.WeakSet()


class SandboxPanel(widgets.VBox):
    """A form for every option of a machine, and buttons that start, change and stop it.

    What is wrong is said as it is typed, in the words of the API. ``options`` is what the form says, and can be
    set. ``before_start`` is called with the sandbox when its start is asked for, and may raise a SandboxError.
    One that is shown closes those that were shown before for a machine of the same name.
    """

    def __init__(
        self,
        sandbox: Sandbox | None = None,
        *,
        options: Options | None = None,
        before_start: Callable[[Sandbox], None] | None = None,
    ) -> None:
        self.machine = PanelMachine(sandbox or Sandbox(), self._tell)
        self._before_start = before_start
        self._filling = True
        self._closed = False
        self._shown_state: tuple[State, frozenset[str]] | None = None
        self._names: dict[DeviceRow, str] = {}
        self._display_id = secrets.token_hex(16)
        self._plain = {option.name: option_control(option, self._changed) for option in plain_options()}
        self._make_rows()
        super().__init__([self._head(), self._fields(), *(one.box for one in self._sections), self._foot()])
        self.add_class("sandbox-nb-panel")
        started = self.machine.state is State.RUNNING
        self.options = self.machine.sandbox.options if started else options or Options()
        if started:
            self._name_rows(self.machine.sandbox.options)
        self._refresh()

    @property
    def options(self) -> Options:
        """What the form says. Raises InvalidArgument or AlreadyExists for what cannot be meant."""
        said = self._plain_said()
        said["disks"] = [row.device() for row in self._disks.rows]
        said["filesystems"] = [row.device() for row in self._shares.rows]
        said["nics"] = [row.device() for row in self._cards.rows]
        said["init_args"] = [row.value for row in self._arguments.rows]
        return Options().applying((), said)

    @options.setter
    def options(self, options: Options) -> None:
        with self._quietly():
            default = Options()
            for name, control in self._plain.items():
                value = getattr(options, name)
                control.value = None if value == getattr(default, name) else value
            for rows, devices in (
                (self._disks, options.disks),
                (self._shares, options.filesystems),
                (self._cards, options.nics),
            ):
                rows.clear()
                for device in devices:
                    rows.add(self._row(type(device), device))
            self._arguments.clear()
            for argument in options.init_args:
                self._arguments.add(ArgumentRow(self._changed, argument))
        self._changed()

    def close(self) -> None:
        """Take the panel away. The machine goes on."""
        self._closed = True
        _shown.discard(self)
        close_parts(self)
        super().close()

    # What it is made of

    def _head(self) -> widgets.Widget:
        self._status = widgets.HTML()
        self._start = widgets.Button(description="Start", button_style="primary")
        self._stop = widgets.Button(description="Stop")
        self._said = widgets.HTML()
        self._said.add_class("sandbox-nb-said")
        self._problem = widgets.HTML()
        self._problem.add_class("sandbox-nb-error")
        self._start.on_click(lambda _: self._press_start())
        self._stop.on_click(lambda _: self.machine.stop())
        line = widgets.HBox([self._status, self._start, self._stop, self._said])
        line.add_class("sandbox-nb-head")
        return widgets.VBox([line, self._problem])

    def _fields(self) -> widgets.Widget:
        """Options that are one word; those that are paths, which few need, behind a button."""
        boxes: dict[bool, list[widgets.Widget]] = {False: [], True: []}
        for option in plain_options():
            control = self._plain[option.name]
            is_path = isinstance(control.box, widgets.VBox)
            about = option.metadata
            boxes[is_path].append(labelled(option.name, control, about["help"], placeholder=about["metavar"]))
        grids = []
        for group in boxes.values():
            grid = widgets.Box(group)
            grid.add_class("sandbox-nb-grid")
            grids.append(grid)
        grids[1].layout.display = "none"
        more = widgets.ToggleButton(description="files and folders", icon="caret-right")
        more.add_class("sandbox-nb-more")

        def toggle(change: dict[str, Any]) -> None:
            grids[1].layout.display = "" if change["new"] else "none"
            more.icon = "caret-down" if change["new"] else "caret-right"

        more.observe(toggle, "value")
        return widgets.VBox([grids[0], more, grids[1]])

    def _make_rows(self) -> None:
        def adding(kind: Any) -> Callable[[], DeviceRow]:
            return lambda: self._row(kind)

        changed = self._changed
        self._disks = Rows("Disks", {"disk": adding(Disk)}, changed)
        self._shares = Rows("Shared folders", {"folder": adding(Filesystem)}, changed)
        cards = {"on QEMU's user network": adding(UserNIC), "on a socket": adding(NIC)}
        self._cards = Rows("Network cards", cards, changed)
        self._arguments = Rows("Arguments for the agent", {"argument": lambda: ArgumentRow(changed)}, changed)
        self._sections = (self._disks, self._shares, self._cards, self._arguments)

    def _foot(self) -> widgets.Widget:
        self._copy_as = widgets.ToggleButtons(options=[*RENDERINGS, QEMU])
        self._copy_as.observe(lambda _: self._render(), "value")
        self._copy = CopyBox()
        foot = widgets.VBox([self._copy_as, self._copy])
        foot.add_class("sandbox-nb-section")
        return foot

    def _row(self, kind: Any, device: Any = None) -> DeviceRow:
        row = DeviceRow(kind, self._changed, device)
        row.plug.on_click(lambda _: self._press_plug(row))
        row.enable(editable=True, running=self.machine.state is State.RUNNING)
        return row

    @property
    def _device_rows(self) -> list[DeviceRow]:
        return [*self._disks.rows, *self._shares.rows, *self._cards.rows]

    # What it says

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        self._filling = True
        try:
            yield
        finally:
            self._filling = False

    def _plain_said(self) -> dict[str, Any]:
        return {name: control.value for name, control in self._plain.items() if control.value is not None}

    def _changed(self) -> None:
        """Judge what the form says now: what is one word, each row, and all of it together."""
        if self._filling:
            return
        of_rows = [row.check() for row in self._device_rows]
        alone = _wrong(lambda: Options().applying((), self._plain_said()))
        together = _wrong(lambda: self.options)
        about = re.match(r"(\w+)=", alone)
        for name, control in self._plain.items():
            control.mark(about is not None and about[1] == name)
        # A row says itself what is wrong with it.
        self._problem.value = html.escape(alone or ("" if together in of_rows else together))
        self._start.disabled = bool(together) or self.machine.state in (State.RUNNING, *_BUSY)
        self._copy.left = self._text(ENDED)
        self._render()

    def _render(self) -> None:
        """Show what the form says in the form that was asked for."""
        try:
            options = self.options
            if self._copy_as.value != QEMU:
                self._copy.text = RENDERINGS[self._copy_as.value](options, self.machine.sandbox.name)
                return
        except SandboxError as error:
            self._copy.text = f"# {error}"
            return
        self._copy.text = "# …"
        self.machine.plan(options, self._show_command, lambda words: self._show_command(["#", words]))

    def _show_command(self, argv: list[str]) -> None:
        if self._copy_as.value == QEMU:
            self._copy.text = as_shell(argv)

    def _tell(self, words: str) -> None:
        self._said.value = html.escape(words)
        self._refresh()

    def _refresh(self, *, anew: bool = False) -> bool:
        """Show where the machine is in its life, if that is news; False when there is nobody to show it to."""
        if self._closed:
            return False
        state, names = self.machine.state, frozenset(self.machine.device_names())
        if anew or self._shown_state != (state, names):
            self._shown_state = state, names
            self._show_state(state, names)
        return True

    def _show_state(self, state: State, names: frozenset[str]) -> None:
        name = html.escape(self.machine.sandbox.name)
        dot = f'<i class="sandbox-nb-dot {state.value}"></i>'
        self._status.value = f"<b>{name}</b> {dot}{state.value}"
        running, busy = state is State.RUNNING, state in _BUSY
        for control in self._plain.values():
            control.enable(not running and not busy)
        for row in self._device_rows:
            row.attached = running and self._names.get(row) in names
            row.enable(editable=not busy, running=running)
        for rows in self._sections:
            rows.enable(not busy and (rows is not self._arguments or not running))
        for argument in self._arguments.rows:
            argument.enable(not running and not busy)
        self._stop.disabled = not running and state not in (State.STARTING, State.FAILED)
        self._changed()

    # What is pressed

    def _press_start(self) -> None:
        try:
            options = self.options
            if self._before_start is not None:
                self._before_start(self.machine.sandbox)
        except SandboxError as error:
            self._tell(str(error))
            return
        self._name_rows(options)
        self.machine.start(options, self._show_started)
        self._refresh()

    def _show_started(self) -> None:
        self._tell(self.machine.sandbox.boot.title)

    def _name_rows(self, options: Options) -> None:
        """Note which device each row is. The order is that of ``Options.devices``."""
        names = (str(device.name) for device in dataclasses.replace(options, network="none").devices)
        self._names = dict(zip(self._device_rows, names, strict=True))

    def _press_plug(self, row: DeviceRow) -> None:
        def failed(words: str) -> None:
            self._refresh(anew=True)
            row.tell(words)

        def attached(device: AttachedDevice) -> None:
            self._names[row] = device.name
            self._refresh(anew=True)
            row.tell(f"{device.how}, in the guest {device.guest}", wrong=False)

        def detached(_: None) -> None:
            row.tell("", wrong=False)
            self._refresh(anew=True)

        row.enable(editable=False, running=True)
        try:
            if row.attached:
                self.machine.detach(self._names[row], detached, failed)
            else:
                self.machine.attach(row.device(), attached, failed)
        except SandboxError as error:
            failed(str(error))

    # The notebook

    def _text(self, *more: str) -> str:
        try:
            line = as_magic(self.options, self.machine.sandbox.name)
        except SandboxError as error:
            line = str(error)
        return "\n".join((f"{self.machine.sandbox.name}: {self.machine.state.value}", line, *more))

    def _ipython_display_(self) -> None:
        if self._closed:
            display({"text/plain": self._text(CLOSED)}, raw=True)
            return
        for other in list(_shown - {self}):
            if other.machine.sandbox.name == self.machine.sandbox.name:
                other._leave(CLOSED)
                other.close()
        route_all_by_sender(self)
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        self._copy.panel_id = self.model_id
        bundle = {"text/plain": self._text(), "application/vnd.jupyter.widget-view+json": view}
        display(bundle, raw=True, display_id=self._display_id)
        if self not in _shown:
            self.machine.follow(self._refresh)
        _shown.add(self)

    def _leave(self, words: str) -> None:
        self._copy.left = self._text(words)
        # Nobody listens any more when the kernel is on its way out, or nobody ever did.
        with contextlib.suppress(Exception):
            display({"text/plain": self._copy.left}, raw=True, display_id=self._display_id, update=True)


def _wrong(judge: Callable[[], object]) -> str:
    """What ``judge`` finds wrong, in its words."""
    try:
        judge()
    except SandboxError as error:
        return str(error)
    return ""


@atexit.register
def _leave_lines() -> None:
    """The kernel stops, or restarts: leave in each output what its panel said."""
    for panel in list(_shown):
        panel._leave(ENDED)
