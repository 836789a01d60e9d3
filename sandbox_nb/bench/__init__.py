"""Measurements: ``sandbox-nb bench`` and ``make bench``.

Each module of this package measures one section: ``NAMES`` lists its rows, ``rows()`` measures them. Ratios are
taken side by side: the two things compared take turns in the same run, so that a noisy machine disturbs both.
"""

from __future__ import annotations

import importlib
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sandbox_nb.errors import InvalidArgument, SandboxError

SECTIONS = ("machine", "files", "ttrpc", "vsock", "terminal")


@dataclass(frozen=True)
class Row:
    """What was measured ``n`` times. The median counts; smallest and largest tell the noise."""

    median: float
    min: float
    max: float
    n: int
    unit: str

    @classmethod
    def of(cls, samples: Sequence[float], unit: str) -> Row:
        """Sum up ``samples``."""
        return cls(statistics.median(samples), min(samples), max(samples), len(samples), unit)


class Skipped(SandboxError):
    """A section cannot be measured here; the message says why."""


def measure(
    names: Sequence[str] = (), *, peers: bool = False, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measure the rows and sections of these names, or all, and with ``peers`` others' products.

    ``tell`` hears what is done. A row is measured with the rest of its section. Raises InvalidArgument for a name
    that is neither a row's nor a section's.
    """
    from sandbox_nb import host
    from sandbox_nb.blocking import run_blocking
    from sandbox_nb.options import Options

    sections = {name: importlib.import_module(f"{__name__}.{name}") for name in SECTIONS}
    known = [row for section in sections.values() for row in section.NAMES]
    for name in names:
        if name not in known and name not in sections:
            raise InvalidArgument(
                f"there is no row {name!r}; there are the sections {', '.join(sections)}, with the rows "
                f"{', '.join(known)}"
            )
    rows: dict[str, Row] = {}
    for title, section in sections.items():
        wanted = {row for row in section.NAMES if not names or title in names or row in names}
        if not wanted:
            continue
        tell(f"measuring {title} …")
        try:
            rows |= {name: row for name, row in section.rows().items() if name in wanted}
        except Skipped as reason:
            tell(f"{title} was skipped: {reason}")
    beside: dict[str, Row] = {}
    if peers:
        tell("measuring peers …")
        beside = importlib.import_module(f"{__name__}.peers").rows(tell)
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Linux {platform.release()}",
        "accelerator": run_blocking(host.choose_accelerator(Options())).name,
        "rows": {name: asdict(row) for name, row in (rows | beside).items()},
    }


def table(report: dict[str, Any]) -> str:
    """A report for people to read."""
    lines = [f"{report['machine']}, {report['accelerator']}", ""]
    for name, row in report["rows"].items():
        spread = f"{row['min']:.4g} … {row['max']:.4g}, n = {row['n']}"
        lines.append(f"{name:28} {row['median']:10.4g} {row['unit']:6} ({spread})")
    return "\n".join(lines)
