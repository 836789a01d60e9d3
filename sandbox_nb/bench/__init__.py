"""Measurements: ``sandbox-nb bench`` and ``make bench``.

Each module named in SECTIONS and PEERS measures one section: ``NAMES`` lists its rows, ``rows()`` measures them,
its docstring says how. Ratios are taken side by side: the two things compared take turns in the same run, so that
a noisy machine disturbs both.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import ModuleType

from sandbox_nb.bench.report import Report
from sandbox_nb.bench.row import Row, Skipped
from sandbox_nb.errors import InvalidArgument

__all__ = ["PEERS", "SECTIONS", "Report", "Row", "Skipped", "measure"]

SECTIONS = ("machine", "files", "ttrpc", "vsock", "terminal")

PEERS = ("quicksand", "libguestfs")
"""Sections of others' products: they take minutes, and are measured only when asked for."""


def measure(
    names: Sequence[str] = (), *, peers: bool = False, tell: Callable[[str], None] = lambda line: None
) -> Report:
    """Measure the rows and sections of these names, or all, and with ``peers`` others' products.

    ``tell`` hears what is done. A row is measured with the rest of its section; a section that cannot be measured,
    or fails, leaves the others their figures. Raises InvalidArgument for a name that is neither a row's nor a
    section's.
    """
    from sandbox_nb import host
    from sandbox_nb.background import run_blocking
    from sandbox_nb.options import Options

    sections = {name: importlib.import_module(f"{__name__}.{name}") for name in (*SECTIONS, *PEERS)}
    _judge(names, sections)
    report = Report(
        machine=f"{platform.machine()}, {os.cpu_count()} processors ({_processor()}), Linux {platform.release()}",
        accelerator=run_blocking(host.choose_accelerator(Options())).name,
        began=datetime.now().astimezone(),
        load=os.getloadavg(),
    )
    for title, section in sections.items():
        if wanted := _wanted(title, section, names, peers):
            _add(report, title, section, wanted, tell)
    return report


def _processor() -> str:
    """What the kernel calls it; on arm64 it has no name."""
    found = re.search(r"^model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else "unnamed"


def _judge(names: Sequence[str], sections: Mapping[str, ModuleType]) -> None:
    known = [row for section in sections.values() for row in section.NAMES]
    for name in names:
        if name not in known and name not in sections:
            raise InvalidArgument(
                f"there is no row {name!r}; there are the sections {', '.join(sections)}, with the rows "
                f"{', '.join(known)}"
            )


def _wanted(title: str, section: ModuleType, names: Sequence[str], peers: bool) -> list[str]:
    """The rows of a section that are asked for, by its name or theirs."""
    asked = peers if title in PEERS else not names
    return [row for row in section.NAMES if asked or title in names or row in names]


def _add(
    report: Report, title: str, section: ModuleType, wanted: Sequence[str], tell: Callable[[str], None]
) -> None:
    """Measure one section and put its wanted rows into the report, or why there are none."""
    tell(f"measuring {title} …")
    began = time.monotonic()
    try:
        rows = section.rows()
    except Skipped as reason:
        report.skipped[title] = str(reason)
        tell(f"{title} was skipped: {reason}")
    except Exception as error:
        report.failed[title] = f"{type(error).__name__}: {error}"
        tell(f"{title} failed:\n{traceback.format_exc()}")
    else:
        report.sections[title] = {name: rows[name] for name in wanted if name in rows}
        tell(f"{title} took {time.monotonic() - began:.0f} s")
