"""How a machine came up: which way, on what and why, and how long each phase took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sandbox_nb import timeline
from sandbox_nb.vm.accel import Accelerator

__all__ = ["Boot"]


@dataclass
class Boot:
    """One start. ``phases`` maps what was done to the seconds it took, in order."""

    kind: str
    """cold, warm or standby."""
    accelerator: Accelerator
    phases: dict[str, float] = field(default_factory=dict)
    transport: str = ""
    """What carries vsock, and why that."""
    template: str = ""
    """Key of the template it was restored from, or is the first machine of."""
    note: str = ""
    """What kept it from being restored or saved as a template, or root's QEMU from running as somebody else."""
    caps: str = ""
    """What it is held to of the host's memory and processors, and by what; empty when nothing does."""

    @property
    def seconds(self) -> float:
        """From the call of ``start`` to a machine ready for commands."""
        return sum(self.phases.values())

    @property
    def title(self) -> str:
        """Kind, accelerator and time in a line."""
        return f"{self.kind} start in {timeline.duration(self.seconds)} on {self.accelerator}"

    def _repr_html_(self) -> str:
        return timeline.svg(self.title, self.phases)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def __str__(self) -> str:
        return timeline.text(self.title, self.phases)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = time.perf_counter() - began
