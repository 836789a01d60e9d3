"""The phases of a start as a picture: inline SVG, from plain data."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

MEANING = {
    "prepare": "options judged; QEMU, image and accelerator found",
    "failed restore": "a saved machine that did not come to life",
    "restore": "QEMU started, RAM copied beside it, state loaded",
    "qemu": "QEMU started",
    "boot": "the kernel boots, the agent loads every module",
    "save": "the waiting machine is saved as a template",
    "dial": "devices plugged, the guest runs, its agent calls",
    "take": "a machine that stood by runs on",
    "configure": "entropy, clock, names and arguments told to the agent",
}
"""What happens in each phase."""

_WIDTH, _ROW, _TOP = 640, 22, 30
_NAMES, _TIMES = 110, 70
"""Room for the names on the left, and for the times behind the longest bar."""

_COLOURS = ("#4c8dd6", "#d98a2b", "#3fa66a", "#b565c9", "#cf5b66", "#4aa5b0", "#8c8f3a", "#8a7a6a")
"""Of middling lightness, to be seen on white and on black alike."""


def svg(title: str, phases: Mapping[str, float]) -> str:
    """Draw ``phases``, in seconds, one after the other in time, one below the other on paper.

    Text has the colour of the text around the picture, so it suits any theme when it is part of the page.
    """
    total = sum(phases.values()) or 1.0
    scale = (_WIDTH - _NAMES - _TIMES) / total
    height = _TOP + _ROW * len(phases)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"'
        f' aria-label="{escape(title)}"'
        f' style="max-width:{_WIDTH}px;width:100%;font:12px system-ui,sans-serif;fill:currentColor">',
        f'<text x="0" y="15" font-weight="600">{escape(title)}</text>',
    ]
    began = 0.0
    for index, (name, seconds) in enumerate(phases.items()):
        x, width, y = _NAMES + began * scale, max(seconds * scale, 1.0), _TOP + index * _ROW
        parts += [
            f"<g><title>{escape(MEANING.get(name, name))}</title>",
            f'<text x="{_NAMES - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}" rx="2"'
            f' fill="{_COLOURS[index % len(_COLOURS)]}"/>',
            f'<text x="{x + width + 5:.1f}" y="{y + 14}">{duration(seconds)}</text></g>',
        ]
        began += seconds
    return "".join([*parts, "</svg>"])


def text(title: str, phases: Mapping[str, float]) -> str:
    """The same as lines of text."""
    return "\n".join([title, *(f"  {name:15} {duration(seconds):>8}" for name, seconds in phases.items())])


def duration(seconds: float) -> str:
    """Seconds as people say them: ``83 ms``, ``1.93 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.2f} s"
