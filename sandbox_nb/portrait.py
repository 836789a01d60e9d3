"""A machine at one moment, as its host knows it: for people, as text and as HTML of its own.

The parts of the HTML are also those of the dashboard, which shows them anew as they change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Self

from sandbox_nb.boot import Boot
from sandbox_nb.forward import AsyncForward, ends
from sandbox_nb.hardware import Devices
from sandbox_nb.life import Life

__all__ = ["Portrait", "page", "table"]

STYLE = Path(__file__).with_name("portrait.css")

CONSOLE_LINES = 12

TITLES = {
    "head": "",
    "notice": "",
    "plots": "",
    "processes": "Processes",
    "streams": "vsock connections",
    "devices": "Devices",
    "forwards": "Forwards",
    "start": "Start",
    "console": "Console",
}
"""The parts of a page, in their order. Those without a title are not in a box."""


@dataclass(frozen=True)
class Portrait:
    """What the host knows of a machine without asking the guest."""

    name: str
    state: str
    failure: str
    """Why it failed, if it did."""
    size: str
    """Processors, memory and image."""
    boot: Boot | None
    devices: Devices
    forwards: Sequence[tuple[int | None, int | str]]
    """Port of the host, and what it leads to; no port where it is the guest that listens."""
    console: str

    @classmethod
    def of(cls, life: Life, forwards: Iterable[AsyncForward]) -> Self:
        """The portrait of a sandbox now. In any thread."""
        running, options = life.running, life.options
        processors = "1 processor" if options.cpu_count == 1 else f"{options.cpu_count} processors"
        return cls(
            life.name,
            life.state.value,
            str(life.failure or ""),
            f"{processors}, {options.memory_mib} MiB, image {options.image}",
            running.boot if running is not None else None,
            running.hardware.devices() if running is not None else Devices(),
            [(forward.port, forward.target) for forward in forwards],
            life.console,
        )

    def parts(self) -> dict[str, str]:
        """The parts as HTML; an empty one has nothing to say."""
        return {
            "head": self._head(),
            "devices": self._devices(),
            "forwards": self._forwards(),
            "start": self.boot._repr_html_() if self.boot is not None else "",
            "console": self._console(),
        }

    def _head(self) -> str:
        words = [f"<span>{escape(word)}</span>" for word in (self.size, self.failure) if word]
        dot = f'<i class="dot {self.state}"></i>'
        return f'<b>{escape(self.name)}</b><span class="state">{dot}{self.state}</span>{"".join(words)}'

    def _devices(self) -> str:
        rows = [(one.name, one.kind, one.how, one.host, one.guest) for one in self.devices]
        return table(("name", "kind", "how", "host", "guest"), rows)

    def _forwards(self) -> str:
        return table(("from", "to"), [ends(port, target) for port, target in self.forwards])

    def _console(self) -> str:
        lines = [line for line in self.console.splitlines() if line.strip()][-CONSOLE_LINES:]
        return f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""

    def _repr_html_(self) -> str:
        return page(self.parts())

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.state}; {self.size}"]
        if self.failure:
            lines.append(f"  {self.failure}")
        if self.boot is not None:
            lines.append(f"  {self.boot.title}")
        lines += [f"  {one.kind} {one.name}: {one.how}, {one.host}, {one.guest}" for one in self.devices]
        lines += [f"  forward: {' to '.join(ends(port, target))}" for port, target in self.forwards]
        return "\n".join(lines)


def page(parts: Mapping[str, str], *, every_part: bool = False) -> str:
    """Parts as HTML that brings its style. ``every_part``: the empty ones too, hidden until they are filled."""
    boxes = []
    for name, title in TITLES.items():
        body = parts.get(name, "")
        if body or every_part:
            inner = f'<div data-part="{name}">{body}</div>'
            hidden = "" if body else " hidden"
            heading = f"<h4>{title}</h4>" if title else ""
            boxes.append(f'<section class="{name}"{hidden}>{heading}{inner}</section>')
    return f'<div class="sandbox-nb-portrait"><style>{STYLE.read_text()}</style>{"".join(boxes)}</div>'


def table(head: Iterable[str], rows: Iterable[Iterable[str]], *, raw_last: bool = False) -> str:
    """Words as an HTML table; nothing when there are no rows. ``raw_last``: the last cell of each is HTML."""
    body = "".join(_row(list(row), raw_last=raw_last) for row in rows)
    heads = "".join(f"<th>{escape(word)}</th>" for word in head)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>" if body else ""


def _row(cells: Sequence[str], *, raw_last: bool) -> str:
    text = [escape(cell) for cell in cells]
    if raw_last:
        text[-1] = cells[-1]
    # A cell may be cut to the room there is: then the pointer over it shows the whole.
    titled = [f'<td title="{escape(cell)}">' if len(cell) > 24 and "<" not in cell else "<td>" for cell in cells]
    return "<tr>" + "".join(f"{tag}{cell}</td>" for tag, cell in zip(titled, text, strict=True)) + "</tr>"
