"""What a run has measured: as JSON, as lines for a terminal, and as the page that the repository keeps."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sandbox_nb.bench import plot, targets
from sandbox_nb.bench.row import Row
from sandbox_nb.bench.targets import TARGETS, Target

PAGE, PLOT = "RESULTS.md", "results.svg"


@dataclass
class Report:
    """Rows by section, in the order they were measured in, and the circumstances.

    ``load`` is the load average of 1, 5 and 15 minutes before; above one or so, times are not worth much. Sections
    without rows are in ``skipped`` or ``failed``, with the reason.
    """

    machine: str
    accelerator: str
    began: datetime
    load: tuple[float, float, float]
    sections: dict[str, dict[str, Row]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, Row]:
        """All rows by name."""
        return {name: row for rows in self.sections.values() for name, row in rows.items()}

    def judged(self) -> Iterator[tuple[str, Row, Target]]:
        """The rows that have a target."""
        return ((name, row, TARGETS[name]) for name, row in self.rows.items() if name in TARGETS)

    def as_json(self) -> dict[str, Any]:
        """The report for programs."""
        rows = {name: asdict(row) for name, row in self.rows.items()}
        return {"machine": self.machine, "accelerator": self.accelerator, "rows": rows}

    def as_text(self) -> str:
        """The report for people who sit before a terminal."""
        lines = [f"{self.machine}, {self.accelerator}", ""]
        for name, row in self.rows.items():
            target = TARGETS.get(name)
            judged = f"  {target}: {target.verdict(row.median)}" if target else ""
            spread = f"({_number(row.min)} … {_number(row.max)}, n = {row.n})"
            lines.append(f"{name:28} {_number(row.median):>10} {row.unit:6} {spread:34}{judged}".rstrip())
        lines += [f"{name} was not measured: {why}" for name, why in self._absent()]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """Write the report as a page with its plot into ``folder``, over the one of the last time."""
        folder.mkdir(parents=True, exist_ok=True)
        shares = [
            plot.Bar(name, _sentence(row, target), *map(target.share, (row.median, row.min, row.max)))
            for name, row, target in self.judged()
        ]
        (folder / PLOT).write_text(plot.svg("The share of what is allowed that each row takes", shares) + "\n")
        (folder / PAGE).write_text("\n".join([*self._head(), *self._tables()]) + "\n")

    def _head(self) -> Iterator[str]:
        yield from ("# What was measured", "")
        yield from ("`make bench` writes this page. A median counts; what is compared took turns in one run.", "")
        yield from (f"- machine: {self.machine}", f"- accelerator: {self.accelerator}")
        yield f"- date: {self.began:%Y-%m-%d %H:%M %Z}"
        yield f"- load average before (1, 5, 15 minutes): {', '.join(f'{load:.2f}' for load in self.load)}"
        yield from ("", *self._verdicts())

    def _verdicts(self) -> Iterator[str]:
        judged = list(self.judged())
        met = sum(target.met_by(row.median) for _, row, target in judged)
        yield from (f"**{met} of {len(judged)} targets are met.**", "")
        yield from (_unquoted(inspect.getdoc(targets) or "").partition("\n\n")[2], "")
        for name, row, target in judged:
            if not target.met_by(row.median):
                yield f"- missed: `{name}` ({target.what}): {_sentence(row, target)}"
        yield from (f"- not measured: {name}: {why}" for name, why in self._absent())
        yield from ("", f"![The share of what is allowed that each row takes]({PLOT})")

    def _tables(self) -> Iterator[str]:
        for title, rows in self.sections.items():
            yield from ("", f"## {title}", "", _described(title), "")
            yield "| row | command | median | min … max | n | unit | target | |"
            yield "| --- | --- | ---: | ---: | ---: | --- | --- | --- |"
            for name, row in rows.items():
                target = TARGETS.get(name)
                judged = f"{target} | {target.verdict(row.median)}" if target else " | "
                spread = f"{_number(row.min)} … {_number(row.max)}"
                yield (
                    f"| {name} | `sandbox-nb bench {name}` | {_number(row.median)} | {spread} | {row.n} "
                    f"| {row.unit} | {judged} |"
                )

    def _absent(self) -> Iterator[tuple[str, str]]:
        for name, why in (self.skipped | self.failed).items():
            yield name, " ".join(why.split())


def _described(title: str) -> str:
    """How a section measures: what its module says of itself."""
    text = inspect.getdoc(importlib.import_module(f"{__package__}.{title}")) or ""
    return _unquoted(text)


def _unquoted(text: str) -> str:
    """Text of a docstring as Markdown has it."""
    return text.replace("``", "`")


def _sentence(row: Row, target: Target) -> str:
    unit = "" if row.unit == "ratio" else f" {row.unit}"
    return f"{_number(row.median)}{unit}, target {target}"


def _number(value: float) -> str:
    """Three digits that count, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
