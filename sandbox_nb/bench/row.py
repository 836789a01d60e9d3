"""What a measurement is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox_nb.errors import SandboxError


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

    @classmethod
    def ratio(cls, ours: Sequence[float], theirs: Sequence[float]) -> Row:
        """Sum up ours over theirs, where those at one place were taken one after the other."""
        return cls.of([mine / other for mine, other in zip(ours, theirs, strict=True)], "ratio")


class Skipped(SandboxError):
    """A section cannot be measured here; the message says why."""
