"""What crossed, as a table ordered by time."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sandbox_nb.errors import InvalidArgument

LAYERS = ("ttrpc", "vsock", "qmp")

SHOWN = 200
"""Rows that a display has; the table itself has all of them."""

_DETAIL = 120
"""Characters of a row's detail in text."""


@dataclass(frozen=True)
class Crossing:
    """One thing that crossed. ``time_ns`` is the host's clock since 1970."""

    time_ns: int
    layer: str
    """ttrpc, vsock or qmp."""
    to_guest: bool
    """Whether it went to the machine, or came from it."""
    what: str
    """A call and its step, a packet's operation, a QMP command or event."""
    where: str
    """The stream of a call, the ports of a packet (host:guest), nothing for QMP."""
    size: int
    """Bytes of its payload."""
    detail: str

    @property
    def clock(self) -> str:
        """The time of the day, to a microsecond."""
        return f"{datetime.fromtimestamp(self.time_ns / 1e9):%H:%M:%S.%f}"

    @property
    def arrow(self) -> str:
        """→ to the machine, ← from it."""
        return "→" if self.to_guest else "←"

    def has(self, text: str) -> bool:
        """Whether ``text`` is in what, where or detail of it, in small letters or large ones."""
        return text.lower() in f"{self.what} {self.where} {self.detail}".lower()


class Crossings(tuple[Crossing, ...]):
    """Crossings in the order of time. A display shows the last of them."""

    @classmethod
    def ordered(cls, crossings: Iterable[Crossing]) -> Crossings:
        """Those of all layers as one table."""
        return cls(sorted(crossings, key=lambda crossing: crossing.time_ns))

    def only(self, *, layers: Collection[str] = (), match: str = "", last: int | None = None) -> Crossings:
        """Those of some layers that have a text, the last of them. Raises InvalidArgument for an unknown layer."""
        for layer in layers:
            if layer not in LAYERS:
                raise InvalidArgument(f"layer {layer!r}: {', '.join(LAYERS)} are what there is")
        found = [one for one in self if (not layers or one.layer in layers) and one.has(match)]
        return Crossings(found if last is None else found[len(found) - min(last, len(found)) :])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to a file, a line of JSON each. Raises OSError."""
        with Path(path).open("w") as file:
            file.writelines(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in self)

    def __str__(self) -> str:
        if not self:
            return "nothing has crossed"
        rows = [(one.clock, one.layer, one.arrow, one.what, one.where, str(one.size), _short(one)) for one in self]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows[-SHOWN:])
        return "\n".join([*self._omitted(), *lines])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        if not self:
            return "nothing has crossed"
        head = "".join(f"<th>{name}</th>" for name in ("time", "layer", "", "what", "where", "bytes", "detail"))
        rows = "".join(map(_row, self[-SHOWN:]))
        note = "".join(f"<p>{html.escape(line)}</p>" for line in self._omitted())
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return f'<div class="sandbox-nb-crossings">{_STYLE}{note}{table}</div>'

    def _omitted(self) -> list[str]:
        more = len(self) - SHOWN
        return [f"… {more} earlier ones; show fewer by --layer, --match or --last"] if more > 0 else []


def _short(one: Crossing) -> str:
    return one.detail if len(one.detail) <= _DETAIL else f"{one.detail[: _DETAIL - 1]}…"


def _row(one: Crossing) -> str:
    cells = (one.clock, one.layer, one.arrow, one.what, one.where, f"{one.size:,}".replace(",", " "), one.detail)
    return f'<tr class="{one.layer}">' + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


# JupyterLab's colours where it is the page, so that they suit its theme; the others are of middling lightness.
_STYLE = """<style>
.sandbox-nb-crossings { max-height: 32em; overflow: auto; }
.sandbox-nb-crossings table { width: 100%; table-layout: auto; margin: 0;
  font: 11px/1.5 var(--jp-code-font-family, monospace); }
.sandbox-nb-crossings th, .sandbox-nb-crossings td { padding: 1px 8px 1px 0; border: 0;
  text-align: left !important; vertical-align: top; white-space: nowrap; }
.sandbox-nb-crossings th { position: sticky; top: 0; background: var(--jp-layout-color0, Canvas); }
.sandbox-nb-crossings tr > :nth-child(6) { text-align: right !important; }
.sandbox-nb-crossings td:nth-child(7) { min-width: 16em; white-space: normal; overflow-wrap: anywhere; }
.sandbox-nb-crossings tr.ttrpc td:nth-child(2) { color: #4c8dd6; }
.sandbox-nb-crossings tr.vsock td:nth-child(2) { color: #3fa66a; }
.sandbox-nb-crossings tr.qmp td:nth-child(2) { color: #d98a2b; }
</style>"""
